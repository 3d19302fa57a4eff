"""The problem: what an attack may ask about its rows; it remembers the best that passes through it.

A row carries a sample and a lane, so that restarts and targets of one sample run side by side. Everything a
row knows is (n, …); the `Ledger` it shares with all its views is kept per sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal, margin
from robustbench_lite.core.ledger import Ledger
from robustbench_lite.core.losses import Loss
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Threat


@dataclass(frozen=True)
class Evaluation:
    """What the model says of n points: gradient (n, …) of the loss (n,), scores (n, K), adversarial (n,)."""

    gradient: Tensor
    loss: Tensor
    scores: Tensor
    adversarial: Tensor


@dataclass(frozen=True)
class Problem:
    """n rows to attack: x0 (n, …) in the domain, y (n,), target (n,) to aim at or None, eps (n,) float64.

    row (n,): each row's place in the ledger; ids (n,): the samples' names in their data; lane (n,).
    idle (n,): rows that have nothing left to do, and stay only until the batch is packed; None: no row.
    step: how far the driver has come; it keys the random numbers.
    """

    oracle: Oracle
    threat: Threat
    goal: Goal
    ledger: Ledger
    x0: Tensor
    y: Tensor
    eps: Tensor
    ids: Tensor
    row: Tensor
    lane: Tensor
    target: Tensor | None = None
    idle: Tensor | None = None
    seed: int = 0
    attack: int = 0
    step: int = 0

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: Tensor) -> Problem:
        """The rows chosen by a mask or by indices, on the same ledger."""
        target, idle = (None if part is None else part[rows] for part in (self.target, self.idle))
        return replace(
            self,
            x0=self.x0[rows],
            y=self.y[rows],
            eps=self.eps[rows],
            ids=self.ids[rows],
            row=self.row[rows],
            lane=self.lane[rows],
            target=target,
            idle=idle,
        )

    def in_lanes(self, count: int) -> Problem:
        """Every row `count` times, each copy in a lane of its own."""
        if count == 1:
            return self
        rows = torch.arange(len(self), device=self.row.device).repeat_interleave(count)
        offset = torch.arange(count, device=self.row.device).repeat(len(self))
        wide = self[rows]
        return replace(wide, lane=wide.lane * count + offset)

    @property
    def found(self) -> Tensor:
        """Whether each row's sample has an adversarial example (n,)."""
        return self.ledger.found[self.row]

    @property
    def settled(self) -> Tensor:
        """Rows whose sample needs no more search (n,); for the smallest perturbation: those within eps."""
        match self.ledger.keep:
            case "first":
                return self.found
            case "nearest":
                return (self.best_distance <= self.eps) & (self.eps < torch.inf)
            case _:
                return torch.zeros_like(self.found)

    @property
    def best_x(self) -> Tensor:
        """The best point seen for each row's sample (n, …)."""
        return self.ledger.best_x[self.row]

    @property
    def best_distance(self) -> Tensor:
        """The distance of the adversarial example kept (n,) float64, inf where there is none."""
        return self.ledger.best_distance[self.row]

    @property
    def remaining(self) -> Tensor:
        """Passes left to each row's sample (n,) int64; its lanes share them."""
        return self.ledger.remaining[self.row]

    def random(self, tag: str) -> Stream:
        """This step's random numbers, one key a row; another tag, other numbers."""
        stream = Stream.of(self.seed, self.ids)
        name = self.ledger.attacks[self.attack].partition(":")[0]  # more steps only lengthen the path
        return stream.fold(name, self.lane, self.step, tag)

    def random_start(self) -> Tensor:
        """A random admissible point for each row (n, …)."""
        return self.threat.random(self.random("start"), self.x0, self.eps)

    def project(self, x: Tensor) -> Tensor:
        """The admissible point nearest to each row of x (n, …)."""
        return self.threat.project(x, self.x0, self.eps)

    def size(self, fraction: float = 1.0) -> Tensor:
        """A fraction of eps, shaped (n, 1, …) to scale steps of x."""
        return (fraction * self.eps).to(self.x0.dtype).reshape(-1, *[1] * (self.x0.dim() - 1))

    def evaluate(self, x: Tensor, loss: Loss) -> Evaluation:
        """Loss and its gradient at x (n, …): one forward and one backward a row (and draw).

        Rows whose budget is spent are not asked: gradient 0, loss -inf, scores NaN, not adversarial.
        """
        draws = self.oracle.draws
        allowed = self.ledger.affordable(self.row, 2 * draws + self._confirmations)
        if allowed is not None:
            part = self[allowed].evaluate(x[allowed], loss)
            return Evaluation(
                _spread(part.gradient, allowed, 0.0),
                _spread(part.loss, allowed, -torch.inf),
                _spread(part.scores, allowed, torch.nan),
                _spread(part.adversarial, allowed, 0.0),
            )
        x = self._snap(x)
        stream = self._noise()

        def objective(scores: Tensor, s: slice) -> Tensor:
            return loss(scores, self.y[s], None if self.target is None else self.target[s])

        gradient, value, scores = self.oracle.gradient(x, objective, stream)
        self.ledger.charge(self.row, draws, draws, self.idle)
        if self.oracle.face_is_truth:
            adversarial = self._remember(x, self.row, scores)
        else:
            adversarial = self._confirm(x, scores)
        return Evaluation(gradient, value, scores, adversarial)

    def jacobian(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients (n, C, …) of the scores of classes (n, C), and the scores (n, K) at x (n, …).

        One forward and C backwards a row. Rows whose budget is spent are not asked: gradients 0, scores NaN.
        """
        own = self.oracle.own_face_is_truth
        cost = 1 + classes.shape[1] + (0 if own else self.oracle.draws)
        allowed = self.ledger.affordable(self.row, cost)
        if allowed is not None:
            gradient, scores = self[allowed].jacobian(x[allowed], classes[allowed])
            return _spread(gradient, allowed, 0.0), _spread(scores, allowed, torch.nan)
        x = self._snap(x)
        gradient, scores = self.oracle.jacobian(x, classes, self._noise())
        self.ledger.charge(self.row, 1, classes.shape[1], self.idle)
        if own:
            self._remember(x, self.row, scores)
        else:
            self._confirm(x, scores)
        return gradient, scores

    def scores(self, points: Tensor, rows: Tensor | None = None) -> Tensor:
        """True scores (m, K) of points (m, …), each asked for one of the rows (m,) (None: one point a row).

        One forward a point. Points beyond their sample's budget are not asked; their scores are NaN.
        """
        chosen = self if rows is None else self[rows]
        allowed = self.ledger.affordable(chosen.row, self.oracle.draws)
        if allowed is not None:
            return _spread(chosen[allowed].scores(points[allowed]), allowed, torch.nan)
        points = chosen._snap(points)
        scores = self.oracle.truth(points, chosen._noise())
        self.ledger.charge(chosen.row, self.oracle.draws, 0, chosen.idle)
        chosen._remember(points, chosen.row, scores)
        return scores

    def proposals(self, points: Tensor, rows: Tensor | None = None) -> Tensor:
        """Scores (m, K) as the search computes them, which may be faster; costs as `scores`.

        Each point it believes in is asked about again, of the true model, before it counts.
        """
        if self.oracle.search is None or self.oracle.model.stochastic:
            return self.scores(points, rows)
        chosen = self if rows is None else self[rows]
        allowed = self.ledger.affordable(chosen.row, 2)
        if allowed is not None:
            return _spread(chosen[allowed].proposals(points[allowed]), allowed, torch.nan)
        points = chosen._snap(points)
        scores = self.oracle.proposed(points)
        self.ledger.charge(chosen.row, 1, 0, chosen.idle)
        chosen._confirm(points, scores)
        return scores

    def decisions(self, points: Tensor, rows: Tensor | None = None) -> Tensor:
        """Whether each point is adversarial (m,): all a decision-based attack may ask; costs as `scores`."""
        chosen = self if rows is None else self[rows]
        return chosen.met(self.scores(points, rows))

    @property
    def _confirmations(self) -> int:
        return 0 if self.oracle.face_is_truth else self.oracle.draws

    def _noise(self) -> Stream | None:
        return self.random("model") if self.oracle.model.stochastic else None

    def _snap(self, x: Tensor) -> Tensor:
        """x with stepped features on their grid: the nearest point of it that the threat admits."""
        domain = self.threat.domain
        if domain.spacing is None:
            return x
        nearest = domain.snap(x, self.x0, inward=False)
        inside = self.threat.contains(nearest, self.x0, self.eps).reshape(-1, *[1] * (x.dim() - 1))
        return torch.where(inside, nearest, domain.snap(x, self.x0, inward=True))

    def met(self, scores: Tensor) -> Tensor:
        """Whether scores (n, K) of a point for each row reach the goal (n,), wherever the point lies."""
        confidence = self.oracle.model.confidence(scores) if self.goal.confidence else None
        return self.goal.met(scores, self.y, self.target, confidence)

    def _confirm(self, x: Tensor, believed: Tensor) -> Tensor:
        """Ask the truth of what a stand-in or a faster search has proposed.

        A stand-in is asked about always; a faster search where it believes in a point better than the best
        known. Where the truth is not asked, what was believed stands.
        """
        asked = torch.ones_like(self.row, dtype=torch.bool)
        adversarial = torch.zeros_like(asked)
        if self.oracle.search is not None and self.oracle.model.gradient_is_truth:
            adversarial = self.met(believed)
            match self.ledger.keep:
                case "first":
                    asked = adversarial & ~self.found
                case "nearest":
                    asked = adversarial & (self.threat.distance(x, self.x0) < self.best_distance)
                case _:
                    asked = adversarial.clone()
        if bool(asked.any()):
            view = self[asked]
            scores = self.oracle.truth(x[asked], view._noise())
            self.ledger.charge(view.row, self.oracle.draws, 0, view.idle)
            adversarial[asked] = view._remember(x[asked], view.row, scores)
        return adversarial

    def _remember(self, x: Tensor, row: Tensor, scores: Tensor) -> Tensor:
        success = self.met(scores)
        aim = self.target if self.goal.targeted else None
        distance = self.threat.distance(x, self.x0)
        admissible = (distance <= self.eps) & self.threat.domain.admits(x, self.x0)  # it contains x
        reached = torch.where(admissible, margin(scores, self.y, aim).to(self.ledger.best_margin), -torch.inf)
        self.ledger.see(row, x, success & admissible, distance, reached, self.attack)
        return success & admissible


def _spread(part: Tensor, rows: Tensor, fill: float) -> Tensor:
    """The values of some rows (a mask) in their places, the others filled."""
    whole = part.new_full((len(rows), *part.shape[1:]), fill)
    whole[rows] = part
    return whole
