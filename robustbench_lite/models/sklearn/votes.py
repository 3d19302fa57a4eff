"""Estimators that ask others and put their answers together: votes, duels, codes, stacks, calibration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.models.sklearn.forests import CannotLift
from robustbench_lite.models.sklearn.gaussian_process import ProcessCore
from robustbench_lite.models.sklearn.lifted import Core, Holds, Transform
from robustbench_lite.models.sklearn.neighbours import StoredCore
from robustbench_lite.models.sklearn.smooth import LinearCore, PerceptronCore, QuadraticCore
from robustbench_lite.models.sklearn.transforms import interpolated
from robustbench_lite.models.sklearn.trees import TreeCore


@dataclass(frozen=True)
class Member(Holds):
    """A core behind its own transforms."""

    core: Core
    transforms: tuple[Transform, ...]

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
        if isinstance(self.core, ProcessCore):
            return self.core.shares(self.features(z))
        if smooth:  # what stands in for shares is their logarithm
            return scores.softmax(1)
        return scores if _are_shares(self.core) else scores.softmax(1)

    def decision(self, z: Tensor, smooth: bool) -> Tensor:
        """What `decision_function` gives (n, K); of two classes (n, 1)."""
        return self.core.decision(self.features(z), smooth)

    @property
    def smooth(self) -> bool:
        """Whether its gradient is that of its scores."""
        return self.core.smooth and all(transform.smooth for transform in self.transforms)


def has_probabilities(core: Core) -> bool:
    """Whether a core's scores tell probabilities."""
    if isinstance(core, TreeCore):
        return core.kind != "margin"
    if _are_shares(core):
        return True
    return isinstance(core, PerceptronCore | QuadraticCore | ProcessCore) or (
        isinstance(core, LinearCore) and core.probabilities
    )


def _are_shares(core: Core) -> bool:
    """Whether a core's scores are probabilities already."""
    if isinstance(core, VoteCore):
        return core.soft
    return isinstance(core, StoredCore | CalibratedCore) or (
        isinstance(core, TreeCore) and core.kind == "probabilities"
    )


@dataclass(frozen=True)
class GroupCore(Core):
    """A core that puts together what its members say, the same way in truth and in what is differentiated."""

    members: tuple[Member, ...]

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """Whether its members are."""
        return all(member.smooth for member in self.members)

    @abstractmethod
    def together(self, z: Tensor, smooth: bool) -> Tensor:
        """The scores (n, K); smooth: from the members' surrogates."""

    def scores(self, z: Tensor) -> Tensor:
        return self.together(z, smooth=False)

    def surrogate(self, z: Tensor) -> Tensor:
        return self.together(z, smooth=True)

    def undecided(self, z: Tensor) -> Tensor:
        """Rows where a member's own answer hangs on rounding or on the number of threads."""
        tied = torch.zeros(len(z), dtype=torch.bool, device=z.device)
        for member in self.members:
            tied = tied | member.core.undecided(member.features(z))
        return tied


@dataclass(frozen=True)
class VoteCore(GroupCore):
    """Scores are the weighted mean of members' probabilities (soft), or of their decisions; weight (m,)."""

    weight: Tensor
    soft: bool

    family = "votes"

    def __post_init__(self) -> None:
        if self.soft and not all(has_probabilities(member.core) for member in self.members):
            raise CannotLift("a soft vote of members without probabilities has no lift")

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """Not even where members are: their decisions are counted, or their shares stand for logarithms."""
        return False

    def together(self, z: Tensor, smooth: bool) -> Tensor:
        total: Tensor = torch.zeros((), dtype=z.dtype, device=z.device)
        for weight, member in zip(self.weight, self.members, strict=True):
            if self.soft or smooth:
                one = member.probabilities(z, smooth)
            else:
                scores = member.scores(z, smooth=False)
                one = torch.zeros_like(scores).scatter(1, scores.argmax(1, keepdim=True), 1.0)
            total = total + weight * one
        return total / self.weight.sum()

    def surrogate(self, z: Tensor) -> Tensor:
        return self.together(z, smooth=True).clamp_min(1e-12).log()

    def undecided(self, z: Tensor) -> Tensor:
        """Also rows at a tie that the order of adding decides."""
        tied = super().undecided(z)
        if not self.soft:
            return tied
        first, second = self.scores(z).topk(2, dim=1).values.unbind(1)
        return tied | ((first - second).abs() < 1e-12)

    def confidence(self, scores: Tensor) -> Tensor | None:
        return scores.amax(1) if self.soft else None


