"""Adversarial trainings: the network learns from points that an adversary makes of its samples meanwhile."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, NonNegative, Positive
from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import per_row
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.training.inner import Ball, Rise, ascent
from robustbench_lite.defenses.training.training import Training, accuracy
from robustbench_lite.models.defense import Base
from robustbench_lite.models.zoo.training import Batch, Objective, Schedule

GROWING = 0.25  # of the training, over which eps grows to its full size
CHECKED = 10  # steps of the adversary that an epoch is chosen by
REACH = 2.5  # how far all steps of an adversary lead, in eps


def cross_entropy(scores: Tensor, y: Tensor) -> Tensor:
    """The plain loss of a batch (), which an adversary raises."""
    return functional.cross_entropy(scores, y, reduction="sum")


@dataclass(frozen=True)
class Adversarial(Training):
    """What adversarial trainings share.

    Parameters
    ----------
    eps : float, default 0.1
        Size of the ball, in the units of x; where an adversary makes a point for each sample of its own, it
        grows to that over the first quarter of the training.
    norm : {"linf", "l2"}, default "linf"
    epochs : int, default 0
        0: as many as the network is trained for without it.
    """

    eps: Positive = 0.1
    norm: Literal["linf", "l2"] = "linf"

    def ball(self, data: Data, device: torch.device) -> Ball:
        """Where the adversary may go."""
        return Ball.of(self.norm, self.eps, data.domain, device)

    def loss(self, module: nn.Module, batch: Batch, adversarial: Tensor) -> Tensor:
        """What is minimised (): by default the cross-entropy of the adversary's points."""
        return functional.cross_entropy(module(adversarial).float(), batch.y)

    def worth(self, module: nn.Module, held_out: Data, data: Data) -> tuple[float, str]:
        device = next(module.parameters()).device
        ball = self.ball(data, device)

        def attacked(x: Tensor, y: Tensor, part: slice) -> Tensor:
            start = ball.random(x, Stream.of(0, held_out.ids[part].to(device)))
            size = REACH * self.eps / CHECKED
            return ascent(module, x, y, start, ball, CHECKED, size, cross_entropy)

        clean = accuracy(module, held_out.x, held_out.y)
        robust = accuracy(module, held_out.x, held_out.y, attacked)
        return robust, f" {clean:.1%} clean, {robust:.1%} robust"


@dataclass(frozen=True)
class OfEachSample(Adversarial):
    """Those whose adversary makes a point of each sample before the weights take their step."""

    def objective(self, base: Base, learnt: Data) -> Objective:
        return _Within(self, self.ball(base.data, base.train.device))

    @abstractmethod
    def adversary(self, module: nn.Module, batch: Batch, ball: Ball) -> Tensor:
        """The points (n, …) that a batch's samples become."""


class _Within(Objective):
    """The objective of an adversarial training; eps grows, and the weights may be changed for the worse."""

    def __init__(self, training: OfEachSample, ball: Ball, awp: float = 0.0) -> None:
        self.training, self.ball, self.awp = training, ball, awp
        self._moved: list[tuple[nn.Parameter, Tensor]] = []

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        ball = replace(self.ball, eps=self.ball.eps * min(1.0, batch.done / GROWING + 1e-3))
        adversarial = self.training.adversary(module, batch, ball)
        if self.awp and batch.done > GROWING:
            self._worsen(module, self.training.loss(module, batch, adversarial))
        return self.training.loss(module, batch, adversarial)

    def before_step(self, module: nn.Module) -> None:
        """The weights are taken back to where they were."""
        with torch.no_grad():
            for parameter, change in self._moved:
                parameter.sub_(change)
        self._moved = []

    def _worsen(self, module: nn.Module, loss: Tensor) -> None:
        """Weights a share of their length up the loss (Wu et al. 2020, equation 9), layer by layer."""
        weights = [p for p in module.parameters() if p.dim() > 1]
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                change = self.awp * weight.norm() / gradient.norm().clamp_min(1e-12) * gradient
                weight.add_(change)
                self._moved.append((weight, change))


