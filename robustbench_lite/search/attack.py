"""What an attack is: `start` and `step` over a whole batch, mathematics only; never a judge of itself."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import ClassVar, TypeVar

from torch import Tensor

from robustbench_lite.core.ledger import Ledger
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import ALL_NORMS, Norm, Threat
from robustbench_lite.threats.ball import Lp

Self = TypeVar("Self", bound="Iterate")


@dataclass(frozen=True, kw_only=True)
class Iterate:
    """Where an attack stands: x (n, …); attacks add what else they carry, every tensor with rows first.

    done (n,): rows that have nothing left to try, where an attack knows such a thing.
    """

    x: Tensor
    done: Tensor | None = None

    def __getitem__(self: Self, rows: Tensor) -> Self:
        carried = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v[rows] for k, v in carried.items() if isinstance(v, Tensor)})


@dataclass(frozen=True)
class Attack:
    """An attack's hyper-parameters, in a frozen dataclass, with `start` and `step`; one-shot without `step`.

    name: as in the registry; access: what it needs of a model; norms: the balls it works in; paper: its
    source; revision: raised when its results change, so that resumed runs do not mix. minimal: whether it can
    seek the smallest perturbation (a threat without eps); fixed: whether it can attack a given eps. exact:
    whether no smaller perturbation exists than the one it finds. every_sample: whether samples that the model
    gets wrong by itself are attacked too. Fields `steps` and `restarts` tell the driver what they say.
    """

    name: ClassVar[str]
    access: ClassVar[Access] = Access.GRADIENT
    norms: ClassVar[frozenset[Norm]] = ALL_NORMS
    paper: ClassVar[str] = ""
    revision: ClassVar[int] = 1
    minimal: ClassVar[bool] = False
    fixed: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    every_sample: ClassVar[bool] = False

    @property
    def iterations(self) -> int:
        """How many steps follow the start."""
        return int(getattr(self, "steps", 0))

    @property
    def lanes(self) -> int:
        """How many independent starts run side by side."""
        return int(getattr(self, "restarts", 1))

    @property
    def points(self) -> int:
        """How many points a row asks for at once, at most."""
        return 1

    def length(self, problem: Problem) -> int:
        """How many steps these rows take, where their shape decides it."""
        return self.iterations

    @property
    def aims(self) -> int:
        """How many classes an untargeted goal is sought through, side by side; 0: the goal as it is."""
        return 0

    @abstractmethod
    def start(self, problem: Problem) -> Iterate:
        """The first iterate; a point that has not been evaluated will be scored by the driver."""

    def step(self, problem: Problem, state: Iterate) -> Iterate:
        """The next iterate."""
        raise NotImplementedError(f"{type(self).__name__} takes no steps")

    def refuses(self, model: Model, threat: Threat) -> str | None:
        """Why this attack cannot meet this model and threat; None when it can."""
        if model.access < self.access:
            has, needs = model.access.name.lower(), self.access.name.lower()
            return f"{self.name} needs {needs} access; {model.name} allows {has}"
        if isinstance(threat, Lp) and threat.norm not in self.norms:
            return f"{self.name} works in {', '.join(sorted(self.norms))}; not in {threat.norm}"
        if isinstance(threat, Lp) and threat.eps is None and not self.minimal:
            return f"{self.name} needs a fixed eps, such as {threat.norm}:0.1; not {threat}"
        if threat.eps is not None and not self.fixed:
            return f"{self.name} seeks the smallest perturbation, such as l2:min; not {threat}"
        return None


class Composite(Attack):
    """An attack made of attacks: `course` yields (attack, problem) and is sent the ledger after each."""

    @abstractmethod
    def course(self, problem: Problem) -> Generator[tuple[Attack, Problem], Ledger, None]:
        """The attacks to run, each on some of the problem's rows or all of them."""

    def start(self, problem: Problem) -> Iterate:
        raise NotImplementedError("the driver runs a composite's course")


class Fitted(Attack):
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


def parameters(attack: Attack) -> dict[str, object]:
    """An attack's fields and their values."""
    return {f.name: getattr(attack, f.name) for f in fields(attack)}


def defaults(attack: type[Attack]) -> dict[str, object]:
    """An attack's fields and their defaults."""
    return {f.name: None if f.default is MISSING else f.default for f in fields(attack)}


def as_text(attack: Attack) -> str:
    """The attack in the grammar of names: `iterative:steps=10`, what is left at its default left out."""
    usual = defaults(type(attack))
    changed = {k: v for k, v in parameters(attack).items() if v != usual[k]}
    text = ",".join(f"{k}={v}" for k, v in changed.items())
    return f"{attack.name}:{text}" if text else attack.name


def parameters_json(attack: Attack) -> str:
    """Every parameter as it was used, for the records."""
    return json.dumps(parameters(attack), default=str, sort_keys=True)
