"""Estimators that ask others and put their answers together: votes, and one against the rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.models.sklearn.forests import CannotLift
from robustbench_lite.models.sklearn.lifted import Affine, Core, Holds
from robustbench_lite.models.sklearn.smooth import LinearCore, PerceptronCore, QuadraticCore
from robustbench_lite.models.sklearn.trees import TreeCore


@dataclass(frozen=True)
class Member(Holds):
    """A core behind its own transforms."""

    core: Core
    transforms: tuple[Affine, ...]

    def features(self, z: Tensor) -> Tensor:
        for transform in self.transforms:
            z = transform(z)
        return z

    def scores(self, z: Tensor, smooth: bool) -> Tensor:
        z = self.features(z)
        return self.core.surrogate(z) if smooth else self.core.scores(z)

    def probabilities(self, z: Tensor, smooth: bool) -> Tensor:
        """What `predict_proba` gives (n, K), or what is differentiated in its stead."""
        scores = self.scores(z, smooth)
        if isinstance(self.core, TreeCore) and self.core.kind == "probabilities" and not smooth:
            return scores
        return scores.softmax(1)  # a tree's surrogate is the logarithm of its shares


def has_probabilities(core: Core) -> bool:
    """Whether a core's scores tell probabilities."""
    if isinstance(core, TreeCore):
        return core.kind != "margin"
    return isinstance(core, PerceptronCore | QuadraticCore) or (
        isinstance(core, LinearCore) and core.probabilities
    )


@dataclass(frozen=True)
class VoteCore(Core):
    """Scores are the weighted mean of members' probabilities (soft), or of their decisions; weight (m,)."""

    members: tuple[Member, ...]
    weight: Tensor
    soft: bool

    family = "votes"
    smooth = False

    def __post_init__(self) -> None:
        if self.soft and not all(has_probabilities(member.core) for member in self.members):
            raise CannotLift("a soft vote of members without probabilities has no lift")

    def scores(self, z: Tensor) -> Tensor:
        total: Tensor = torch.zeros((), dtype=z.dtype, device=z.device)
        for weight, member in zip(self.weight, self.members, strict=True):
            if self.soft:
                one = member.probabilities(z, smooth=False)
            else:
                scores = member.scores(z, smooth=False)
                one = torch.zeros_like(scores).scatter(1, scores.argmax(1, keepdim=True), 1.0)
            total = total + weight * one
        return total / self.weight.sum()

    def surrogate(self, z: Tensor) -> Tensor:
        shares = [w * m.probabilities(z, smooth=True) for w, m in zip(self.weight, self.members, strict=True)]
        return (torch.stack(shares).sum(0) / self.weight.sum()).clamp_min(1e-12).log()

    def undecided(self, z: Tensor) -> Tensor:
        """Rows at a tie that the order of adding decides, or where a member's own decision hangs on it."""
        first, second = self.scores(z).topk(2, dim=1).values.unbind(1)
        tied = (first - second).abs() < 1e-12 if self.soft else torch.zeros_like(first, dtype=torch.bool)
        for member in self.members:
            tied = tied | member.core.undecided(member.features(z))
        return tied

    def confidence(self, scores: Tensor) -> Tensor | None:
        return scores.amax(1) if self.soft else None


@dataclass(frozen=True)
class RestCore(Core):
    """Score k is by how much member k prefers its class to the rest; of two classes there is one member."""

    members: tuple[Member, ...]
    smooth: bool = True

    family = "one against the rest"

    def scores(self, z: Tensor) -> Tensor:
        return self._together(z, smooth=False)

    def surrogate(self, z: Tensor) -> Tensor:
        return self._together(z, smooth=True)

    def _together(self, z: Tensor, smooth: bool) -> Tensor:
        each = [member.scores(z, smooth) for member in self.members]
        margins = torch.stack([scores[:, 1] - scores[:, 0] for scores in each], 1)
        return torch.cat([torch.zeros_like(margins), margins], 1) if margins.shape[1] == 1 else margins