@dataclass(frozen=True)
class Iterated(OfEachSample):
    """Those whose adversary takes several steps up a loss, from a random point.

    Parameters
    ----------
    steps : int, default 10
        Of the adversary, each 2.5 eps / steps long.
    awp : float, default 0.0
        Weights are changed for the worse too, by this share of their length (0.005 is usual); Wu et al. 2020
        (arXiv:2004.05884).
    """

    steps: Count = 10
    awp: NonNegative = 0.0

    def objective(self, base: Base, learnt: Data) -> Objective:
        return _Within(self, self.ball(base.data, base.train.device), self.awp)

    def adversary(self, module: nn.Module, batch: Batch, ball: Ball) -> Tensor:
        start, size = ball.random(batch.x, batch.stream), REACH * ball.eps / self.steps
        rise = self.rise(module, batch)
        return ascent(module, batch.x, batch.y, start, ball, self.steps, size, rise)

    def rise(self, module: nn.Module, batch: Batch) -> Rise:
        """What the adversary raises: by default cross-entropy."""
        return cross_entropy


@dataclass(frozen=True)
class PGDTraining(Iterated):
    """Cross-entropy on points that projected gradient descent makes of the samples.

    Parameters
    ----------
    steps : int, default 10
        Of the adversary, from a random point; each 2.5 eps / steps long.
    awp : float, default 0.0
        Weights are changed for the worse too, by this share of their length (0.005 is usual); Wu et al. 2020
        (arXiv:2004.05884).
    eps, norm, epochs
        As of all adversarial trainings: 0.1, "linf", and as many as without it.

    Notes
    -----
    The epoch with the highest robust accuracy on held-out samples is kept, with the mean of its last weights.

    Source: Madry et al. 2018 (arXiv:1706.06083).

    Examples
    --------
    >>> PGDTraining(eps=0.3).steps
    10
    """

    name = "pgd_training"
    paper = "Madry et al. 2018, arXiv:1706.06083"


@dataclass(frozen=True)
class FGSMTraining(OfEachSample):
    """One step from a random point: adversarial training at the price of two passes.

    Parameters
    ----------
    step : float, default 1.25
        Length of the step, in eps.
    align : float, default 0.0
        Weight of GradAlign: gradients at the sample and at a random point should point the same way
        (Andriushchenko & Flammarion 2020, arXiv:2007.02617), which holds off catastrophic overfitting.
    eps, norm, epochs
        As of all adversarial trainings.

    Notes
    -----
    Catastrophic overfitting (robust against one step, not against ten) shows in the held-out accuracy
    against ten steps, by which the epoch is chosen.

    Source: Wong, Rice & Kolter 2020 (arXiv:2001.03994).

    Examples
    --------
    >>> FGSMTraining(align=0.2).align
    0.2
    """

    step: Positive = 1.25
    align: NonNegative = 0.0

    name = "fgsm_training"
    paper = "Wong, Rice & Kolter 2020, arXiv:2001.03994"

    def adversary(self, module: nn.Module, batch: Batch, ball: Ball) -> Tensor:
        start = ball.random(batch.x, batch.stream)
        return ascent(module, batch.x, batch.y, start, ball, 1, self.step * ball.eps, cross_entropy)

    def loss(self, module: nn.Module, batch: Batch, adversarial: Tensor) -> Tensor:
        loss = super().loss(module, batch, adversarial)
        if not self.align:
            return loss
        nowhere = torch.full((), torch.inf, device=batch.x.device)
        around = Ball(self.norm, self.eps, -nowhere, nowhere)
        gradients = []
        for place in (batch.x, around.random(batch.x, batch.stream.fold("align"))):
            leaf = place.detach().requires_grad_()
            one = cross_entropy(module(leaf).float(), batch.y)
            gradients.append(torch.autograd.grad(one, leaf, create_graph=True)[0].flatten(1))
        return (
            loss + self.align * (1 - functional.cosine_similarity(gradients[0], gradients[1], dim=1)).mean()
        )


