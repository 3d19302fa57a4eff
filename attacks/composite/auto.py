"""The evaluation without parameters: attacks of different kinds in turn, each on what the last ones left."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Literal

from robustbench_lite.attacks.fixed_budget.apgd import APGD
from robustbench_lite.attacks.score_based.square import Square
from robustbench_lite.core.ledger import Ledger
from robustbench_lite.core.parameters import Amount, Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import AnyAttack, Composite


@dataclass(frozen=True)
class Auto(Composite):
    """Auto-PGD on cross-entropy, on the margin, towards the likeliest wrong classes one by one, then squares.

    After AutoAttack (Croce & Hein 2020, section 5) without its FAB: a short run on the margin goes first,
    because it breaks most of what can be broken at a tenth of the cost.

    Parameters
    ----------
    version : {"standard", "plus", "rand"}, default "standard"
        `standard`: as above; `plus`: five restarts of the untargeted parts; `rand`: what makes sense on a
        stochastic model, cross-entropy and DLR, to be run with `--eot 20`.
    steps : int, default 100
        Of each Auto-PGD.
    targets : int, default 9
        At most this many classes.
    queries : int, default 5000
        Of the square attack (linf and l2), at most: a fifth of them, and the next from another start as long
        as they break what nothing before has.

    Notes
    -----
    Records name the winner.

    Examples
    --------
    >>> Auto(version="fast")
    Traceback (most recent call last):
        ...
    robustbench_lite.core.errors.InvalidParameter: version = 'fast': must be one of standard, plus, rand
    """

    version: Literal["standard", "plus", "rand"] = "standard"
    steps: Count = 100
    targets: Amount = 9
    queries: Amount = 5000

    name = "auto"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})
    paper = "Croce & Hein 2020, arXiv:2003.01690"

    def course(self, problem: Problem) -> Generator[tuple[AnyAttack, Problem], Ledger, None]:
        if self.version == "rand":
            for loss in ("ce", "dlr"):
                yield APGD(self.steps, loss=loss), problem
            return
        restarts = 5 if self.version == "plus" else 1
        yield APGD(max(1, self.steps // 4), loss="margin"), problem
        yield APGD(self.steps, restarts), problem
        if self.version == "plus":
            yield APGD(self.steps, restarts, "dlr"), problem
        if problem.target is None and self.targets:
            left = problem[~problem.found]
            if len(left):
                likeliest = left.likeliest(left.scores(left.x0), self.targets)
                for target in likeliest.T:
                    yield APGD(self.steps, loss="dlr"), replace(left, target=target)
        elif self.version != "plus":
            yield APGD(self.steps, restarts, "dlr"), problem
        if self.queries and problem.threat.norm in Square.norms:
            for count in range(5):
                before = problem.found
                yield Square(max(1, self.queries // 5)), replace(problem, lane=problem.lane + (count << 20))
                if not bool((problem.found & ~before).any()):
                    break
