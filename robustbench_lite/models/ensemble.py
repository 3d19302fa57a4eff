"""Several models as one: the mean of their probabilities, or of their votes where they have none."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.random import Stream

LEAST = -1e4  # the logarithm of a share of nothing


class Ensemble(Model):
    """Several models as one: log of the mean share that the members give each class.

    A member whose scores have a scale gives its softmax, any other one vote. Gradients are of the mean of
    softmaxes of the members' own gradient faces; members without one count in the truth alone, so with none
    that has a gradient only scores can be asked for.

    Parameters
    ----------
    members : sequence of Model
        At least one.
    name : str, optional
        What reports call it; by default `ensemble(…)` of the members' names.

    Raises
    ------
    InvalidModel
        Where there are no members, or they do not agree on inputs and classes.

    Examples
    --------
    >>> from robustbench_lite.models.load import load_model
    >>> linear = load_model("linear")
    >>> Ensemble([linear, linear]).name
    'ensemble(linear,linear)'
    """

    family = "ensemble"

    def __init__(self, members: Sequence[Model], name: str = "") -> None:
        if not members:
            raise InvalidModel("an ensemble needs members")
        first = members[0]
        for member in members:
            if (member.input_shape, member.num_classes) != (first.input_shape, first.num_classes):
                raise InvalidModel(
                    f"{member.name} takes {member.input_shape} and knows {member.num_classes} classes; "
                    f"{first.name} {first.input_shape} and {first.num_classes}"
                )
        self.members = tuple(members)
        self.name = name or f"ensemble({','.join(m.name for m in members)})"
        self.input_shape, self.num_classes, self.device = first.input_shape, first.num_classes, first.device
        self.stochastic = any(m.stochastic for m in members)
        self.batch_draws = any(m.batch_draws for m in members)
        gradients = any(m.access >= Access.GRADIENT for m in members)
        self.access = Access.GRADIENT if gradients else min(m.access for m in members)
        self.notes = tuple(f"{m.name}: {note}" for m in members for note in m.notes)
        self._votes = self._who_votes()

    def scores(self, x: Tensor) -> Tensor:
        shares = []
        for member, votes in zip(self.members, self._votes, strict=True):
            scores = member.scores(x).to(self.device)
            vote = (
                torch.nn.functional.one_hot(member.prediction(scores).clamp_min(0), self.num_classes)
                .double()
                .log()
            )
            shares.append(vote if votes else scores.double().log_softmax(1))
        return _mean(shares)

    def gradient_scores(self, x: Tensor) -> Tensor:
        able = [m for m in self.members if m.access >= Access.GRADIENT]
        return _mean([member.gradient_scores(x).double().log_softmax(1) for member in able])

    @property
    def gradient_is_truth(self) -> bool:
        able = all(m.access >= Access.GRADIENT and m.gradient_is_truth for m in self.members)
        return able and not any(self._votes)

    def draw(self, stream: Stream) -> Model:
        drawn = copy.copy(self)
        drawn.members = tuple(m.draw(stream.fold("member", i)) for i, m in enumerate(self.members))
        return drawn

    def to(self, device: torch.device | str) -> Ensemble:
        return Ensemble([member.to(device) for member in self.members], self.name)

    def facts(self) -> bytes:
        return " ".join(m.fingerprint() for m in self.members).encode()

    def _who_votes(self) -> tuple[bool, ...]:
        """Whether each member's scores have no scale, or are shares already that a softmax would flatten."""
        x = torch.rand((32, *self.input_shape), generator=torch.Generator().manual_seed(0)).to(self.device)
        answers = []
        for member in self.members:
            scores = member.scores(x)
            sure = member.confidence(scores)
            softmax = scores.softmax(1).amax(1)
            answers.append(sure is None or not torch.allclose(sure.double(), softmax.double(), atol=1e-4))
        return tuple(answers)


def _mean(shares: Sequence[Tensor]) -> Tensor:
    """log of the mean of shares (n, K) given as logarithms: what is far below the largest keeps its slope."""
    return torch.stack(list(shares)).logsumexp(0).sub(math.log(len(shares))).clamp_min(LEAST)


def ensemble(members: Sequence[Model]) -> Ensemble:
    """`ensemble(NAME,NAME)`: several models as one.

    Parameters
    ----------
    members : sequence of Model
        At least one, that agree on inputs and classes.

    Returns
    -------
    Ensemble
    """
    return Ensemble(members)