@dataclass(frozen=True)
class FreeTraining(Adversarial):
    """Each batch several times over, the step of the weights and the step of the adversary from one pass.

    Parameters
    ----------
    replays : int, default 4
        How often each batch is used; as many fewer epochs are taken.
    eps, norm, epochs
        As of all adversarial trainings.

    Source: Shafahi et al. 2019 (arXiv:1904.12843), but that every batch begins at random points anew, where
    theirs begins with what the batch before has left.

    Examples
    --------
    >>> FreeTraining(replays=8).replays
    8
    """

    replays: Count = 4

    name = "free_training"
    paper = "Shafahi et al. 2019, arXiv:1904.12843"

    def schedule(self, usual: Schedule) -> Schedule:
        plain = super().schedule(usual)
        return replace(plain, epochs=self.epochs or max(1, -(-plain.epochs // self.replays)))

    def objective(self, base: Base, learnt: Data) -> Objective:
        return _Free(self, self.ball(base.data, base.train.device))


class _Free(Objective):
    """The adversary's points are kept from replay to replay of a batch."""

    def __init__(self, training: FreeTraining, ball: Ball) -> None:
        self.training, self.ball = training, ball
        self._rows: Tensor | None = None
        self._leaf = self._x = torch.empty(0)

    @property
    def replays(self) -> int:  # type: ignore[override]
        """Steps on each batch."""
        return self.training.replays

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        if self._rows is not batch.rows:
            self._rows, self._x = batch.rows, batch.x
            self._leaf = self.ball.random(batch.x, batch.stream)
        self._leaf = self._leaf.detach().requires_grad_()
        return self.training.loss(module, batch, self._leaf)

    def before_step(self, module: nn.Module) -> None:
        """The adversary takes its step by the gradient that came with the weights'."""
        assert self._leaf.grad is not None
        moved = self._leaf.detach() + self.ball.step(self._leaf.grad, self.ball.eps)
        self._leaf = self.ball.inside(moved, self._x)


@dataclass(frozen=True)
class TRADES(Iterated):
    """Cross-entropy on the samples, and how far an adversary moves the answer from there.

    Parameters
    ----------
    beta : float, default 6.0
        Weight of the second part.
    steps : int, default 10
        Of the adversary, each 2.5 eps / steps long.
    awp : float, default 0.0
        As in `pgd_training`.
    eps, norm, epochs
        As of all adversarial trainings.

    Source: Zhang et al. 2019 (arXiv:1901.08573), equation 5.

    Examples
    --------
    >>> TRADES(beta=1.0).beta
    1.0
    """

    beta: NonNegative = 6.0

    name = "trades"
    paper = "Zhang et al. 2019, arXiv:1901.08573"

    def rise(self, module: nn.Module, batch: Batch) -> Rise:
        mode = module.training
        module.eval()
        with torch.no_grad():
            there = module(batch.x).float().log_softmax(1)
        module.train(mode)

        def divergence(scores: Tensor, y: Tensor) -> Tensor:
            return functional.kl_div(scores.log_softmax(1), there, reduction="sum", log_target=True)

        return divergence

    def loss(self, module: nn.Module, batch: Batch, adversarial: Tensor) -> Tensor:
        both = module(torch.cat([batch.x, adversarial])).float()
        clean, moved = both[: len(batch.x)], both[len(batch.x) :]
        apart = functional.kl_div(
            moved.log_softmax(1), clean.log_softmax(1), reduction="batchmean", log_target=True
        )
        return functional.cross_entropy(clean, batch.y) + self.beta * apart


@dataclass(frozen=True)
class MART(Iterated):
    """TRADES that weighs what the network has wrong more: misclassification-aware.

    Parameters
    ----------
    beta : float, default 5.0
        Weight of the second part.
    steps : int, default 10
        Of the adversary, each 2.5 eps / steps long.
    awp : float, default 0.0
        As in `pgd_training`.
    eps, norm, epochs
        As of all adversarial trainings.

    Source: Wang et al. 2020 (Improving adversarial robustness requires revisiting misclassified examples),
    equation 11.

    Examples
    --------
    >>> MART().beta
    5.0
    """

    beta: NonNegative = 5.0

    name = "mart"
    paper = "Wang et al. 2020 (ICLR)"

    def loss(self, module: nn.Module, batch: Batch, adversarial: Tensor) -> Tensor:
        both = module(torch.cat([batch.x, adversarial])).float()
        clean, moved = both[: len(batch.x)].softmax(1), both[len(batch.x) :].softmax(1)
        own, others = moved.gather(1, batch.y[:, None])[:, 0], moved.scatter(1, batch.y[:, None], 0.0).amax(1)
        boosted = -(own + 1e-4).log() - (1.0001 - others).log()
        apart = (clean * ((clean + 1e-7).log() - (moved + 1e-7).log())).sum(1)
        unsure = 1 - clean.gather(1, batch.y[:, None])[:, 0]
        loss: Tensor = (boosted + self.beta * apart * unsure).mean()
        return loss


@dataclass(frozen=True)
class UniversalTraining(Adversarial):
    """One perturbation for all samples, which grows while the network learns not to mind it.

    Parameters
    ----------
    step : float, default 0.1
        Of the perturbation at each batch, in eps.
    eps, norm, epochs
        As of all adversarial trainings.

    Source: Shafahi et al. 2018 (Universal adversarial training, arXiv:1811.11304), algorithm 3.

    Examples
    --------
    >>> UniversalTraining(eps=0.2).step
    0.1
    """

    step: Positive = 0.1

    name = "universal_training"
    paper = "Shafahi et al. 2018, arXiv:1811.11304"

    def objective(self, base: Base, learnt: Data) -> Objective:
        return _Universal(self, self.ball(base.data, base.train.device))

    def worth(self, module: nn.Module, held_out: Data, data: Data) -> tuple[float, str]:
        return Training.worth(self, module, held_out, data)  # held against one perturbation, not against any


class _Universal(Objective):
    """The perturbation (1, …) is kept from batch to batch."""

    def __init__(self, training: UniversalTraining, ball: Ball) -> None:
        self.training, self.ball = training, ball
        self._leaf: Tensor | None = None

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        kept = torch.zeros_like(batch.x[:1]) if self._leaf is None else self._leaf
        self._leaf = kept.detach().requires_grad_()
        adversarial = torch.minimum(torch.maximum(batch.x + self._leaf, self.ball.low), self.ball.high)
        return self.training.loss(module, batch, adversarial)

    def state(self) -> dict[str, Tensor]:
        return {} if self._leaf is None else {"perturbation": self._leaf.detach()}

    def go_on(self, state: Mapping[str, Tensor]) -> None:
        self._leaf = state["perturbation"].to(self.ball.low.device)

    def before_step(self, module: nn.Module) -> None:
        """The perturbation takes its step by the gradient that came with the weights'."""
        assert self._leaf is not None
        assert self._leaf.grad is not None
        moved = self._leaf.detach() + self.ball.step(self._leaf.grad, self.training.step * self.ball.eps)
        if self.ball.norm == "linf":
            self._leaf = moved.clamp(-self.ball.eps, self.ball.eps)
        else:
            length = torch.linalg.vector_norm(moved.flatten(1), dim=1).clamp_min(1e-12)
            self._leaf = moved * per_row((self.ball.eps / length).clamp_max(1.0), moved)


@dataclass(frozen=True)
class EnsembleTraining(OfEachSample):
    """One step on fixed other networks in turn with the network itself: robust to what is transferred.

    Parameters
    ----------
    eps, norm, epochs
        As of all adversarial trainings. The sources are plainly trained `lenet` and `conv_small`.

    Source: Tramèr et al. 2018 (arXiv:1705.07204), section 3.3.

    Examples
    --------
    >>> EnsembleTraining().eps
    0.1
    """

    name = "ensemble_training"
    paper = "Tramèr et al. 2018, arXiv:1705.07204"

    def objective(self, base: Base, learnt: Data) -> Objective:
        sources = [base.make(name) for name in ("lenet", "conv_small")]
        return _FromOthers(self, self.ball(base.data, base.train.device), sources)

    def adversary(self, module: nn.Module, batch: Batch, ball: Ball) -> Tensor:
        start = ball.random(batch.x, batch.stream)
        return ascent(module, batch.x, batch.y, start, ball, 1, ball.eps, cross_entropy)

    def loss(self, module: nn.Module, batch: Batch, adversarial: Tensor) -> Tensor:
        both = module(torch.cat([batch.x, adversarial])).float()
        return functional.cross_entropy(both, batch.y.repeat(2))

    def worth(self, module: nn.Module, held_out: Data, data: Data) -> tuple[float, str]:
        return Training.worth(self, module, held_out, data)  # what is transferred is not asked for here


class _FromOthers(Objective):
    """Batch by batch another source, the network itself among them."""

    def __init__(self, training: EnsembleTraining, ball: Ball, sources: Sequence[Model]) -> None:
        self.training, self.ball, self.sources = training, ball, list(sources)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        turn = batch.number % (len(self.sources) + 1)
        if turn == len(self.sources):
            adversarial = self.training.adversary(module, batch, self.ball)
        else:
            leaf = self.ball.random(batch.x, batch.stream).requires_grad_()
            raised = cross_entropy(self.sources[turn].gradient_scores(leaf), batch.y)
            (gradient,) = torch.autograd.grad(raised, leaf)
            adversarial = self.ball.inside(leaf.detach() + self.ball.step(gradient, self.ball.eps), batch.x)
        return self.training.loss(module, batch, adversarial)
