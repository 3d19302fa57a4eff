"""An attack of another library on the rows of a problem, and the model that it is lent."""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib.util
import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lite.core.errors import InvalidModel, RobustError, Unsupported
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.guard import foreign, one_line
from robustbench_lite.core.model import Access, Model, reference_precision
from robustbench_lite.core.names import parse_name
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

ROUNDING = 1e-4  # relative: how far outside the ball a point may lie to be drawn in; farther ones are judged


class Shown(nn.Module):
    """A model as code of others calls it: inputs in [0, 1] to scores, with gradients where it has such.

    Parameters
    ----------
    model : Model
    low, high : float
        The box that the model's own inputs lie in.
    """

    def __init__(self, model: Model, low: float = 0.0, high: float = 1.0) -> None:
        super().__init__()
        self.model, self.low, self.high = model, low, high
        where = torch.empty(0, device=model.device)
        self.where = nn.Parameter(where, requires_grad=False)  # tells its device
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        model = self.model
        self.calls += 1
        if model.stochastic:  # each call is answered afresh
            rows = torch.arange(len(x), device=x.device)
            model = model.draw(Stream.of(0, rows).fold("shown").fold(self.calls))
        inputs = self.low + (self.high - self.low) * x
        with reference_precision():
            if x.requires_grad and torch.is_grad_enabled() and model.access >= Access.GRADIENT:
                return model.gradient_scores(inputs)
            return model.scores(inputs.detach())


class Lent(Shown):
    """The same, with each row that passes counted."""

    forwards = backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        scores = super().forward(x)
        if scores.requires_grad:
            scores.register_hook(self._count)  # type: ignore[no-untyped-call]
        return scores

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


@dataclass(frozen=True)
class Rows:
    """What theirs is given.

    x (n, …) in [0, 1]; y (n,) classes; target (n,) or None; norm, and eps of x, None for the smallest change;
    num_classes.
    """

    x: Tensor
    y: Tensor
    target: Tensor | None
    norm: Norm | None
    eps: float | None
    num_classes: int

    @property
    def wanted(self) -> Tensor:
        """The classes to reach, or else to leave (n,)."""
        return self.y if self.target is None else self.target


@dataclass(frozen=True)
class Peer(Attack[Iterate]):
    """An attack of another library; where it ends is looked at, and what it does on the way is not.

    Its passes are counted by the model it is lent and shared out evenly among the samples of a batch. Points
    outside the ball by rounding are drawn in; those farther out go to the judge as they are, which counts
    them as not admissible: that an attack is of another norm makes no model robust. Random numbers are those
    of torch and numpy, seeded: the result depends on the batch, which its records say.

    Parameters
    ----------
    attack : str
        A class or function of theirs and its options, as in `LinfPGD:steps=40`; the threat's eps is handed
        on where nothing else is said.

    Raises
    ------
    InvalidParameter
        Where the text is no name.
    """

    attack: str

    access = Access.DECISION  # what theirs needs, it finds out
    minimum_norm = True
    batch_draws = True
    any_access = True
    package: ClassVar[str]
    install: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_name(self.attack)

    @property
    def called(self) -> str:
        """What theirs is called."""
        return parse_name(self.attack).head

    @property
    def options(self) -> dict[str, object]:
        """What was said of it, as numbers, truths and texts."""
        return {key: _value(text) for key, text in parse_name(self.attack).parameters.items()}

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if importlib.util.find_spec(self.package) is None:
            return f"{self.name} is not installed: pip install {self.install}"
        try:
            known = self.known()
        except Exception as error:  # importing runs code of theirs
            return f"{self.name} cannot be imported: {one_line(error)}"
        if self.called not in known:
            near = difflib.get_close_matches(self.called, known, 3, 0.3)
            return f"{self.name} has no attack {self.called!r}; near: {', '.join(near) or ', '.join(known)}"
        domain = threat.domain
        if any(torch.unique(torch.as_tensor(side)).numel() > 1 for side in (domain.low, domain.high)):
            return f"{self.name} knows one box for all features; {model.name}'s have several"
        return super().refuses(model, threat, goal)

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(passes=None)

    def start(self, problem: Problem) -> Iterate:
        if problem.ledger.budget is not None:
            raise Unsupported(f"{self.name} keeps no budget; its own options say how much it does")
        low, high = _box(problem.threat)
        wide, threat = high - low, problem.threat
        eps = threat.eps if threat.eps is None or threat.norm is Norm.L0 else threat.eps / wide
        rows = Rows(
            (problem.x0 - low) / wide, problem.y, problem.target, threat.norm, eps,
            problem.oracle.model.num_classes,
        )  # fmt: skip
        lent = Lent(problem.oracle.model, low, high).eval()
        try:
            with foreign(self.name, self.called), _seeded(problem.seed), torch.enable_grad():
                found = self.search(lent, rows)
        except InvalidModel as error:  # it is no fault of the model
            raise RobustError(str(error)) from error
        z = low + wide * found.detach().to(problem.x0)
        self._charge(problem, lent)
        distance = threat.distance(z, problem.x0)
        outside = distance > problem.eps * (1 + ROUNDING)
        problem.hand_in(z, outside)
        near = (distance > problem.eps) & ~outside
        return Iterate(z=torch.where(per_row(near, z), problem.project(z), z))

    def _charge(self, problem: Problem, lent: Lent) -> None:
        """Share the passes out evenly, so that their sum stays what it is."""
        for passes, kind in ((lent.forwards, (1, 0)), (lent.backwards, (0, 1))):
            each, rest = divmod(passes, len(problem))
            problem.ledger.charge(problem.row, each * kind[0], each * kind[1], None)
            problem.ledger.charge(problem.row[:rest], *kind, None)

    @abstractmethod
    def known(self) -> Mapping[str, object]:
        """Attacks of theirs by name; the package is there."""

    @abstractmethod
    def search(self, lent: Lent, rows: Rows) -> Tensor:
        """The points (n, …) in [0, 1] that theirs ends at.

        Parameters
        ----------
        lent : Lent
            The model.
        rows : Rows
            What to attack, and how.
        """


def _box(threat: Threat) -> tuple[float, float]:
    """The box that all features share."""
    low, high = torch.as_tensor(threat.domain.low), torch.as_tensor(threat.domain.high)
    return float(low.min()), float(high.max())


def _value(text: str) -> object:
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed what theirs draws from, and leave all of it as it was."""
    of_numpy, of_python = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
    finally:
        np.random.set_state(of_numpy)
        random.setstate(of_python)
