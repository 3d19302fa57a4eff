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

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.guard import foreign, one_line
from robustbench_lite.core.model import Access, Model, reference_precision
from robustbench_lite.core.names import parse_name
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import Attack, Iterate

ROUNDING = 1e-4  # relative: how far outside the ball a point may lie to be drawn in; farther ones are judged


class Lent(nn.Module):
    """A model as code of others calls it: inputs in the box to scores, each row that passes counted.

    A model without gradients gives scores that have none. One that draws answers each call afresh.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.model, self.seed = problem.oracle.model, problem.seed
        self.where = nn.Parameter(torch.empty(0, device=problem.x0.device), requires_grad=False)  # its device
        self.calls = self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.forwards += len(x)
        model = self.model
        if model.stochastic:
            rows = torch.arange(len(x), device=x.device)
            model = model.draw(Stream.of(self.seed, rows).fold("lent").fold(self.calls))
        with reference_precision():
            if not (x.requires_grad and torch.is_grad_enabled() and model.access >= Access.GRADIENT):
                return model.scores(x.detach())
            scores = model.gradient_scores(x)
        if scores.requires_grad:
            scores.register_hook(self._count)  # type: ignore[no-untyped-call]
        return scores

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


@dataclass(frozen=True)
class Peer(Attack[Iterate]):
    """An attack of another library; where it ends is looked at, and what it does on the way is not.

    Its passes are counted by the model it is lent and shared out evenly among the samples of a batch. Points
    outside the ball by rounding are drawn in. Random numbers are those of torch and numpy, seeded: the result
    depends on the batch, which its records say.

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
        return super().refuses(model, threat, goal)

    def start(self, problem: Problem) -> Iterate:
        if problem.ledger.budget is not None:
            raise Unsupported(f"{self.name} keeps no budget; its own options say how much it does")
        lent = Lent(problem).eval()
        with foreign(self.name, self.called), _seeded(problem.seed), torch.enable_grad():
            found = self.search(lent, problem)
        z = found.detach().to(problem.x0)
        each, rest = divmod(lent.forwards, len(problem)), divmod(lent.backwards, len(problem))
        problem.ledger.charge(problem.row, each[0], rest[0], None)
        problem.ledger.charge(problem.row[: each[1]], 1, 0, None)
        problem.ledger.charge(problem.row[: rest[1]], 0, 1, None)
        distance = problem.threat.distance(z, problem.x0)
        near = (distance > problem.eps) & (distance <= problem.eps * (1 + ROUNDING))
        return Iterate(z=torch.where(per_row(near, z), problem.project(z), z))

    @abstractmethod
    def known(self) -> Mapping[str, object]:
        """Attacks of theirs by name; the package is there."""

    @abstractmethod
    def search(self, lent: Lent, problem: Problem) -> Tensor:
        """The points (n, …) that theirs ends at.

        Parameters
        ----------
        lent : Lent
            The model.
        problem : Problem
            Its x0 (n, …), y (n,), target (n,) or None, and threat.
        """


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
