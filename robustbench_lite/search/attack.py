"""What an attack is: `start` and `step` over a whole batch, mathematics only; never a judge of itself."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal, Targets
from robustbench_lite.core.ledger import Ledger
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.parameters import check_fields
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import ALL_NORMS, Norm, Threat

Self = TypeVar("Self", bound="Iterate")


@dataclass(frozen=True, kw_only=True)
class Iterate:
    """Where an attack stands.

    Attacks whose steps carry more add fields to a subclass, every tensor with rows first: the driver drops
    rows that are done from all of them.

    Parameters
    ----------
    z : Tensor
        (n, …), of which the threat makes an input; for balls the input itself.
    done : Tensor of bool, optional
        (n,): rows that have nothing left to try, where an attack knows such a thing.

    Examples
    --------
    >>> import torch
    >>> Iterate(z=torch.zeros(3, 2))[torch.tensor([True, False, True])].z.shape
    torch.Size([2, 2])
    """

    z: Tensor
    done: Tensor | None = None

    def __getitem__(self: Self, rows: Tensor) -> Self:
        carried = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v[rows] for k, v in carried.items() if isinstance(v, Tensor)})


State = TypeVar("State", bound=Iterate)
EVERY_TASK = frozenset({"classification", "segmentation", "sequence", "multilabel"})


FEW = 3  # passes beside those of the steps: a first look, a second one by the true model, the last


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
    passes : int, optional
        Forward and backward passes that a row takes, at most; of those that bisect, about. Default 0: one
        more than `points` each step. None: nobody knows.
    """

    steps: int = 0
    restarts: int = 1
    targets: int = 0
    points: int = 1
    passes: int | None = 0

    @property
    def most_passes(self) -> int | None:
        """Forward and backward passes that a sample takes, at most; None: nobody knows."""
        if self.passes is None:
            return None
        return self.lanes * ((self.passes or (1 + self.points) * max(1, self.steps)) + FEW)

    @property
    def lanes(self) -> int:
        """How many rows stand for a sample."""
        return self.restarts * max(1, self.targets)


