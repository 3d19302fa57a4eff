"""An attack that knows nothing of a defense: how defenses were first claimed to hold."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.ledger import Ledger
from robustbench_lite.core.model import Model
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import AnyAttack, Composite, Fitted, Schedule


@dataclass(frozen=True)
class Oblivious(Composite):
    """Another attack on the model behind the defense, with gradients as they come; the defense judges.

    What stands before the model (a transformation, a detector) is not seen, and no remedy is used for losses
    or gradients that die. Beside an attack that knows the defense this shows how much of its robustness is
    apparent only. On a model without a defense before it, the same attack without those remedies.

    Parameters
    ----------
    attack : str, default "pgd"
        Any but one that learns from a training split, as in `oblivious(pgd:steps=100)`.

    Notes
    -----
    An attack that stops at its first success stops right behind the undefended boundary, where the slightest
    transformation undoes it; the goal `untargeted,stop=never` goes on.

    Source: Athalye et al. 2018 (arXiv:1802.00420); Carlini & Wagner 2017 (arXiv:1705.07263), section 2.

    Examples
    --------
    >>> Oblivious("pgd:steps=3").inner.steps
    3
    """

    attack: str = "pgd"

    name = "oblivious"
    norms = frozenset({Norm.L1, Norm.L2, Norm.LINF})  # of the default; each attack refuses for itself
    paper = "Athalye et al. 2018, arXiv:1802.00420"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.inner, Oblivious | Fitted):
            raise InvalidParameter("attack", self.attack, "an attack that learns nothing beforehand")

    @property
    def inner(self) -> AnyAttack:
        """The attack that is carried out."""
        return get_attack(self.attack)

    def face(self, model: Model) -> Model:
        return model.undefended

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return self.inner.schedule(model.undefended, threat)

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        return self.inner.refuses(model.undefended, threat, goal)

    def course(self, problem: Problem) -> Generator[tuple[AnyAttack, Problem], Ledger, None]:
        yield self.inner, replace(problem, explore=False)