@dataclass(frozen=True)
class RestCore(GroupCore):
    """Score k is by how much member k prefers its class to the rest; of two classes there is one member.

    decides: whether members say decisions or probabilities.
    """

    decides: tuple[bool, ...]

    family = "one against the rest"

    def __post_init__(self) -> None:
        shares = [m.core for m, decides in zip(self.members, self.decides, strict=True) if not decides]
        if not all(has_probabilities(core) for core in shares):
            raise CannotLift("one against the rest of members without probabilities has no lift")

    def together(self, z: Tensor, smooth: bool) -> Tensor:
        pairs = zip(self.members, self.decides, strict=True)
        margins = torch.cat(
            [
                member.decision(z, smooth) if decides else member.probabilities(z, smooth)[:, 1:]
                for member, decides in pairs
            ],
            1,
        )
        if margins.shape[1] > 1:
            return margins
        even = torch.zeros_like(margins) if self.decides[0] else torch.full_like(margins, 0.5)
        return torch.cat([even, margins], 1)

    def undecided(self, z: Tensor) -> Tensor:
        """Also rows where two members prefer their classes as much, between which versions differ."""
        first, second = self.scores(z).topk(2, dim=1).values.unbind(1)
        return super().undecided(z) | (first == second)


@dataclass(frozen=True)
class DuelCore(GroupCore):
    """Every class against every other: the duels each wins, and less than one for how clearly.

    Members in the order of the pairs (0, 1), (0, 2), …, each above 0 for the second of its pair.
    """

    classes: int

    family = "one against one"

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """Not even where members are: duels are counted."""
        return False

    def together(self, z: Tensor, smooth: bool) -> Tensor:
        won = torch.zeros(len(z), self.classes, dtype=z.dtype, device=z.device)
        clearly = torch.zeros_like(won)
        pairs = [(i, j) for i in range(self.classes) for j in range(i + 1, self.classes)]
        for member, (first, second) in zip(self.members, pairs, strict=True):
            decision = member.decision(z, smooth)[:, 0]
            share = decision.sigmoid() if smooth else (decision > 0).to(z)
            pair = torch.tensor([first, second], device=z.device)
            won = won.index_add(1, pair, torch.stack([1 - share, share], 1))
            clearly = clearly.index_add(1, pair, torch.stack([-decision, decision], 1))
        return won + clearly / (3 * (clearly.abs() + 1))


@dataclass(frozen=True)
class CodeCore(GroupCore):
    """A code word of members' decisions; the class of the nearest word in book (K, m) is the answer."""

    book: Tensor

    family = "output code"

    def together(self, z: Tensor, smooth: bool) -> Tensor:
        word = torch.cat([member.decision(z, smooth) for member in self.members], 1)
        return -(word[:, None] - self.book).square().sum(2)


