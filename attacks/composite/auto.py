"""The evaluation without parameters: the strongest attacks for a model and threat, one after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from robustbench_lite.attacks.decision_based.hopskipjump import HopSkipJump
from robustbench_lite.attacks.decision_based.pointwise import Pointwise
from robustbench_lite.attacks.decision_based.rays import RayS
from robustbench_lite.attacks.fixed_budget.apgd import APGD
from robustbench_lite.attacks.fixed_budget.pgd import PGD
from robustbench_lite.attacks.grid import Grid, dimensions
from robustbench_lite.attacks.minimum_norm.alma import ALMA
from robustbench_lite.attacks.minimum_norm.fab import FAB
from robustbench_lite.attacks.minimum_norm.fmn import FMN
from robustbench_lite.attacks.minimum_norm.superdeepfool import SuperDeepFool
from robustbench_lite.attacks.noise import Noise
from robustbench_lite.attacks.score_based.spsa import NES
from robustbench_lite.attacks.score_based.square import Square
from robustbench_lite.attacks.sparse.few_pixels import FewPixels
from robustbench_lite.attacks.sparse.pgd_l0 import PGDL0
from robustbench_lite.attacks.sparse.sigma_zero import SigmaZero
from robustbench_lite.attacks.sparse.sparse_rs import SparseRS
from robustbench_lite.attacks.structure.exact import Exact
from robustbench_lite.attacks.structure.leaf_tuple import LeafTuple
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.ledger import Ledger
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import Amount, Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.structure import Linear
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import AnyAttack, Composite, Schedule

NEAR = 1e-5  # of the bound, relative: an exact answer lies as far past the boundary as rounding asks for
CORNERS = 64  # of what a transformation may do, that are tried first
QUICK = 0.19  # of the queries: with the paths before them an eighth of AutoAttack's passes


@dataclass(frozen=True)
class Part:
    """An attack of the evaluation, run towards each of so many likely classes or from so many starts."""

    attack: AnyAttack
    targets: int = 0
    starts: int = 1


@dataclass(frozen=True)
class Auto(Composite):
    """The strongest there is for a model and threat, each attack on what the ones before have left.

    Exact where the model's structure allows it. Where gradients are to be had, at a fixed eps: short paths
    from diversified starts and random squares from the best point they met, together an eighth of
    AutoAttack's passes; then Auto-PGD on cross-entropy and towards the likeliest wrong classes one by one
    (after AutoAttack, Croce & Hein 2020, section 5, without its FAB), and more squares. For the smallest
    perturbation: SuperDeepFool, FAB, ALMA and FMN, in l0 sigma-zero in three settings. By decisions where the
    gradient is a surrogate's or there is none. Of a transformation: the corners of what it may do, gradients,
    and a grid where its parameters are few enough, random ones else.

    Parameters
    ----------
    version : {"quick", "standard", "plus", "rand"}, default "standard"
        `standard`: as above; `quick`: at a fixed eps the first eighth alone, which nearly always says the
        same, and by decisions a fifth of the queries; `plus`: five restarts of the untargeted parts; `rand`:
        what makes sense on a stochastic model, cross-entropy and DLR, to be run with `--eot 20`; taken by
        itself where the model says that it is one.
    steps : int, default 100
        Of Auto-PGD, half of it towards each class; three times as many of sigma-zero, twice of FMN.
    targets : int, default 9
        At most this many classes.
    queries : int, default 5000
        About, of the attacks by decisions; three fifths of it of the squares.

    Notes
    -----
    Records name the winner. Cost of a fixed eps by gradients: about 1,100 passes a robust sample (`quick`) or
    4,200 (`standard`), where AutoAttack takes 8,800. Cost of the smallest perturbation by gradients: at most
    about 2,000 passes.

    Examples
    --------
    >>> str(Auto(version="quick"))
    'auto:version=quick'
    """

    version: Literal["quick", "standard", "plus", "rand"] = "standard"
    steps: Count = 100
    targets: Amount = 9
    queries: Amount = 5000

    name = "auto"
    access = Access.DECISION
    threats = frozenset({"ball", "transform"})
    paper = "Croce & Hein 2020, arXiv:2003.01690"
    revision = 3
    minimum_norm = True
    uses_starts = True

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        refusal = super().refuses(model, threat, goal)
        if refusal is None and not self.parts(model, threat, goal):
            return f"auto has no attack for {model.name} under {threat} with the goal {goal}"
        return refusal

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        goals = Goal(), Goal(rejection=True)
        plans = [p.attack.schedule(model, threat) for g in goals for p in self.parts(model, threat, g)]
        lanes, points = ([getattr(plan, name) for plan in plans] for name in ("lanes", "points"))
        return Schedule(self.steps, max(lanes, default=1), points=max(points, default=1), passes=None)

    def parts(self, model: Model, threat: Threat, goal: Goal) -> list[Part]:
        """What is run, in this order.

        Parameters
        ----------
        model : Model
        threat : Threat
        goal : Goal

        Returns
        -------
        list of Part
        """
        if threat.kind == "transform":
            chosen = self._transformed(model, threat, goal)
        else:
            chosen = self._smallest(model, threat) if threat.minimum else self._within(model, threat, goal)
        solved = [Part(Exact()), Part(LeafTuple())]
        return [part for part in (*solved, *chosen) if part.attack.refuses(model, threat, goal) is None]

    def course(self, problem: Problem) -> Generator[tuple[AnyAttack, Problem], Ledger, None]:
        model, rows = problem.oracle.model, problem
        for part in self.parts(model, problem.threat, problem.goal):
            if isinstance(part.attack, Exact) and not _solved_at_once(problem):
                continue
            if part.targets:
                for target in rows.likeliest(rows.scores(rows.origin), part.targets).T:
                    yield part.attack, replace(rows, target=target)
            for start in range(0 if part.targets else part.starts):
                yield part.attack, replace(rows, lane=rows.lane + (start << 20))  # other random numbers
            # What is proven has met one part, which the proof has to stand.
            rows = problem[_open(problem)]
            closed_form = isinstance(part.attack, Exact) and isinstance(model.structure, Linear)
            if closed_form and problem.goal.stop and problem.threat.domain.whole:
                rows = rows[~rows.found & problem.threat.minimum]
            if not len(rows):
                return

    def _within(self, model: Model, threat: Threat, goal: Goal) -> Iterator[Part]:
        """For a fixed eps."""
        random = model.stochastic or self.version == "rand"
        if random:
            yield from (Part(APGD(self.steps, loss=loss)) for loss in ("ce", "dlr"))
        else:
            yield from self._quick(threat)
        if not random and self.version != "quick":
            restarts = 5 if self.version == "plus" else 1
            yield Part(APGD(self.steps, restarts))
            if self.version == "plus" or goal.targeted:
                yield Part(APGD(self.steps, restarts, "dlr"))
            if self.targets and not goal.targeted:
                yield Part(APGD(max(1, self.steps // 2), loss="dlr"), self.targets)
        yield Part(PGDL0(self.steps, restarts=5))
        if self.queries and not (random and self._by_gradients(model) and threat.norm is not Norm.L0):
            if self.version != "quick":
                yield Part(Square(max(1, 2 * self.queries // 5), begin="best"))
            queries = self._first_queries if self.version == "quick" else self.queries
            yield Part(FewPixels(max(1, queries // 200)))
            yield Part(SparseRS(max(1, queries // 5)), starts=3)
            yield from self._by_decisions(model, queries)

    def _quick(self, threat: Threat) -> Iterator[Part]:
        """What breaks most for an eighth of the cost: short paths from many starts, and squares from their
        best point, which go on where gradients mislead."""
        if threat.norm is Norm.L1:  # where steps of one size are weak
            yield Part(APGD(max(1, self.steps // 4), 4, loss="margin"))
        else:
            yield Part(PGD(max(5, self.steps // 10), 5, loss="margin", diversified=2))
        if self.queries:
            yield Part(Square(self._first_queries, begin="best"))

    def _transformed(self, model: Model, threat: Threat, goal: Goal) -> Iterator[Part]:
        """Of a transformation, whose landscape is rough: its corners break more than gradients do."""
        few = dimensions(model, threat)
        if 2**few <= CORNERS:
            yield Part(Grid(2))
        restarts = 5 if self.version in ("standard", "plus") else 2
        yield Part(PGD(max(5, self.steps // 10), 4 * restarts, loss="margin"))
        if self.version in ("standard", "plus"):
            targets = 0 if goal.targeted else self.targets
            yield Part(APGD(max(1, self.steps // 2), loss="dlr"), targets)
        if not self._by_gradients(model):
            yield Part(NES(max(1, self._first_queries // 32), pairs=16))
        queries = self._first_queries if self.version == "quick" else self.queries
        finest = int(max(1, queries) ** (1 / few) + 1e-9)
        yield Part(Grid(finest) if finest > 2 else Noise(queries))

    def _smallest(self, model: Model, threat: Threat) -> Iterator[Part]:
        """For the smallest perturbation."""
        if threat.norm is Norm.L0:
            # Each setting misses others: together half of what one leaves at three times its steps.
            yield Part(SigmaZero(3 * self.steps, step_size=2.0, adapt=0.03))
            yield Part(SigmaZero(3 * self.steps, adapt=0.06))
            yield Part(SigmaZero(3 * self.steps, sigma=0.01, adapt=0.03))
            yield Part(Pointwise(max(1, self.queries)))
            return
        if not model.stochastic:
            yield Part(SuperDeepFool(max(1, self.steps // 2), max(1, self.targets)))
            yield Part(FAB(max(1, 3 * self.steps // 10), self.targets))
            yield Part(ALMA(2 * self.steps))
        yield Part(FMN(2 * self.steps))
        if self.queries:
            yield from self._by_decisions(model, self.queries)

    @property
    def _first_queries(self) -> int:
        return max(1, round(QUICK * self.queries))

    def _by_decisions(self, model: Model, queries: int) -> Iterator[Part]:
        """Where gradients are not the model's own."""
        if self._by_gradients(model):
            return
        yield Part(RayS(queries))
        # HopSkipJump's steps of 100 first queries each cost about 67 · steps^1.5.
        yield Part(HopSkipJump(max(1, round((queries / 67) ** (2 / 3)))))
        yield Part(Pointwise(queries))

    def _by_gradients(self, model: Model) -> bool:
        """Whether gradients are the model's own."""
        return model.access >= Access.GRADIENT and model.gradient_is_truth


def _solved_at_once(problem: Problem) -> bool:
    """Whether the exact answer is a closed form, or what a certifier has met already."""
    return isinstance(problem.oracle.model.structure, Linear) or problem.nearest is not None


def _open(problem: Problem) -> Tensor:
    """Rows that are not settled, nor proven to have nothing nearer, or within eps (n,)."""
    nearest = torch.minimum(problem.best_distance, problem.eps)
    return ~problem.settled & (nearest > problem.lower_bound * (1 + NEAR))
