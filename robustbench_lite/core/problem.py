"""The problem: what an attack may ask about its rows; it remembers the best that passes through it.

A row carries a sample and a lane, so that restarts and targets of one sample run side by side. Everything a
row knows is (n, …); the `Ledger` it shares with all its views is kept per sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.ledger import Ledger
from robustbench_lite.core.losses import loss_named, of_rows, steep
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.task import Loss
from robustbench_lite.core.threat import Threat

CONFIRMED = 20  # fresh draws of a stochastic model that all have to stand before a sample leaves
NEARLY_ALL = 0.85  # of those draws, for a smallest perturbation to be kept
STRAIGHT = 10  # steps that a row on a plateau goes the same way
STREAK = 40  # draws in a row that succeed before that is asked
MEASURED = 5  # fresh draws that decide between a sample's best candidate and its last point


@dataclass(frozen=True)
class Pool:
    """Samples whose classes are known, that an attack may begin at.

    Parameters
    ----------
    x : Tensor
        (m, …).
    y : Tensor
        (m,) classes.
    """

    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Evaluation:
    """What the model says of n points.

    Parameters
    ----------
    gradient : Tensor
        (n, …) of the loss with respect to z; a random unit direction where the true one is zero.
    loss : Tensor
        (n,): the mean over the draws of a stochastic model.
    scores : Tensor
        (n, K, …): the mean over the draws likewise.
    adversarial : Tensor of bool
        (n,): whether the point is admissible and reaches the goal, as far as the true model was asked.
    """

    gradient: Tensor
    loss: Tensor
    scores: Tensor
    adversarial: Tensor


class Observer(Protocol):
    """Is told of every question for scores, and for gradients with its answer; it changes nothing."""

    def asked(self) -> None:
        """Is told before scores are asked for."""

    def evaluated(self, problem: Problem, z: Tensor, scores: Tensor) -> None:
        """Is told of points and their answer.

        Parameters
        ----------
        problem : Problem
        z : Tensor
            (m, …), the points asked about, one a row of the problem.
        scores : Tensor
            (m, K).
        """


@dataclass(frozen=True)
class Problem:
    """n rows to attack, and all that an attack may ask about them.

    An attack iterates z, from `origin`: the input itself for balls, the parameters of a change for other
    threats. Every point asked about is looked at in passing, and the best admissible one of each sample is
    kept in the ledger; an attack returns nothing else. A problem is immutable but for that ledger, which all
    its views share. Attacks are given problems by the driver and make none.

    Parameters
    ----------
    oracle : Oracle
        The model, as it may be asked.
    threat : Threat
    goal : Goal
    ledger : Ledger
        What is known of each sample, and what it has cost.
    x0 : Tensor
        (n, …) samples, in the domain.
    y : Tensor
        (n,) true classes; (n, …) where an answer has positions.
    eps : Tensor
        (n,) float64, the size allowed; inf for the smallest perturbation.
    ids : Tensor
        (n,), the samples' names in their data.
    row : Tensor
        (n,), each row's place in the ledger.
    lane : Tensor
        (n,): which of a sample's restarts and targets, side by side, the row is.
    lower_bound : Tensor
        (n,) float64: no adversarial example is nearer; 0: nothing is known.
    nearest : Tensor, optional
        (n, …): the nearest adversarial examples that certifiers met, x0 where none was; None: none looked.
    target : Tensor, optional
        (n,), the class to aim at; (n, …) as y.
    idle : Tensor of bool, optional
        (n,): rows that have nothing left to do, and stay only until the batch is packed; None: no row.
    seed : int, default 0
    attack : int, default 0
        Which of the ledger's attacks is at work.
    step : int, default 0
        How far the driver has come; it keys the random numbers.
    observers : tuple of Observer
        Are told what is asked.
    explore : bool, default True
        Whether a row's gradient is a direction to go: then one too small for float32 is kept from
        underflowing, and a random direction stands in for zero. False where gradients of rows are averaged.
    pool : Pool, optional
        Samples of the training split, that `starts` chooses from.
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
    lower_bound: Tensor
    nearest: Tensor | None = None
    target: Tensor | None = None
    idle: Tensor | None = None
    seed: int = 0
    attack: int = 0
    step: int = 0
    observers: tuple[Observer, ...] = ()
    explore: bool = True
    pool: Pool | None = None

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: Tensor) -> Problem:
        """The rows chosen by a mask or by indices, on the same ledger.

        Parameters
        ----------
        rows : Tensor
            (n,) bool, or (m,) int64.

        Returns
        -------
        Problem
            Of m rows.
        """
        parts = (self.nearest, self.target, self.idle)
        nearest, target, idle = (None if part is None else part[rows] for part in parts)
        return replace(
            self,
            x0=self.x0[rows],
            y=self.y[rows],
            eps=self.eps[rows],
            ids=self.ids[rows],
            row=self.row[rows],
            lane=self.lane[rows],
            lower_bound=self.lower_bound[rows],
            nearest=nearest,
            target=target,
            idle=idle,
        )

    def in_lanes(self, count: int) -> Problem:
        """Every row `count` times, each copy in a lane of its own.

        Parameters
        ----------
        count : int
            At least 1.

        Returns
        -------
        Problem
            Of n · count rows, the copies of a row side by side.
        """
        if count == 1:
            return self
        rows = torch.arange(len(self), device=self.row.device).repeat_interleave(count)
        offset = torch.arange(count, device=self.row.device).repeat(len(self))
        wide = self[rows]
        return replace(wide, lane=wide.lane * count + offset)

    @property
    def origin(self) -> Tensor:
        """The z of each row that changes nothing (n, …): x0 itself for balls."""
        return self.threat.origin(self.x0)

    @property
    def found(self) -> Tensor:
        """Whether each row's sample has an adversarial example (n,)."""
        return self.ledger.found[self.row]

    @property
    def settled(self) -> Tensor:
        """Rows whose sample needs no more search (n,); for the smallest perturbation: those within eps.

        Of a stochastic model those whose example stood in all of its fresh draws.
        """
        match self.ledger.keep:
            case "first":
                return self.found
            case "nearest":
                return (self.best_distance <= self.eps) & (self.eps < torch.inf)
            case "mean":
                return self.ledger.confirmed[self.row] & self.goal.stop
            case _:
                return torch.zeros_like(self.found)

    @property
    def best_z(self) -> Tensor:
        """The best point seen for each row's sample (n, …)."""
        return self.ledger.best_z[self.row]

    @property
    def best_distance(self) -> Tensor:
        """The distance of the adversarial example kept (n,) float64, inf where there is none."""
        return self.ledger.best_distance[self.row]

    @property
    def remaining(self) -> Tensor:
        """Passes left to each row's sample (n,) int64; its lanes share them."""
        return self.ledger.remaining[self.row]

    def random(self, tag: str, *parts: int) -> Stream:
        """This step's random numbers, one key a row; another tag or other parts, other numbers.

        They depend on the seed, the sample, its lane, the attack's name, the step and what is given here.

        Parameters
        ----------
        tag : str
            What the numbers are for.
        *parts : int
            Further numbers to tell draws apart by.

        Returns
        -------
        Stream
            Of n rows.
        """
        name = self.ledger.attacks[self.attack].partition(":")[0]  # more steps only lengthen the path
        key = Stream.of(self.seed, self.ids).fold(name, self.lane, self.step, tag)
        return key.fold(*parts) if parts else key

    def steady(self, tag: str, *parts: int) -> Stream:
        """Random numbers that are the same in every step.

        Parameters
        ----------
        tag : str
            What the numbers are for.
        *parts : int
            Further numbers to tell draws apart by.

        Returns
        -------
        Stream
            Of n rows.
        """
        return replace(self, step=-1).random(tag, *parts)

    def random_start(self) -> Tensor:
        """A random admissible point for each row.

        Returns
        -------
        Tensor
            (n, …), as z.
        """
        return self.threat.random(self.random("start"), self.x0, self.eps)

    def starts(self, count: int) -> tuple[Tensor, Tensor]:
        """Samples to begin at: of the class to reach, or of any class but the row's own, the nearest first.

        They belong to their class by their labels; whether the model agrees is for `decisions` to say. What
        may not change keeps the value of x0. For threats whose z is the input itself.

        Parameters
        ----------
        count : int
            At most so many a row; fewer where the pool has fewer.

        Returns
        -------
        tuple of Tensor
            Points (m, …), and the row (m,) that each is for.
        """
        if self.pool is None or not len(self.pool.y) or not len(self):
            return self.x0[:0], self.row[:0]
        pool = Pool(self.pool.x.to(self.x0), self.pool.y.to(self.y.device))
        legal = pool.y != self.y[:, None] if self.target is None else pool.y == self.target[:, None]
        power = {"l1": 1.0, "linf": torch.inf}.get(str(self.threat.norm), 2.0)
        away = torch.cdist(self.x0.flatten(1), pool.x.flatten(1), p=power).masked_fill(~legal, torch.inf)
        nearest, which = away.topk(min(count, len(pool.y)), dim=1, largest=False)
        rows, places = (nearest < torch.inf).nonzero(as_tuple=True)
        points = self.threat.domain.kept(pool.x[which[rows, places]], self.x0[rows])
        return points, rows

    def project(self, z: Tensor) -> Tensor:
        """The admissible point nearest to each row of z.

        Parameters
        ----------
        z : Tensor
            (n, …).

        Returns
        -------
        Tensor
            (n, …).
        """
        return self.threat.project(z, self.x0, self.eps)

    def size(self, fraction: float = 1.0) -> Tensor:
        """A fraction of eps, to scale steps of z.

        Parameters
        ----------
        fraction : float, default 1.0

        Returns
        -------
        Tensor
            (n, 1, …), in the type of z; inf where the smallest perturbation is sought.
        """
        return per_row((fraction * self.eps).to(self.x0.dtype), self.origin)

    def evaluate(self, z: Tensor, loss: Loss) -> Evaluation:
        """Loss and its gradient at z: one forward and one backward a row (and draw).

        A gradient that is exactly zero, or not finite, is counted, and a random unit direction stands in its
        place: what looks flat is left at random instead of never. Rows whose budget is spent are not asked:
        gradient 0, loss -inf, scores NaN, not adversarial. Where the gradient is a surrogate's or a faster
        copy's, the true model is asked about the point too, at the cost of a further forward: of a surrogate
        always, of a copy where it believes in a point better than the best known.

        Parameters
        ----------
        z : Tensor
            (n, …), one point a row; stepped features are put on their grid first.
        loss : callable
            (scores (n, K), y (n,), target (n,) or None) -> (n,), such as `core.losses.cross_entropy`.

        Returns
        -------
        Evaluation
        """
        draws = self.oracle.draws
        allowed = self.ledger.affordable(self.row, 2 * draws + self._confirmations)
        if allowed is not None:
            part = self[allowed].evaluate(z[allowed], of_rows(loss, allowed))
            return Evaluation(
                _spread(part.gradient, allowed, 0.0),
                _spread(part.loss, allowed, -torch.inf),
                _spread(part.scores, allowed, torch.nan),
                _spread(part.adversarial, allowed, 0.0),
            )
        z = self._snap(z)
        if self.explore and draws == 1:  # a row's direction alone matters: no gradients are averaged
            loss = steep(loss)

        def objective(scores: Tensor, s: slice) -> Tensor:
            return self._loss(
                of_rows(loss, s), scores, self.y[s], None if self.target is None else self.target[s]
            )

        def render(leaf: Tensor, s: slice) -> Tensor:
            return self.threat.render(leaf, self.x0[s])

        gradient, value, answers = self.oracle.gradient_through(z, render, objective, self._noise())
        self.ledger.charge(self.row, draws, draws, self.idle)
        adversarial = self._remember(z, answers) if self.oracle.face_is_truth else self._confirm(z, answers)
        scores = _mean(answers)
        for observer in self.observers:
            observer.evaluated(self, z, scores)
        return Evaluation(self._somewhere(gradient), value, scores, adversarial)

    def jacobian(self, z: Tensor, classes: Tensor, against: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Gradients of the scores of some classes, for threats whose z is the input itself.

        As they are: zero where they are zero. One forward and C backwards a row, of one draw of a stochastic
        model. Rows whose budget is spent are not asked: gradients 0, scores NaN.

        Parameters
        ----------
        z : Tensor
            (n, …), one point a row; stepped features are put on their grid first.
        classes : Tensor
            (n, C) int64.
        against : Tensor, optional
            (n,) int64: a class whose score is subtracted from those, at no further cost.

        Returns
        -------
        tuple of Tensor
            Gradients (n, C, …), and the scores (n, K) they belong to.
        """
        own = self.oracle.own_face_is_truth
        cost = 1 + classes.shape[1] + (0 if own else self.oracle.draws)
        allowed = self.ledger.affordable(self.row, cost)
        if allowed is not None:
            other = None if against is None else against[allowed]
            gradient, scores = self[allowed].jacobian(z[allowed], classes[allowed], other)
            return _spread(gradient, allowed, 0.0), _spread(scores, allowed, torch.nan)
        z = self._snap(z)
        gradient, answers = self.oracle.jacobian(z, classes, against, self._noise())
        self.ledger.charge(self.row, 1, classes.shape[1], self.idle)
        largest = gradient.flatten(1).abs().amax(1)
        self._count(self.ledger.zero_gradients, ~((largest > 0) & (largest < torch.inf)))
        if own:
            self._remember(z, answers)
        else:
            self._confirm(z, answers)
        for observer in self.observers:
            observer.evaluated(self, z, answers[0])
        return gradient, answers[0]

    def scores(self, points: Tensor, rows: Tensor | None = None) -> Tensor:
        """True scores of points; one forward a point (and draw).

        Parameters
        ----------
        points : Tensor
            (m, …), as z.
        rows : Tensor, optional
            (m,) int64, the row each point is asked for; None: one point a row.

        Returns
        -------
        Tensor
            (m, K): the mean over the draws of a stochastic model; NaN for points beyond their sample's
            budget, which are not asked.
        """
        chosen = self if rows is None else self[rows]
        allowed = self.ledger.affordable(chosen.row, self.oracle.draws)
        if allowed is not None:
            return _spread(chosen[allowed].scores(points[allowed]), allowed, torch.nan)
        for observer in self.observers:
            observer.asked()
        points = chosen._snap(points)
        answers = self.oracle.truth(self.threat.render(points, chosen.x0), chosen._noise())
        self.ledger.charge(chosen.row, self.oracle.draws, 0, chosen.idle)
        chosen._remember(points, answers)
        return _mean(answers)

    def proposals(self, points: Tensor, rows: Tensor | None = None) -> Tensor:
        """Scores as the search computes them, which may be faster; costs as `scores`.

        Each point it believes in is asked about again, of the true model, before it counts.

        Parameters
        ----------
        points : Tensor
            (m, …), as z.
        rows : Tensor, optional
            (m,) int64, the row each point is asked for; None: one point a row.

        Returns
        -------
        Tensor
            (m, K); NaN for points beyond their sample's budget, which are not asked.
        """
        model = self.oracle.model
        if self.oracle.search is None or self.oracle.scorer is model or model.stochastic:
            return self.scores(points, rows)
        chosen = self if rows is None else self[rows]
        allowed = self.ledger.affordable(chosen.row, 2)
        if allowed is not None:
            return _spread(chosen[allowed].proposals(points[allowed]), allowed, torch.nan)
        points = chosen._snap(points)
        answers = self.oracle.proposed(self.threat.render(points, chosen.x0))
        self.ledger.charge(chosen.row, 1, 0, chosen.idle)
        chosen._confirm(points, answers)
        return answers[0]

    def margins(self, points: Tensor, rows: Tensor | None = None) -> Tensor:
        """How far each point has come, by `proposals`.

        Parameters
        ----------
        points : Tensor
            (m, …), as z.
        rows : Tensor, optional
            (m,) int64, the row each point is asked for; None: one point a row.

        Returns
        -------
        Tensor
            (m,), in the units of scores; below 0 until the class changes, -inf where there is no answer.
        """
        chosen = self if rows is None else self[rows]
        return chosen.margin_of(self.proposals(points, rows))

    def margin_of(self, scores: Tensor) -> Tensor:
        """How far scores of a point for each row have come, towards its target if it has one.

        Parameters
        ----------
        scores : Tensor
            (n, K).

        Returns
        -------
        Tensor
            (n,), in the units of scores; -inf for NaN.
        """
        margin = self.oracle.model.task.margin(scores, self.y, self.target, self.goal.rejection)
        return margin.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)

    def decisions(self, points: Tensor, rows: Tensor | None = None) -> Tensor:
        """Whether each point is adversarial: all a decision-based attack may ask; costs as `scores`.

        Parameters
        ----------
        points : Tensor
            (m, …), as z.
        rows : Tensor, optional
            (m,) int64, the row each point is asked for; None: one point a row.

        Returns
        -------
        Tensor of bool
            (m,), wherever the point lies; False for points beyond their sample's budget, which are not asked.
        """
        chosen = self if rows is None else self[rows]
        return chosen.met(self.scores(points, rows))

    def loss_named(self, name: str) -> Loss:
        """The loss of a name, for what the model's scores mean: see `core.losses.loss_named`.

        Parameters
        ----------
        name : {"ce", "dlr", "margin", "houdini"}

        Returns
        -------
        callable
            As for `evaluate`.
        """
        return loss_named(name, self.oracle.model.task)

    def loss_of(self, loss: Loss, scores: Tensor) -> Tensor:
        """A loss of scores of a point for each row, towards its target if it has one.

        Parameters
        ----------
        loss : callable
            As for `evaluate`.
        scores : Tensor
            (n, K).

        Returns
        -------
        Tensor
            (n,); it rises as an attack gains.
        """
        return self._loss(loss, scores, self.y, self.target)

    def likeliest(self, scores: Tensor, count: int) -> Tensor:
        """The likeliest classes that each row could be led to, by its scores.

        Parameters
        ----------
        scores : Tensor
            (n, K).
        count : int
            At most so many; fewer where there are fewer.

        Returns
        -------
        Tensor
            (n, m) int64, the likeliest first.
        """
        task = self.oracle.model.task
        wrong = task.wrong(scores.nan_to_num(), self.y, self.goal.rejection)
        legal = scores.shape[1] - 1 - (task.reject is not None and not self.goal.rejection)
        return wrong.topk(min(count, legal), dim=1).indices

    def met(self, scores: Tensor) -> Tensor:
        """Whether scores of a point for each row reach the goal, wherever the point lies.

        Parameters
        ----------
        scores : Tensor
            (n, K).

        Returns
        -------
        Tensor of bool
            (n,); False for NaN.
        """
        model = self.oracle.model
        confidence = model.confidence(scores) if self.goal.confidence else None
        # Scores that the budget did not allow are NaN too; they reach nothing.
        goal = replace(self.goal, nan=False) if self.goal.nan else self.goal
        return goal.met(model.task, scores, self.y, self.target, confidence)

    def hand_in(self, z: Tensor, which: Tensor) -> None:
        """Leave points that the threat does not admit to the judge, where nothing that it admits was found.

        For attacks that nobody here has written: the judge says why a point does not count, and it is told.

        Parameters
        ----------
        z : Tensor
            (n, …).
        which : Tensor of bool
            (n,), rows whose point is left so.
        """
        left = which & ~self.found
        self.ledger.best_z[self.row[left]] = z[left]

    def conclude(self, z: Tensor) -> None:
        """A last look at where rows stand, so that nothing goes unseen; the driver's.

        Of a stochastic model the best candidate and the last point are measured on fresh draws.

        Parameters
        ----------
        z : Tensor
            (n, …).
        """
        unseen = self[~self.settled]
        if not len(unseen):
            return
        unseen.scores(z[~self.settled])
        if self.ledger.keep == "mean":
            rows = self._one_row_of_each_sample()
            first = self[rows]
            candidate = self.ledger.candidate_z[first.row]
            first._measure(candidate, MEASURED)
            alone = torch.bincount(self.row, minlength=len(self.ledger.found))[first.row] == 1
            moved = (z[rows] != candidate).flatten(1).any(1)
            last = rows[alone & moved]
            self[last]._measure(z[last], MEASURED)

    def _loss(self, loss: Loss, scores: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        task = self.oracle.model.task
        return task.loss(loss, scores, y, target, self.goal.rejection)

    @property
    def _confirmations(self) -> int:
        return 0 if self.oracle.face_is_truth else self.oracle.draws

    def _one_row_of_each_sample(self) -> Tensor:
        place = torch.arange(len(self), device=self.row.device)
        first = torch.full_like(self.ledger.winner, len(self)).scatter_reduce(0, self.row, place, "amin")
        return first[first < len(self)]

    def _noise(self, tag: str = "model") -> Stream | None:
        return self.random(tag) if self.oracle.model.stochastic else None

    def _somewhere(self, gradient: Tensor) -> Tensor:
        """The gradient, and a random unit direction where it is zero or not finite."""
        largest = gradient.flatten(1).abs().amax(1)  # NaN where there is one
        lost = ~((largest > 0) & (largest < torch.inf))
        if self._count(self.ledger.zero_gradients, lost) and self.explore:
            # The same for some steps: a walk that turns at every step comes nowhere.
            stream = self.steady("nowhere", self.step // STRAIGHT)
            way = self._free(stream.gaussian(tuple(gradient.shape[1:])).to(gradient))
            way = way / per_row(torch.linalg.vector_norm(way.flatten(1), dim=1).clamp_min(1e-30), way)
            gradient = torch.where(per_row(lost, gradient), way, gradient)
        return gradient

    def _free(self, values: Tensor) -> Tensor:
        """Values shaped like z, 0 where the input may not change."""
        return self.threat.domain.free(values) if self.threat.over_inputs else values

    def _count(self, counter: Tensor, which: Tensor) -> bool:
        """Add to a counter of the ledger for the rows that are (n,) and do not idle; False where none is.

        A device of its own is not asked, so that no step waits for it.
        """
        if not which.is_cuda and not bool(which.any()):
            return False
        counted = which if self.idle is None else which & ~self.idle
        counter.index_add_(0, self.row, counted.long())
        return True

    def _snap(self, z: Tensor) -> Tensor:
        """z with stepped features on their grid and orders kept: the nearest point that the threat admits."""
        domain = self.threat.domain
        if domain.whole or not self.threat.over_inputs:
            return z
        nearest = domain.snap(z, self.x0, inward=False)
        inside = per_row(self.threat.contains(nearest, self.x0, self.eps), z)
        return torch.where(inside, nearest, domain.snap(z, self.x0, inward=True))

    def _confirm(self, z: Tensor, believed: Tensor) -> Tensor:
        """Ask the truth of what a surrogate or a faster search has proposed (1, n, K).

        A surrogate is asked about always; a faster search where it believes in a point better than the best
        known. Where the truth is not asked, what was believed stands.
        """
        asked = torch.ones_like(self.row, dtype=torch.bool)
        adversarial = torch.zeros_like(asked)
        if self.oracle.search is not None and self.oracle.model.gradient_is_truth:
            adversarial = self.met(_mean(believed))
            match self.ledger.keep:
                case "first":
                    asked = adversarial & ~self.found
                case "nearest":
                    asked = adversarial & (self.threat.distance(z, self.x0) < self.best_distance)
                case _:
                    asked = adversarial.clone()
            if bool(adversarial.any()):  # nothing outside the ball counts, nor is it asked about
                adversarial &= self.threat.distance(z, self.x0) <= self.eps
                asked &= adversarial
        if (
            self.oracle.model.stochastic
            and self.oracle.model.gradient_is_truth
            and self.oracle.search is None
        ):
            return self._remember(z, believed)  # each draw is a true answer
        if bool(asked.any()):
            view = self[asked]
            answers = self.oracle.truth(view.threat.render(z[asked], view.x0), view._noise())
            self.ledger.charge(view.row, self.oracle.draws, 0, view.idle)
            adversarial[asked] = view._remember(z[asked], answers)
        if self.oracle.search is not None and self.ledger.keep in ("first", "margin"):
            self._note(z, believed, ~asked & ~self.found)
        return adversarial

    def _note(self, z: Tensor, believed: Tensor, rows: Tensor) -> None:
        """Keep the points of some rows (n,) that are believed to have come further than the best known."""
        _, margin = self._reached(believed)
        rows = rows & (margin > self.ledger.best_margin[self.row])
        if bool(rows.any()):
            view, z = self[rows], z[rows]
            distance = view.threat.distance(z, view.x0)
            admissible = (distance <= view.eps) & view._admitted(z)
            if view.idle is not None:
                admissible &= ~view.idle
            gained = torch.where(admissible, margin[rows].to(self.ledger.best_margin), -torch.inf)
            view.ledger.see(view.row, z, torch.zeros_like(admissible), distance, gained, view.attack)

    def _remember(self, z: Tensor, answers: Tensor) -> Tensor:
        """Look at a point (n, …) of each row as the truth answered it (D, n, K): is it adversarial?"""
        met, margin = self._reached(answers)
        self._count(self.ledger.nans, answers.flatten(2).isnan().any(2).any(0))
        distance = self.threat.distance(z, self.x0)
        admissible = (distance <= self.eps) & self._admitted(z)
        if self.idle is not None:  # how long a row idles depends on its neighbours
            admissible &= ~self.idle
        gained = torch.where(admissible, margin.to(self.ledger.best_margin), -torch.inf)
        success = admissible & (met[0] if len(met) == 1 else met.float().mean(0) > 0.5)
        if self.ledger.keep == "mean":
            self.ledger.propose(self.row, z, admissible & met.all(0), len(met), gained)
            enough = self.ledger.streak[self.row] >= STREAK
            if self.goal.stop and bool((enough & success).any()):
                self.ledger.streak[self.row[enough & success]] = 0
                self[enough & success]._measure(z[enough & success], CONFIRMED)
            return success
        kept = success
        if self.oracle.model.stochastic:
            nearer = success & (distance < self.best_distance)
            if bool(nearer.any()):
                # Near the boundary one draw in two succeeds, and of many points the luckiest would be kept:
                # only what stands in nearly all of fresh draws stands in most of the judge's.
                rate, _ = self[nearer]._fresh(z[nearer], CONFIRMED)
                success[nearer] = rate >= NEARLY_ALL
            kept = success & nearer
        self.ledger.see(self.row, z, kept, distance, gained, self.attack)
        return success

    def _reached(self, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Of answers (D, n, K): whether each reaches the goal (D, n), the mean margin (n,), -inf for NaN."""
        draws = len(answers)
        model, flat = self.oracle.model, answers.flatten(0, 1)
        y, target = self.y, self.target
        if draws > 1:
            y, target = torch.cat([y] * draws), None if target is None else torch.cat([target] * draws)
        confidence = model.confidence(flat) if self.goal.confidence else None
        met = self.goal.met(model.task, flat, y, target, confidence).view(draws, -1)
        margin = self.goal.progress(model.task, flat, y, target).view(draws, -1)
        return met, (margin[0] if draws == 1 else margin.mean(0)).nan_to_num(nan=-torch.inf, posinf=torch.inf)

    def _fresh(self, z: Tensor, draws: int) -> tuple[Tensor, Tensor]:
        """The success rate and mean margin of a point a row over fresh draws; -1 beyond the budget."""
        allowed = self.ledger.affordable(self.row, draws)
        if allowed is not None:
            rate, margin = self[allowed]._fresh(z[allowed], draws)
            return _spread(rate, allowed, -1.0), _spread(margin, allowed, -torch.inf)
        answers = self.oracle.truth(self.threat.render(z, self.x0), self._noise("confirm"), draws)
        self.ledger.charge(self.row, draws, 0, self.idle)
        met, margin = self._reached(answers)
        return met.float().mean(0), margin

    def _measure(self, z: Tensor, draws: int) -> None:
        """Ask fresh draws about a point a row, and keep it where it succeeds more often than what is kept."""
        rate, margin = self._fresh(z, draws)
        distance = self.threat.distance(z, self.x0)
        asked = (rate >= 0) & (distance <= self.eps) & self._admitted(z)
        part = self[asked]
        # Few draws are trusted less than many (Laplace's rule of succession).
        sure = (rate[asked] * draws + 1) / (draws + 2)
        self.ledger.measure(part.row, z[asked], sure, distance[asked], margin[asked], self.attack)
        if draws >= CONFIRMED:
            self.ledger.confirmed[part.row[rate[asked] >= 1]] = True

    def _admitted(self, z: Tensor) -> Tensor:
        """Whether the input that each row's z makes is in the domain (n,)."""
        return (
            self.threat.domain.admits(z, self.x0)
            if self.threat.over_inputs
            else self.threat.contains(z, self.x0, self.eps)
        )


def _mean(answers: Tensor) -> Tensor:
    """The mean over draws of scores (D, n, K)."""
    return answers[0] if len(answers) == 1 else answers.mean(0)


def _spread(part: Tensor, rows: Tensor, fill: float) -> Tensor:
    """The values of some rows (a mask) in their places, the others filled."""
    whole = part.new_full((len(rows), *part.shape[1:]), fill)
    whole[rows] = part
    return whole
