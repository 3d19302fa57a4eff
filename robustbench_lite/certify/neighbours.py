"""Nearest neighbours: the smallest step after which enough stored samples of other classes are nearer.

The class y loses a vote of k where for some v at most v of the k are of y, and at least v of one other class
that wins ties against y, or v + 1 of one that does not: then some k - v samples of other classes (J), so many
of them of one, are nearer than all stored samples of y but v (those left out). For a choice of both, the
nearest such point is a programme: with linear constraints, since "nearer to a than to b" is a half-space. For
k = 1 the programmes are those of Wang et al. 2019 (section 3), solved in the order of the largest distance to
one of their half-spaces, until that alone is too far. For more neighbours choices are made one after the
other, best first; what is open when the effort is spent leaves a sound bound.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy.optimize import nnls
from scipy.spatial.distance import cdist
from torch import Tensor

from robustbench_lite.certify.ball import pixels_of
from robustbench_lite.certify.certifier import (
    ORDER,
    Bounds,
    Question,
    counts_choices,
    rounded_down,
)
from robustbench_lite.certify.leaves import allowed
from robustbench_lite.certify.polytope import smallest_step
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.structure import Neighbours
from robustbench_lite.core.threat import Norm, Threat

Array = np.ndarray
NODES = {
    Norm.L2: 2000,
    Norm.LINF: 60,
    Norm.L1: 60,
    Norm.L0: 2,
}  # programmes for a sample, at the usual effort
ALONE = 20  # times as many for one neighbour, which wants few of them
AT_ONCE = 8  # constraints that a programme takes up at a time
METRIC: dict[Norm, Literal["euclidean", "cityblock", "chebyshev"]] = {
    Norm.L2: "euclidean",
    Norm.LINF: "cityblock",
    Norm.L1: "chebyshev",
    Norm.L0: "euclidean",
}  # dual to the norm of steps
NEAR = 8  # stored samples of the own class by which others are put in order
MARGINS = (0.0, 1e-7, 1e-6, 1e-5)  # of the length, by which the boundary is passed where the model is asked
SAME = 1e-9  # of the largest number stored
LOOSE = 1e-9  # by which a constraint of unit length may be missed


class NeighbourBounds:
    """The distance to the nearest other class: exact where the search over choices of neighbours ends."""

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        """None for nearest neighbours under a norm."""
        if not isinstance(model.structure, Neighbours) or threat.norm is None:
            return f"{model.name} is no vote of nearest neighbours under a norm"
        return counts_choices(threat)

    def bounds(self, question: Question) -> Bounds:
        """As far as the effort reaches."""
        held = question.model.structure
        assert isinstance(held, Neighbours)
        pixel = pixels_of(question.threat.domain, question.x0).cpu().numpy()
        solver = Solver.of(held, question.norm, question.effort, pixel)
        x0 = question.x0.cpu()
        x = x0.flatten(1).double().numpy()
        sides = allowed(x0, question.threat.domain.to(torch.device("cpu")))
        low, high = (side.double().numpy() - x for side in sides)
        y, sought = question.y.cpu().numpy(), question.sought.cpu().numpy()
        distance, choices = np.zeros(len(x)), []
        for i in range(len(x)):
            question.progress(i / len(x))
            distance[i], choice = solver.case(x[i], low[i], high[i], int(y[i]), sought[i]).searched()
            choices.append(choice)
        proven = rounded_down(torch.from_numpy(distance).to(question.x0.device), question.norm)
        nearest = question.x0.clone()
        left = torch.arange(len(x), device=nearest.device)
        for margin in MARGINS:  # a step past its boundary is only made where none before it was enough
            steps = np.zeros((len(left), x.shape[1]))
            for place, i in enumerate(left.tolist()):
                case = solver.case(x[i], low[i], high[i], int(y[i]), sought[i])
                steps[place] = case.past(choices[i], margin)
            there, points = self._crossed(question[left], torch.from_numpy(steps).to(nearest.device))
            nearest[left[there]] = points[there]
            left = left[~there]
        reached = question.threat.distance(nearest, question.x0)
        plain = question.threat.domain.whole
        moved = (nearest != question.x0).flatten(1).any(1)
        exact = torch.isinf(proven) | (moved & (reached <= proven * (1 + 3 * MARGINS[-1])) & plain)
        return Bounds(proven, exact, "neighbours", nearest=nearest)

    def _crossed(self, question: Question, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the model itself decides x0 after steps (n, d) as sought (n,); and the points."""
        x0 = question.x0
        point = question.threat.domain.clamp(_away(x0.double() + steps.reshape(x0.shape), x0))
        answer = question.model.prediction(question.model.scores(point))
        return question.sought.gather(1, answer.clamp_min(0)[:, None])[:, 0] & (answer >= 0), point


