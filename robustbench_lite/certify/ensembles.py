"""Forests and boosting: the distance to the nearest point of another class, in every norm."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.certify.cells import Cells
from robustbench_lite.certify.certifier import ROUNDING, Bounds, Question
from robustbench_lite.certify.climb import Climb
from robustbench_lite.certify.cliques import Cliques
from robustbench_lite.certify.leaves import Wanted, allowed
from robustbench_lite.certify.programmes import Cut, Forest, Limits, solve
from robustbench_lite.certify.verifier import GRAIN, Verified
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.structure import Trees
from robustbench_lite.core.threat import Norm, Threat, norms

NODES = 2000  # of branch and bound for a sample and class, at the usual effort
LEAVES = 1500  # in reach, above which no programme is tried, at the usual effort
SOLVED = 1e-5  # what a solver may be off by in whole numbers


class EnsembleBounds:
    """The distance to the nearest other class: exact where the search, or the programme, came to its end.

    linf: the verifier. Other norms: what it proves in linf holds in l2 and l1 as well; the point that it
    finds is moved nearer, one feature past thresholds at a time, and where few enough leaves are within that
    distance, a programme of whole numbers proves the rest; elsewhere groups of trees prove a part.
    """

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        """None for sums of trees under a norm."""
        if not isinstance(model.structure, Trees) or threat.norm is None:
            return f"{model.name} is no sum of trees under a norm"
        return None

    def bounds(self, question: Question) -> Bounds:
        """As far as the effort reaches."""
        verified = Verified(question)
        known = importlib.util.find_spec("veritas") is not None
        first = verified.bounds() if known else verified.climbed()
        return first if known and question.norm is Norm.LINF else Programmed(verified, first).bounds()


@dataclass(frozen=True)
class Programmed:
    """Points and bounds in linf, carried on to another norm by a programme a sample."""

    verified: Verified
    first: Bounds

    def bounds(self) -> Bounds:
        """The bounds of all samples."""
        asked, cells = self.verified.question, self.verified.cells
        norm, domain = asked.norm, asked.threat.domain.to(torch.device("cpu"))
        x0, sought = asked.x0.cpu(), asked.sought.cpu()
        wanted = Wanted(sought, cells.trees.rank)
        assert self.first.nearest is not None
        start = self.first.nearest.cpu().flatten(1)
        points = Climb.near(cells, x0, wanted, norm, domain).descended(start).reshape(x0.shape)
        met = wanted.met(cells.scores(points.flatten(1)))
        upper = torch.where(met, norms(points.double() - x0.double(), domain, norm), torch.inf)
        proven = self.first.distance.cpu().clone()
        if norm is Norm.L0:  # where linf is above 0 one pixel has to change
            proven = torch.where(torch.isinf(proven), proven, (proven > 0).double())
        programme = Programme(cells, norm, domain, asked.effort)
        for i in (~torch.isinf(proven) & (upper > proven)).nonzero()[:, 0].tolist():
            asked.progress(i / len(x0))
            bound, point = programme.solved(x0[i : i + 1], sought[i], float(upper[i]))
            proven[i] = max(float(proven[i]), bound)
            points[i] = points[i] if point is None else point
        upper = norms(points.double() - x0.double(), domain, norm).where(torch.isfinite(upper), torch.inf)
        left = (upper * (1 - 10 * ROUNDING) > proven).nonzero()[:, 0]  # where no programme came to its end
        cliques = Cliques(cells.trees, cells.leaves, norm, domain, asked.effort)
        grouped = cliques.largest(x0[left], asked.y.cpu()[left], sought[left], proven[left], upper[left])
        proven[left] = torch.maximum(proven[left], grouped if norm is Norm.L0 else grouped * (1 - ROUNDING))
        points, proven = points.to(asked.x0.device), proven.to(asked.x0.device)
        reached = asked.threat.distance(points, asked.x0)
        exact = self.verified.confirmed(points, proven, reached, 10 * ROUNDING)
        by = " and ".join(filter(None, [self.first.by, "programme", "groups of trees" if len(left) else ""]))
        return Bounds(proven, exact, by, nearest=points)


@dataclass(frozen=True)
class Programme:
    """The programmes of one ensemble in a norm."""

    cells: Cells
    norm: Norm
    domain: Domain
    effort: float

    def solved(self, x0: Tensor, sought: Tensor, upper: float) -> tuple[float, Tensor | None]:
        """What is proven of one sample (1, …), and a point nearer than the one known, where there is one."""
        feature, _, end = self.cells.table
        x = x0.flatten(1)
        value, possible = self.cells.points(x, *allowed(x0, self.domain))
        size = torch.where(possible, (value.double() - x[:, feature].double()).abs(), torch.inf)[0]
        number = torch.arange(self.domain.pixels(x0).shape[1], dtype=x0.dtype)[None]
        pixel = self.domain.spread(number, x0).flatten().long().numpy()
        cost = size.square() if self.norm is Norm.L2 else size
        cut = Cut(feature.numpy(), end.numpy(), cost.numpy(), pixel)
        least, most, found = np.inf, self._cost(upper), None
        rivals = (~sought).nonzero()[:, 0].tolist()
        for one in sought.nonzero()[:, 0].tolist():
            bound = 0.0
            for rival in rivals:
                answer = solve(self._forest(one, rival), cut, self.norm, self._limits(), most)
                bound = max(bound, answer.bound)
                if len(rivals) == 1 and answer.cells is not None and answer.cost < most:
                    most, found = answer.cost, answer.cells
            least = min(least, bound)
        if found is None:
            return self._length(min(least, most)), None
        point = x[0].clone()
        point[feature[found]] = value[0, found]
        return self._length(min(least, most)), point.reshape(x0.shape[1:])

    def _limits(self) -> Limits:
        return Limits(int(LEAVES * self.effort), int(NODES * self.effort))

    def _forest(self, one: int, rival: int) -> Forest:
        """The difference of two classes, at least 0 where the first may win."""
        trees, leaves = self.cells.trees, self.cells.leaves
        value = leaves.value[:, one] - leaves.value[:, rival]
        tie = trees.rank[one] < trees.rank[rival]
        room = trees.rounding or (GRAIN if tie else -GRAIN)
        start = float(trees.start[one] - trees.start[rival]) + room
        tree, feature = leaves.tree.numpy(), leaves.feature.numpy()
        low, high = leaves.low.numpy(), leaves.high.numpy()
        return Forest(tree, value.numpy(), feature, low, high, start, leaves.features)

    def _cost(self, length: float) -> float:
        return length**2 if self.norm is Norm.L2 else length

    def _length(self, cost: float) -> float:
        """A distance not above that of a cost, which a solver rounded."""
        if self.norm is Norm.L0:
            return float(np.ceil(cost - SOLVED)) if np.isfinite(cost) else cost
        return float(np.sqrt(cost) if self.norm is Norm.L2 else cost) * (1 - ROUNDING)
