"""The smallest eps at which a fixed-budget attack succeeds, sample by sample."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import torch

from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.ledger import Ledger
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import AnyAttack, Composite
from robustbench_lite.threats.ball import Lp


@dataclass(frozen=True)
class Curve(Composite):
    """Bisection over eps, for the whole batch at once: what a robustness curve is drawn from.

    Each round runs the attack at every sample's own eps. What is found nearer than asked counts, and the
    nearest point of all rounds is kept.

    Parameters
    ----------
    attack : str, default "apgd:steps=20"
        A fixed-budget one, as in `curve(apgd:steps=20,rounds=5)`.
    rounds : int, default 10
        Of bisection, after one with the whole box.

    Notes
    -----
    Cost: at most (rounds + 1) times the attack's.

    Examples
    --------
    >>> Curve("pgd:steps=3").inner.steps
    3
    """

    attack: str = "apgd:steps=20"
    rounds: Count = 10

    name = "curve"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    minimum_norm = True
    fixed_budget = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.inner.fixed_budget or isinstance(self.inner, Curve):
            raise InvalidParameter("attack", self.attack, "an attack of a fixed eps, such as apgd or pgd")

    @property
    def inner(self) -> AnyAttack:
        """The attack that every round runs."""
        return get_attack(self.attack)

    def face(self, model: Model) -> Model:
        return self.inner.face(model)

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if threat.kind != "ball" or not threat.minimum or threat.norm not in self.norms:
            return super().refuses(model, threat, goal)
        return self.inner.refuses(model, Lp(threat.norm, 1.0, threat.domain), goal)

    def course(self, problem: Problem) -> Generator[tuple[AnyAttack, Problem], Ledger, None]:
        low, high = problem.threat.domain.bounds(problem.x0)
        corner = torch.where(problem.x0 - low > high - problem.x0, low, high)
        largest = problem.threat.distance(corner, problem.x0)
        fails = torch.zeros_like(problem.eps)
        eps = largest
        for count in range(self.rounds + 1):
            lane = problem.lane + (count << 20)  # other random numbers in every round
            ledger = yield self.inner, replace(problem, eps=eps, lane=lane)
            reached = ledger.best_distance[problem.row]
            fails = torch.where(reached <= eps, fails, eps)
            fails = torch.where(reached <= fails, 0.0, fails)  # found nearer than where it failed once
            # What no eps has broken is tried with the whole box again, from the next random start.
            eps = torch.where(reached < torch.inf, (fails + reached) / 2, largest)
