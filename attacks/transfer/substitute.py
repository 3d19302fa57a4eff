"""A network of one's own, learnt from what the model decides, and attacked in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.attacks.universal.batches import order_of
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.model import Access, reference_precision
from robustbench_lite.core.parameters import Amount, Count, Length
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Fitted

WIDTH = 200  # of a substitute for inputs that are no images
SMALL = 8  # pixels a side, below which an image is treated like other inputs
BATCH, RATE = 32, 5e-3  # of its training
LONGEST = 400  # points of a round that are asked about, once they would be more


@dataclass(frozen=True)
class Substitute(Fitted):
    """Samples, more of them each round along the substitute's own gradients, labelled by the model's
    decisions; then steps with momentum on the substitute (Papernot et al. 2017, algorithm 1).

    The substitute is LeNet for images from 8 × 8 on, and two layers of 200 for other inputs. No query is
    spent on the samples attacked.

    Parameters
    ----------
    samples : int, default 150
        Of the training split, to begin with.
    rounds : int, default 6
        Of asking for twice as many, of which at most 400 new ones (reservoir sampling, Papernot et al. 2016).
    reach : float, default 0.1
        How far the new points lie from the old, in the units of x; the default grows with the box.
    epochs : int, default 10
        Of training in each round.
    steps : int, default 10
        On the substitute, each of eps / steps.

    Notes
    -----
    Cost: at most samples + 400 · rounds forward passes, all while it learns.

    Examples
    --------
    >>> Substitute(samples=100).rounds
    6
    """

    samples: Count = 150
    rounds: Amount = 6
    reach: Length = 0.1
    epochs: Count = 10
    steps: Count = 10

    name = "substitute"
    access = Access.DECISION
    norms = frozenset({Norm.L2, Norm.LINF})
    paper = "Papernot et al. 2017, arXiv:1602.02697"

    def learns_from(self) -> int:
        return self.samples

    def fit(self, problem: Problem) -> Mapping[str, Tensor]:
        rows = order_of(problem, 0)[: self.samples]
        x, rows, y = _decided(problem, problem.x0[rows], rows)
        network = _network(problem)
        for round_ in range(self.rounds + 1):
            _train(network, problem, x, y, self.epochs)
            if round_ == self.rounds or not len(x):
                break
            gradient = _gradient(network, x, y, None)
            reach = problem.threat.domain.at_least_a_step(self.reach, x)
            new = problem.threat.domain.clamp(x - reach * gradient.sign())
            points = Stream.of(problem.seed, torch.arange(len(x), device=x.device)).fold("kept", round_)
            few = points.uniform((), torch.float64).argsort()[:LONGEST]
            new = problem.threat.domain.kept(new[few], problem.x0[rows[few]])
            answered = _decided(problem, new, rows[few])
            if not len(answered[0]):
                break
            x, rows, y = (torch.cat(parts) for parts in zip((x, rows, y), answered, strict=True))
        return {f"network.{name}": value for name, value in network.state_dict().items()}

    def apply(self, problem: Problem, artifact: Mapping[str, Tensor]) -> Tensor:
        network = _network(problem)
        parts = {k.removeprefix("network."): v for k, v in artifact.items() if k.startswith("network.")}
        network.load_state_dict(parts)
        z, velocity = problem.x0, torch.zeros_like(problem.x0)
        for _ in range(self.steps):
            gradient = _gradient(network, z, problem.y, problem.target)
            length = size_of(gradient, 1).clamp_min(1e-30)
            velocity = velocity + gradient / per_row(length, gradient)
            z = problem.project(z + problem.size(1 / self.steps) * problem.threat.steepest(velocity))
        return z


def _decided(problem: Problem, x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The points that the model answers, their rows, and the class that it gives each."""
    prediction = problem.oracle.model.prediction(problem.scores(x, rows))
    answered = prediction >= 0
    return x[answered], rows[answered], prediction[answered]


def _network(problem: Problem) -> nn.Module:
    """An untrained substitute, the same for the same seed."""
    shape, classes = tuple(problem.x0.shape[1:]), problem.oracle.model.num_classes
    with torch.random.fork_rng():
        torch.manual_seed(problem.seed)
        if len(shape) == 3 and min(shape[1:]) >= SMALL:
            channels, height, width = shape
            network = nn.Sequential(
                nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2),
                nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
                nn.Linear(16 * (height // 4) * (width // 4), 120), nn.ReLU(),
                nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes),
            )  # fmt: skip
        else:
            features = int(torch.Size(shape).numel())
            network = nn.Sequential(
                nn.Flatten(), nn.Linear(features, WIDTH), nn.ReLU(),
                nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes),
            )  # fmt: skip
    return network.to(problem.x0.device)


def _train(network: nn.Module, problem: Problem, x: Tensor, y: Tensor, epochs: int) -> None:
    """Some epochs of cross-entropy, the rate on one cycle."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=epochs * -(-len(y) // BATCH))
    points = Stream.of(problem.seed, torch.arange(len(y), device=y.device)).fold("training")
    with torch.enable_grad(), reference_precision():
        for epoch in range(epochs):
            for rows in torch.split(points.fold(epoch).uniform((), torch.float64).argsort(), BATCH):
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(functional.cross_entropy(network(x[rows]), y[rows]))
                optimiser.step()
                rates.step()


def _gradient(network: nn.Module, x: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """Of the substitute's loss, which rises as an attack gains (n, …)."""
    with torch.enable_grad(), reference_precision():
        leaf = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(network(leaf), y, target).sum(), leaf)
    return gradient