@dataclass(frozen=True)
class Attack(Generic[State]):
    """An attack's hyper-parameters in a frozen dataclass, with `start` and `step`; one-shot without `step`.

    Fields declare their ranges (`steps: Count = 40`), which are checked when the attack is made. An attack
    is mathematics over a whole batch and no judge of itself: what it asks of the problem is seen in passing,
    and the best point of each sample is kept.

    The order of calls is the driver's. First `refuses`; then `schedule`, which may be called several times.
    For each batch then `start` once, on a row for every sample and lane, and `step` at most
    `Schedule.steps` times, with `problem.step` counting from 1. It ends early when no row is left, or at the
    time limit. Before a step, rows that are settled, `done` or out of budget are dropped from problem and
    state alike, once they are enough to be worth it; until then they idle along (`problem.idle`). So an
    attack counts on no number or order of rows from one step to the next, and what it carries lies in its
    `Iterate`, not in itself. Last, where the rows came to stand is scored.

    Mutable is only the ledger behind the problem, through what is asked; the attack, problems and states are
    frozen, and every step returns a new state. Random numbers come from `problem.random`.

    What fails: a point outside the threat is answered but never kept, so project first. Beyond the budget
    gradients are 0 and scores NaN. What an attack raises ends the search.

    Attributes
    ----------
    name : str
        As in the registry.
    access : Access, default Access.GRADIENT
        What it needs of a model.
    norms : frozenset of Norm, default all
        The balls it works in.
    threats : frozenset of str, default {"ball"}
        The kinds of threat it works in.
    paper : str
        Its source.
    revision : int, default 1
        Raised when its results change, so that resumed runs do not mix.
    minimum_norm : bool, default False
        Whether it can seek the smallest perturbation (a threat without eps).
    fixed_budget : bool, default True
        Whether it can attack a given eps.
    every_sample : bool, default False
        Whether samples that the model gets wrong by itself are attacked too.
    uses_starts : bool, default False
        Whether it asks for samples of the training split to begin at.
    passes_refusals : bool, default True
        Whether it goes on where a model that may refuse to answer does so.
    seeks_confidence : bool, default True
        Whether it goes on past the boundary where a goal asks for confidence.
    control : bool, default False
        Whether it seeks nothing, and stands beside attacks to be beaten by them.
    batch_draws : bool, default False
        Whether what is drawn for a sample depends on its batch, as in code of others.
    any_access : bool, default False
        Whether it uses whatever a model has, up to gradients, and needs none of it.
    tasks : frozenset of str, default {"classification"}
        The kinds of task whose models it attacks.

    Raises
    ------
    InvalidParameter
        For a field outside its range.

    Examples
    --------
    >>> import robustbench_lite as rb
    >>> from robustbench_lite.core.losses import cross_entropy
    >>> @dataclass(frozen=True)
    ... class OneStep(Attack[Iterate]):
    ...     name = "one_step"
    ...
    ...     def start(self, problem):
    ...         gradient = problem.evaluate(problem.origin, cross_entropy).gradient
    ...         step = problem.size() * problem.threat.steepest(gradient)
    ...         return Iterate(z=problem.project(problem.origin + step))
    >>> digits = rb.load_data("digits", samples=5)
    >>> rb.attack("linear", digits.x, digits.y, OneStep(), "linf:0.2").success.shape
    torch.Size([5])
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
    uses_starts: ClassVar[bool] = False
    passes_refusals: ClassVar[bool] = True
    seeks_confidence: ClassVar[bool] = True
    control: ClassVar[bool] = False
    batch_draws: ClassVar[bool] = False
    any_access: ClassVar[bool] = False
    tasks: ClassVar[frozenset[str]] = frozenset({"classification"})

    def __post_init__(self) -> None:
        check_fields(self)

    def __str__(self) -> str:
        return as_text(self)

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        """How many steps, restarts, targets and points this attack takes on a model under a threat.

        The default reads the fields `steps`, `restarts` and `targets` where there are such.

        Parameters
        ----------
        model : Model
        threat : Threat

        Returns
        -------
        Schedule
        """
        numbers = {
            name: int(getattr(self, name)) for name in ("steps", "restarts", "targets") if hasattr(self, name)
        }
        return Schedule(**numbers)

    def face(self, model: Model) -> Model:
        """What this attack knows of a model and searches on; by default the model. The judge asks the model.

        Parameters
        ----------
        model : Model

        Returns
        -------
        Model
            With the same inputs and classes.
        """
        return model

    @abstractmethod
    def start(self, problem: Problem) -> State:
        """The first iterate; a point that has not been evaluated will be scored by the driver.

        Parameters
        ----------
        problem : Problem
            n rows, one a sample and lane.

        Returns
        -------
        Iterate
            Its z (n, …).
        """

    def step(self, problem: Problem, state: State) -> State:
        """The next iterate.

        Parameters
        ----------
        problem : Problem
            The n rows that are left.
        state : Iterate
            What `start` or the step before returned, of these rows.

        Returns
        -------
        Iterate
            Its z (n, …).

        Raises
        ------
        NotImplementedError
            Where a schedule has steps and the attack takes none.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no steps")

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        """Why this attack cannot meet this model, threat and goal; None when it can.

        The default compares what the class says of itself: access, kinds of threat, norms, fixed or smallest
        eps; and asks the threat whether it can change such inputs.

        Parameters
        ----------
        model : Model
        threat : Threat
        goal : Goal

        Returns
        -------
        str or None
            One line; the driver raises `Unsupported` with it.
        """
        if model.access < self.access:
            has, needs = model.access.name.lower(), self.access.name.lower()
            why = f" ({model.limits})" if model.limits else ""
            return f"{self.name} needs {needs} access; {model.name} allows {has}{why}"
        if model.task.kind not in self.tasks:
            wanted = " and ".join(sorted(self.tasks))
            return f"{self.name} attacks {wanted}; {model.name} is for {model.task.kind}"
        if getattr(self, "targets", 0) and model.task.kind != "classification":
            return f"{self.name}: targets: {model.name}, for {model.task.kind}, has no class to lead to"
        if threat.kind not in self.threats:
            wanted = " or ".join(sorted(self.threats))
            return f"{self.name} works under threats of kind {wanted}; not under {threat}"
        if threat.moves and model.task.kind == "segmentation":
            return f"{threat} moves pixels, and the labels of {model.name}'s pixels stay where they are"
        if refusal := threat.refuses(model.input_shape):
            return refusal
        if meaningless := unreachable(goal, model):
            return meaningless
        if not self.passes_refusals and model.task.reject is not None and not goal.rejection:
            return f"{self.name} would stop where {model.name} refuses to answer; fmn or cw go on"
        if goal.own and threat.kind != "box":
            return (
                f"goal {goal}: being sure of its own class breaks nothing under {threat}; the threat is box"
            )
        if goal.confidence and not self.seeks_confidence:
            return f"{self.name} ends at the boundary, and the goal {goal} asks for more; fmn or cw go on"
        if threat.norm is not None and threat.norm not in self.norms:
            return f"{self.name} works in {', '.join(sorted(self.norms))}; not in {threat.norm}"
        if threat.minimum and not self.minimum_norm:
            return f"{self.name} needs a fixed eps, such as {threat.norm}:0.1; not {threat}"
        if threat.eps is not None and not self.fixed_budget:
            return f"{self.name} seeks the smallest perturbation, such as l2:min; not {threat}"
        return None


