"""Linear models trained on their exact worst case: the dual norm of the weights, as far as the box allows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, NonNegative, Positive
from robustbench_lite.models.cache import remember
from robustbench_lite.models.defense import Base, Defense
from robustbench_lite.models.zoo.linear import LinearModel

VERSION = 1
STAGES = 5  # in which the ball grows
ROUND = 1e-3  # of the kink of an absolute value at 0, where the line search would stay
LOSSES = {"logistic": "softmax", "linear_svm": "hinge"}


@dataclass(frozen=True)
class DualNorm(Defense):
    """Softmax regression or a multi-class hinge on the scores that an adversary can reach.

    In a ball of an lp norm class j can gain eps times the dual norm of w_j - w_y on class y; in linf no
    feature moves further than the box allows, which is taken into account.

    Parameters
    ----------
    eps : float, default 0.1
        Size of the ball, in the units of x.
    norm : {"linf", "l2"}, default "linf"
    penalty : float, default 1e-4
        Weight of half the squared length of the weights.
    steps : int, default 200
        Of L-BFGS.

    Raises
    ------
    Unsupported
        For anything but `logistic` and `linear_svm`.

    Source: Xu, Caramanis & Mannor 2009 (Robustness and regularization of support vector machines).

    Examples
    --------
    >>> DualNorm(norm="l2").eps
    0.1
    """

    eps: Positive = 0.1
    norm: Literal["linf", "l2"] = "linf"
    penalty: NonNegative = 1e-4
    steps: Count = 200

    name = "dual_norm"
    paper = "Xu, Caramanis & Mannor 2009 (JMLR)"

    def defend(self, base: Base) -> Model:
        kind = LOSSES.get(base.text)
        if kind is None:
            raise Unsupported(f"{self.name} is for {' and '.join(LOSSES)}; not for {base.text}")

        def fit() -> dict[str, Tensor]:
            return self._fit(base, kind)

        held = remember(f"{self.name}({base.text}) {self.parameters}", VERSION, base.data, base.train, fit)
        shape = base.data.x.shape[1:]
        made = LinearModel(held["weight"], held["bias"], shape, name=base.text, scaled=kind == "softmax")
        return made.to(base.train.device)

    def _fit(self, base: Base, kind: str) -> dict[str, Tensor]:
        training = base.data.training()
        x, y = training.x.flatten(1).double(), training.y
        low, high = (
            torch.as_tensor(side, dtype=torch.float64).expand(training.x.shape[1:]).flatten()
            for side in (base.data.domain.low, base.data.domain.high)
        )
        weight = torch.zeros(base.data.num_classes, x.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(len(weight), dtype=torch.float64, requires_grad=True)
        others = functional.one_hot(y, len(weight)) == 0

        def worst(index: Tensor, eps: float) -> Tensor:
            """What every class can be brought to lead y by (m, K)."""
            down, up = (x[index] - low).clamp_max(eps), (high - x[index]).clamp_max(eps)
            against = weight[None] - weight[y[index]][:, None]
            lead = x[index] @ weight.T + bias
            lead = lead - lead.gather(1, y[index][:, None])
            if self.norm == "l2":
                length = (against.square().sum(2) + 1e-12).sqrt()
                return lead + eps * length * others[index]
            size = (against.square() + ROUND**2).sqrt()
            gain = (size + against) / 2 @ up[:, :, None] + (size - against) / 2 @ down[:, :, None]
            return lead + gain[:, :, 0] * others[index]

        def objective(eps: float) -> Tensor:
            """The loss of all samples (), its gradient left with weight and bias."""
            weight.grad = bias.grad = None
            total = torch.zeros((), dtype=torch.float64)
            for index in torch.split(torch.arange(len(y)), 2000):
                lead = worst(index, eps)
                if kind == "softmax":
                    one = functional.cross_entropy(lead, y[index], reduction="sum")
                else:
                    one = (1 + lead).masked_fill(~others[index], 0.0).clamp_min(0).amax(1).square().sum()
                part = one / len(y)
                torch.autograd.backward(part)
                total = total + part.detach()
            decay = self.penalty / 2 * weight.square().sum()
            torch.autograd.backward(decay)
            return total + decay.detach()

        base.train.report(f"{self.name}({base.text})", 0.0)
        for stage in range(STAGES + 1):
            optimiser = torch.optim.LBFGS(
                [weight, bias], max_iter=-(-self.steps // STAGES), line_search_fn="strong_wolfe"
            )
            optimiser.step(partial(objective, self.eps * stage / STAGES))  # type: ignore[no-untyped-call]
        return {"weight": weight.detach(), "bias": bias.detach()}
