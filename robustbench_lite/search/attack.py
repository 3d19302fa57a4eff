"""What an attack is: `start` and `step` over a whole batch, mathematics only; never a judge of itself."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from robustbench_lite.core.ledger import Ledger
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import check_fields
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import ALL_NORMS, Norm, Threat

Self = TypeVar("Self", bound="Iterate")


@dataclass(frozen=True, kw_only=True)
class Iterate:
    """Where an attack stands: z (n, …), of which the threat makes an input; for balls the input itself.

    Attacks add what else they carry, every tensor with rows first. done (n,): rows that have nothing left to
    try, where an attack knows such a thing.
    """

    z: Tensor
    done: Tensor | None = None

    def __getitem__(self: Self, rows: Tensor) -> Self:
        carried = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v[rows] for k, v in carried.items() if isinstance(v, Tensor)})


State = TypeVar("State", bound=Iterate)


@dataclass(frozen=True)
class Schedule:
    """What the driver plans with.

    Parameters
    ----------
    steps : int, default 0
        How many follow the start, at most.
    restarts : int, default 1
        Independent starts that run side by side.
    targets : int, default 0
        Of the likeliest wrong classes, how many an untargeted goal is sought through, side by side; 0: the
        goal as it is.
    points : int, default 1
        Points that a row asks for at once, at most.
    """

    steps: int = 0
    restarts: int = 1
    targets: int = 0
    points: int = 1

    @property
    def lanes(self) -> int:
        """How many rows stand for a sample."""
        return self.restarts * max(1, self.targets)


@dataclass(frozen=True)
class Attack(Generic[State]):
    """An attack's hyper-parameters in a frozen dataclass, with `start` and `step`; one-shot without `step`.

    Fields declare their ranges (`steps: Count = 40`), which are checked when the attack is made. Facts of the
    class: name, as in the registry; access, what it needs of a model; norms and threats, the balls and the
    kinds of threat it works in; paper, its source; revision, raised when its results change, so that resumed
    runs do not mix. minimum_norm: whether it can seek the smallest perturbation (a threat without eps);
    fixed_budget: whether it can attack a given eps. every_sample: whether samples that the model gets wrong
    by itself are attacked too.

    Examples
    --------
    >>> from robustbench_lite.attacks.named import get_attack
    >>> get_attack("pgd:steps=10").steps
    10
    """

    name: ClassVar[str]
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[frozenset[Norm]] = ALL_NORMS
    threats: ClassVar[frozenset[str]] = frozenset({"ball"})
    paper: ClassVar[str] = ""
    revision: ClassVar[int] = 1
    minimum_norm: ClassVar[bool] = False
    fixed_budget: ClassVar[bool] = True
    every_sample: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)

    def __str__(self) -> str:
        return as_text(self)

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        """How many steps, restarts, targets and points this attack takes on a model under a threat.

        The default reads the fields `steps`, `restarts` and `targets` where there are such.
        """
        numbers = {
            name: int(getattr(self, name)) for name in ("steps", "restarts", "targets") if hasattr(self, name)
        }
        return Schedule(**numbers)

    @abstractmethod
    def start(self, problem: Problem) -> State:
        """The first iterate; a point that has not been evaluated will be scored by the driver."""

    def step(self, problem: Problem, state: State) -> State:
        """The next iterate."""
        raise NotImplementedError(f"{type(self).__name__} takes no steps")

    def refuses(self, model: Model, threat: Threat) -> str | None:
        """Why this attack cannot meet this model and threat, in one line; None when it can."""
        if model.access < self.access:
            has, needs = model.access.name.lower(), self.access.name.lower()
            return f"{self.name} needs {needs} access; {model.name} allows {has}"
        if threat.kind not in self.threats:
            wanted = " or ".join(sorted(self.threats))
            return f"{self.name} works under threats of kind {wanted}; not under {threat}"
        if threat.norm is not None and threat.norm not in self.norms:
            return f"{self.name} works in {', '.join(sorted(self.norms))}; not in {threat.norm}"
        if threat.minimum and not self.minimum_norm:
            return f"{self.name} needs a fixed eps, such as {threat.norm}:0.1; not {threat}"
        if threat.eps is not None and not self.fixed_budget:
            return f"{self.name} seeks the smallest perturbation, such as l2:min; not {threat}"
        return None


AnyAttack = Attack[Any]  # whatever it carries from step to step


class Composite(Attack[Iterate]):
    """An attack made of attacks: `course` yields (attack, problem) and is sent the ledger after each."""

    @abstractmethod
    def course(self, problem: Problem) -> Generator[tuple[AnyAttack, Problem], Ledger, None]:
        """The attacks to run, each on some of the problem's rows or all of them."""

    def start(self, problem: Problem) -> Iterate:
        raise NotImplementedError("the driver runs a composite's course")


class Fitted(Attack[Iterate]):
    """An attack learnt on one set of samples and applied to others, such as a universal perturbation."""

    every_sample = True

    @abstractmethod
    def fit(self, problem: Problem) -> Mapping[str, Tensor]:
        """What is learnt from the problem's rows, all of the fitting samples at once."""

    @abstractmethod
    def apply(self, problem: Problem, artifact: Mapping[str, Tensor]) -> Tensor:
        """The point each row becomes (n, …); the driver projects it."""

    def start(self, problem: Problem) -> Iterate:
        raise NotImplementedError("the driver fits this attack before it is applied")


def parameters(attack: AnyAttack) -> dict[str, object]:
    """An attack's fields and their values."""
    return {f.name: getattr(attack, f.name) for f in fields(attack)}


def defaults(attack: type[AnyAttack]) -> dict[str, object]:
    """An attack's fields and their defaults."""
    return {f.name: None if f.default is MISSING else f.default for f in fields(attack)}


def as_text(attack: AnyAttack) -> str:
    """The attack in the grammar of names: `iterative:steps=10`, what is left at its default left out.

    A wrapper's inner attack, its field `attack`, stands in brackets: `curve(apgd:steps=20,rounds=5)`.
    """
    usual = defaults(type(attack))
    held = parameters(attack)
    inner = held.pop("attack", None)
    changed = [f"{k}={v}" for k, v in held.items() if v != usual[k]]
    if inner is None:
        return f"{attack.name}:{','.join(changed)}" if changed else attack.name
    return f"{attack.name}({','.join([str(inner), *changed])})"


def parameters_json(attack: AnyAttack) -> str:
    """Every parameter as it was used, for the records."""
    return json.dumps(parameters(attack), default=str, sort_keys=True)