AnyAttack = Attack[Any]  # whatever it carries from step to step


class Composite(Attack[Iterate]):
    """An attack made of attacks: it implements `course`; `start` is never called.

    The driver runs each attack that `course` yields to its end, as it would alone, on those of the rows that
    are not settled. All share one ledger, so a later one is spared what an earlier one has broken. A
    composite may yield composites.
    """

    any_access = True

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return replace(super().schedule(model, threat), passes=None)

    @abstractmethod
    def course(self, problem: Problem) -> Generator[tuple[AnyAttack, Problem], Ledger, None]:
        """The attacks to run, each on some of the problem's rows or all of them.

        Parameters
        ----------
        problem : Problem
            The rows of a batch.

        Yields
        ------
        tuple of Attack and Problem
            What to run next, and on which rows; the generator is sent the ledger afterwards.
        """

    def start(self, problem: Problem) -> Iterate:
        raise NotImplementedError("the driver runs a composite's course")


class Fitted(Attack[Iterate]):
    """An attack learnt on one set of samples and applied to others, such as a universal perturbation.

    It implements `fit` and `apply`; `start` is never called. `fit` is called first, once, on all of the
    fitting samples; `apply` then for each batch of those attacked, with what `fit` returned. By default
    samples that the model gets wrong by itself are attacked too.
    """

    every_sample = True

    def learns_from(self) -> int | None:
        """How many samples of the training split it learns from, at most; None: all there are.

        Returns
        -------
        int or None
        """
        return None

    @abstractmethod
    def fit(self, problem: Problem) -> Mapping[str, Tensor]:
        """What is learnt from the problem's rows, all of the fitting samples at once.

        Gradients are as they are, zero where they are zero. Beyond its budget a sample's gradients are zero
        and its scores NaN.

        Parameters
        ----------
        problem : Problem
            n rows.

        Returns
        -------
        mapping of str to Tensor
            The artifact that `apply` is given; an entry `queries` counts as that many forward passes more.
        """

    @abstractmethod
    def apply(self, problem: Problem, artifact: Mapping[str, Tensor]) -> Tensor:
        """The point each row becomes; the driver projects it.

        Parameters
        ----------
        problem : Problem
            n rows.
        artifact : mapping of str to Tensor
            What `fit` returned.

        Returns
        -------
        Tensor
            (n, …), as z.
        """

    def start(self, problem: Problem) -> Iterate:
        raise NotImplementedError("the driver fits this attack before it is applied")


def unreachable(goal: Goal, model: Model) -> str | None:
    """Why a goal means nothing to a model, whatever attacks it; None where it means something."""
    if misfit := goal.misfit(model.num_classes, model.task):
        return misfit
    if goal.targets is Targets.CLASS and goal.label == model.task.reject:
        return f"goal {goal}: class {goal.label} of {model.name} means that it refuses to answer"
    if goal.confidence and model.confidence(torch.zeros(1, model.num_classes)) is None:
        return f"{model.name}'s scores have no scale, so that the goal {goal} means nothing to it"
    return None


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