def _away(point: Tensor, x0: Tensor) -> Tensor:
    """Points in x0's type, each value rounded away from x0."""
    single = point.to(x0.dtype)
    short = (single.double() - x0.double()).abs() < (point - x0.double()).abs()
    end = torch.where(point > x0.double(), torch.inf, -torch.inf).to(x0)
    return torch.where(short, torch.nextafter(single, end), single)


@dataclass(frozen=True)
class Node:
    """A choice, and the smallest step (d,) that does it, of a length that no further choice makes less.

    need, spare: how many others to choose, how many rivals to leave out. chosen: J; kept, dropped: rivals
    that J has to beat, and need not. place: of the next of the others to choose.
    """

    need: int
    spare: int
    chosen: tuple[int, ...]
    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    place: int
    length: float
    step: Array


@dataclass(frozen=True)
class Solver:
    """The stored samples, as an input sees them: `image` (N, d) is matrix.T @ stored."""

    stored: Array
    labels: Array
    k: int
    matrix: Array
    offset: Array
    image: Array
    norm: Norm
    nodes: int
    pixel: Array
    same: float

    @classmethod
    def of(cls, held: Neighbours, norm: Norm, effort: float, pixel: Array) -> Solver:
        """For the structure of a model, of whose inputs each feature is of a pixel (d,)."""
        parts = (held.stored, held.labels, held.matrix, held.offset)
        stored, labels, matrix, offset = (part.cpu().numpy() for part in parts)
        nodes = max(1, int(NODES[norm] * effort * (1 if held.k > 1 else ALONE)))
        image = stored @ matrix
        same = SAME * max(float(image.max(initial=0.0)), -float(image.min(initial=0.0)))
        return cls(stored, labels, held.k, matrix, offset, image, norm, nodes, pixel, same)

    def size(self, step: Array) -> float:
        """The norm of a step (d,)."""
        if self.norm is Norm.L0:
            return float(len(np.unique(self.pixel[step != 0])))
        return float(np.linalg.norm(step, ord=ORDER[self.norm]))

    def reach(
        self, to: Array, other: Array, need: Array, low: Array, high: Array, rough: bool = False
    ) -> Array:
        """The smallest size of a step with (to - other) @ step >= need (a, b), or one below it.

        to (a, d), other (b, d); rough: a bound that costs less, of numbers of pixels.
        """
        length = cdist(to, other, METRIC[self.norm])
        with np.errstate(divide="ignore", invalid="ignore"):
            far = need / length
        if self.norm is Norm.L0 and rough:  # of several features no two gain more than their lengths' product
            most = np.bincount(self.pixel).max() * np.square(np.maximum(-low, high)).max(initial=0.0)
            far = np.square(far) / max(most, np.finfo(float).tiny) * (1 - LOOSE)
        elif self.norm is Norm.L0:
            far = np.stack(
                [self._pixels(to - b, n, low, high) for b, n in zip(other, need.T, strict=True)], 1
            )
        # What is nearer already is free, and so is the tie of two samples in one place.
        reached: Array = np.where((need > 0) & (length > self.same), far, 0.0)
        return reached

    def _pixels(self, normal: Array, need: Array, low: Array, high: Array) -> Array:
        """How many pixels have to change for normal (a, d) @ step >= need (a,)."""
        gain = np.maximum(normal * low, normal * high)
        pixels = int(self.pixel.max()) + 1
        if pixels < len(self.pixel):
            order = np.argsort(self.pixel, kind="stable")
            begin = np.searchsorted(self.pixel[order], np.arange(pixels))
            gain = np.add.reduceat(gain[:, order], begin, axis=1)
        gain.sort(axis=1)
        together = np.cumsum(gain[:, ::-1], axis=1)
        fewer = (together < need[:, None] - LOOSE * together[:, -1:]).sum(1)
        return np.where(fewer < pixels, fewer + 1.0, np.inf)

    def case(self, x: Array, low: Array, high: Array, y: int, sought: Array) -> Case:
        """One sample, whose steps stay within the box and are to change y to what is sought."""
        apart = cdist(self.stored, (self.matrix @ x + self.offset)[None], "sqeuclidean")[:, 0]
        wanted = sought[self.labels]
        alone = self.k == 1
        rivals = np.flatnonzero(~wanted if alone else self.labels == y)
        others = np.flatnonzero(wanted if alone else self.labels != y)
        return Case(self, apart, rivals, others, low, high, y)