@dataclass(frozen=True)
class StackCore(GroupCore):
    """What members say, side by side, asked of a last one; said: each by probabilities or decisions.

    passed: whether the features themselves come after what members say.
    """

    said: tuple[str, ...]
    last: Member
    passed: bool

    family = "stack"

    def __post_init__(self) -> None:
        shares = [m.core for m, how in zip(self.members, self.said, strict=True) if how == "predict_proba"]
        if not all(has_probabilities(core) for core in shares):
            raise CannotLift("a stack on members without probabilities has no lift")

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """Whether all of them are."""
        return self.last.smooth and all(member.smooth for member in self.members)

    def together(self, z: Tensor, smooth: bool) -> Tensor:
        return self.last.scores(self._features(z, smooth), smooth)

    def undecided(self, z: Tensor) -> Tensor:
        """Also rows where the last one's answer does."""
        last = self.last.core.undecided(self.last.features(self._features(z, smooth=False)))
        return super().undecided(z) | last

    def confidence(self, scores: Tensor) -> Tensor | None:
        return self.last.core.confidence(scores)

    def _features(self, z: Tensor, smooth: bool) -> Tensor:
        parts = []
        for member, how in zip(self.members, self.said, strict=True):
            if how == "predict_proba":
                shares = member.probabilities(z, smooth)
                parts.append(shares[:, 1:] if shares.shape[1] == 2 else shares)
            else:
                parts.append(member.decision(z, smooth))
        return torch.cat([*parts, z] if self.passed else parts, 1)


class Curve(Holds, ABC):
    """Of each class what probability stands for what is said of it (n, K)."""

    @abstractmethod
    def shares(self, said: Tensor, smooth: bool) -> Tensor:
        """(n, K), not yet adding up to 1; smooth: of what is differentiated."""


@dataclass(frozen=True)
class Sigmoids(Curve):
    """slope, intercept (K,), of two classes (1,)."""

    slope: Tensor
    intercept: Tensor

    def shares(self, said: Tensor, smooth: bool) -> Tensor:
        return (-(self.slope * said + self.intercept)).sigmoid()


@dataclass(frozen=True)
class Isotonic(Curve):
    """Values (K, Q) that rise between places (K, Q), which repeat the last; flat in many parts.

    What is differentiated is a sigmoid that is as wide and passes the same middle.
    """

    at: Tensor
    value: Tensor

    def shares(self, said: Tensor, smooth: bool) -> Tensor:
        if not smooth:
            return interpolated(said.T.contiguous(), self.at, self.value).T
        width = (self.at[:, -1] - self.at[:, 0]).clamp_min(1e-9)
        passed = (self.value < 0.5).sum(1, keepdim=True).clamp_max(self.at.shape[1] - 1)
        middle = self.at.gather(1, passed)[:, 0]
        return (4 * (said - middle) / width).sigmoid()


@dataclass(frozen=True)
class CalibratedCore(GroupCore):
    """The mean of members' calibrated probabilities.

    decides: whether members say decisions or probabilities; curves: of each what they stand for.
    """

    decides: tuple[bool, ...]
    curves: tuple[Curve, ...]

    family = "calibrated"

    def __post_init__(self) -> None:
        shares = [m.core for m, decides in zip(self.members, self.decides, strict=True) if not decides]
        if not all(has_probabilities(core) for core in shares):
            raise CannotLift("a calibration of members without probabilities has no lift")

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """Whether members and curves are."""
        return super().smooth and not any(isinstance(curve, Isotonic) for curve in self.curves)

    def surrogate(self, z: Tensor) -> Tensor:
        return self.together(z, smooth=True).clamp_min(1e-12).log()

    def confidence(self, scores: Tensor) -> Tensor:
        return scores.amax(1)

    def together(self, z: Tensor, smooth: bool) -> Tensor:
        shares = []
        for curve, member, decides in zip(self.curves, self.members, self.decides, strict=True):
            if decides:
                said = member.decision(z, smooth)
            else:
                said = member.probabilities(z, smooth)
                said = said[:, 1:] if said.shape[1] == 2 else said
            share = curve.shares(said, smooth)
            if share.shape[1] == 1:
                share = torch.cat([1 - share, share], 1)
            total = share.sum(1, keepdim=True)
            even = torch.full_like(share, 1 / share.shape[1])
            shares.append(torch.where(total > 0, share / torch.where(total > 0, total, 1.0), even))
        return torch.stack(shares).mean(0)