@dataclass(frozen=True)
class Case:
    """One sample: squared distances (N,) to all stored ones, which of them compete, the box of its steps."""

    solver: Solver
    apart: Array
    rivals: Array
    others: Array
    low: Array
    high: Array
    y: int

    def searched(self) -> tuple[float, Node]:
        """Choices of others and rivals, best first: a bound, and the best one met."""
        k, labels = self.solver.k, self.solver.labels
        still = np.zeros_like(self.low)
        others, least = self._nearest(self.others, k // 2, rough=True)
        best, found = np.inf, Node(0, 0, (), (), (), 0, 0.0, still)
        # More than half of the votes for one class: a step that others have to be below.
        for label in np.unique(labels[others if k > 1 else others[:1]]):
            chosen = others[labels[others] == label][: k // 2 + 1]
            if len(chosen) == k // 2 + 1:
                node = self._whole(Node(len(chosen), 0, tuple(chosen.tolist()), (), (), 0, 0.0, still), best)
                if node is not None:
                    best, found = node.length, node
        others, least = self._nearest(others[least < best], k // 2)
        count = itertools.count()
        waiting: list[tuple[float, int, Node]] = []
        spent = 0

        def push(node: Node) -> None:
            missing = node.need - len(node.chosen)
            if node.place + missing > len(others):
                return
            bound = max(node.length, float(least[node.place + missing - 1]) if missing else 0.0)
            if bound < best:
                heapq.heappush(waiting, (bound, next(count), node))

        for spare in range(k // 2 + 1):
            push(Node(k - spare, spare, (), (), (), 0, 0.0, still))
        while waiting and waiting[0][0] < best and spent < self.solver.nodes:
            _, _, node = heapq.heappop(waiting)
            one = int(others[node.place])
            push(replace(node, place=node.place + 1))
            children = [replace(node, chosen=(*node.chosen, one), place=node.place + 1)]
            while children:
                child = children.pop()
                if self._split(child):
                    continue
                spent += 1
                solved = self._solved(child, best)
                if solved is None:
                    continue
                broken = self._broken(solved)
                room = solved.spare - len(solved.dropped)
                if len(broken) <= room:
                    if len(solved.chosen) < solved.need:
                        push(solved)
                    else:
                        best, found = solved.length, solved
                    continue
                if room == 0:
                    children.append(replace(solved, kept=(*solved.kept, *broken[:AT_ONCE].tolist())))
                    continue
                first = int(broken[0])
                children.append(replace(solved, kept=(*solved.kept, first)))
                children.append(replace(solved, dropped=(*solved.dropped, first)))
        bound = min(best, waiting[0][0]) if waiting else best
        return bound, found

    def past(self, found: Node, margin: float) -> Array:
        """The step of a choice, past its boundaries by a share of its length."""
        node: Node | None = found
        while node is not None and found.chosen and margin:
            node = self._solved(node, np.inf, margin * found.length)
            broken = found.step[:0] if node is None else self._broken(node)
            if node is None or not len(broken):
                break
            node = replace(node, kept=(*node.kept, *broken[:AT_ONCE].tolist()))
        return found.step if node is None else node.step

    def _split(self, node: Node) -> bool:
        """Whether too few of one class can be among the chosen to win against the rivals left out."""
        label, votes = np.unique(self.solver.labels[list(node.chosen)], return_counts=True)
        most = int((votes - (label > self.y)).max(initial=0))
        return most + node.need - len(node.chosen) < node.spare

    def _nearest(self, others: Array, spare: int, rough: bool = False) -> tuple[Array, Array]:
        """Others in the order of a distance below which each beats too few of the rivals, and that.

        The largest distance to a half-space but as many as may be left out, over the rivals nearest to x;
        rough: over no more of them than that takes.
        """
        count = spare + (1 if rough else NEAR)
        near = self.rivals[np.argsort(self.apart[self.rivals], kind="stable")[:count]]
        least = np.zeros(len(others))
        if len(near) > spare and len(others):
            image, apart = self.solver.image, self.apart
            need = (apart[others][:, None] - apart[near]) / 2
            far = self.solver.reach(image[others], image[near], need, self.low, self.high, rough)
            least = np.sort(far, axis=1)[:, -1 - spare]
        order = np.argsort(least, kind="stable")
        return others[order], least[order]

    def _whole(self, start: Node, best: float) -> Node | None:
        """A choice with every rival beaten; None beyond the best."""
        node: Node | None = start
        while node is not None:
            broken = self._broken(node)
            if not len(broken):
                return node
            node = self._solved(replace(node, kept=(*node.kept, *broken[:AT_ONCE].tolist())), best)
        return None

    def _broken(self, node: Node) -> Array:
        """Rivals neither kept nor dropped that one of the chosen does not beat after the step, in order."""
        if not node.chosen:
            return self.rivals[:0]
        image, chosen = self.solver.image, list(node.chosen)
        far = self.apart - 2 * (image @ node.step)  # but for what all share
        size = np.abs(far[chosen]).max() + 1e-300
        short = far[chosen].max() - far[self.rivals]
        open_to = ~np.isin(self.rivals, [*node.kept, *node.dropped])
        broken = np.flatnonzero(open_to & (short > LOOSE * size))
        worst: Array = self.rivals[broken[np.argsort(-short[broken], kind="stable")]]
        return worst

    def _solved(self, node: Node, best: float, margin: float = 0.0) -> Node | None:
        """The node with its smallest step, by a margin past; None for none below the best."""
        if not node.kept:
            return node
        image = self.solver.image
        pairs = list(itertools.product(node.chosen, node.kept))
        first, second = (np.array(side) for side in zip(*pairs, strict=True))
        normal = image[first] - image[second]
        length = np.linalg.norm(normal, axis=1)
        need = (self.apart[first] - self.apart[second]) / 2 + margin * length
        normal, need = normal[length > self.solver.same], need[length > self.solver.same]
        if not len(need):
            return node
        if self.solver.norm is Norm.L2:
            step = shortest(normal, need, self.low, self.high, best)
        else:
            none = np.zeros(len(self.low))
            step = smallest_step(normal, need, self.low, self.high, self.solver.norm, self.solver.pixel, none)
        if step is None:
            return None
        step = np.clip(step, self.low, self.high)
        length = self.solver.size(step)
        return None if length >= best else replace(node, length=length, step=step)


def shortest(normal: Array, need: Array, low: Array, high: Array, cutoff: float) -> Array | None:
    """The shortest step (d,) with normal @ step >= need in the box; None where it is not below the cutoff.

    As in `polytope`, but sides of the box are taken up only as the step leaves them.
    """
    size = np.linalg.norm(normal, axis=1)
    rows, limit = normal[size > 0] / size[size > 0, None], need[size > 0] / size[size > 0]
    unit = np.eye(len(low))
    taken = np.zeros(2 * len(low), dtype=bool)
    # No point of the box lies further out. A step's length is √(1 / distance² - 1), so that a distance below
    # this stands for none in the box, or for none at all.
    furthest = min(1e6, 1e-6 + 1.001 * float(np.linalg.norm(np.maximum(-low, high))))
    least = 1 / np.sqrt(1 + furthest**2)
    while True:
        system = np.vstack([rows.T, limit])
        goal = np.zeros(len(system))
        goal[-1] = 1.0
        weights, distance = nnls(system, goal, maxiter=50 * system.shape[1])
        if distance < least:
            return None
        residual = goal - system @ weights
        step: Array = -residual[:-1] / residual[-1]
        if np.linalg.norm(step) >= cutoff:
            return None
        beyond = np.concatenate([low - step, step - high]) > LOOSE
        beyond &= ~taken
        if not beyond.any():
            return step
        taken |= beyond
        sides = np.vstack([unit, -unit])[beyond]
        rows, limit = np.vstack([rows, sides]), np.append(limit, np.append(low, -high)[beyond])
