"""The nearest point of another class of forests and boosting in linf, proven by search over their leaves.

In linf the answer is one of finitely many distances, at which a cell between thresholds begins. Whether any
point within such a distance is answered otherwise is decided by the verifier Veritas (Devos, Meert & Davis
2021) for one class against another, cheaply at first; where it does not come to an end, a climb over the
cells looks for such a point. Distances are halved until no other lies between the proven and the found.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.certify.cells import Cells
from robustbench_lite.certify.certifier import Bounds, Question
from robustbench_lite.certify.climb import Climb
from robustbench_lite.certify.leaves import Wanted, allowed
from robustbench_lite.core.structure import Trees

STEPS = 30_000  # of the verifier for a sample, at the usual effort
FIRST = 400  # steps that a class is given at first
MORE = 6  # times as many at each further try
MOST = FIRST * MORE**3  # beyond which its memory grows
GRAIN = 2.0**-21  # half of what sums that are exact are multiples of


@dataclass(frozen=True)
class Verified:
    """A question about trees under linf, answered sample by sample on the CPU."""

    question: Question

    @cached_property
    def trees(self) -> Trees:
        """The model's trees."""
        held = self.question.model.structure
        assert isinstance(held, Trees)
        return held.to("cpu")

    @cached_property
    def cells(self) -> Cells:
        """The cells between their thresholds."""
        return Cells(self.trees, self.question.x0[0].numel())

    @cached_property
    def verifier(self) -> Verifier:
        """The verifier of their leaves."""
        return Verifier(self.trees)

    def bounds(self) -> Bounds:
        """The bounds of all samples."""
        asked = self.question
        x0, sought = asked.x0.cpu(), asked.sought.cpu()
        low, high = allowed(x0, asked.threat.domain.to(torch.device("cpu")))
        x = x0.flatten(1)
        scores = self.cells.scores(x)
        nearest = x.clone()
        distance = torch.zeros(len(x), dtype=torch.float64)
        upper = torch.full_like(distance, torch.inf)
        for i, places in enumerate(self.cells.distances(x, low, high)):
            asked.progress(i / len(x))
            wanted = Wanted(sought[i : i + 1], self.trees.rank)
            order = scores[i].argsort(descending=True).tolist()
            classes = [c for c in order if sought[i, c]]
            rivals = [c for c in order if not sought[i, c]]
            pairs = tuple((c, rival) for c in classes for rival in rivals)
            one = Sample(self, x[i], low[i], high[i], places.numpy(), wanted, pairs, len(rivals) > 1)
            one.solve(int(STEPS * asked.effort))
            distance[i] = one.proven
            if one.found < len(places):
                nearest[i], upper[i] = one.point, places[one.found]
        points = nearest.reshape(x0.shape).to(asked.x0.device)
        distance, upper = distance.to(points.device), upper.to(points.device)
        return Bounds(distance, self.confirmed(points, distance, upper), "verifier", nearest=points)

    def climbed(self) -> Bounds:
        """Points that a climb finds anywhere in the box, and nothing proven: without the verifier."""
        asked = self.question
        x = asked.x0.cpu()
        low, high = allowed(x, asked.threat.domain.to(torch.device("cpu")))
        wanted = Wanted(asked.sought.cpu(), self.trees.rank)
        points = Climb(self.cells, x.flatten(1), low, high, wanted).climbed()
        none = torch.zeros_like(asked.y, dtype=torch.float64)
        return Bounds(none, none > 0, "", nearest=points.reshape(x.shape).to(asked.x0.device))

    def confirmed(self, points: Tensor, proven: Tensor, reached: Tensor, room: float = 0.0) -> Tensor:
        """Where what is proven is reached by points that model and domain hold to be adversarial (n,).

        room: relative, by which a distance may be above what is proven.
        """
        asked = self.question
        answer = asked.model.prediction(asked.model.scores(points))
        there = asked.sought.gather(1, answer.clamp_min(0)[:, None])[:, 0] & (answer >= 0)
        inside = asked.threat.domain.changed_only_allowed(points, asked.x0)
        reaches = there & inside & (reached <= proven * (1 + room))
        if not asked.threat.domain.whole:
            reaches = reaches & False  # cells were looked at as if every value were allowed
        return torch.isinf(proven) | reaches


@dataclass
class Sample:
    """One sample: distances (M,) in order, of which those up to `lower` are proven and `found` is reached.

    pairs: classes sought, each with the class that it has to pass; several: whether each class sought has to
    pass more than one.
    """

    part: Verified
    x: Tensor
    low: Tensor
    high: Tensor
    places: np.ndarray
    wanted: Wanted
    pairs: tuple[tuple[int, int], ...]
    several: bool
    lower: int = 0
    found: int = 0
    spent: int = 0
    point: Tensor = field(default_factory=lambda: torch.empty(0))
    reached: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def proven(self) -> float:
        """The distance below which nothing is."""
        return float(self.places[self.lower + 1]) if self.lower + 1 < len(self.places) else np.inf

    def solve(self, steps: int) -> None:
        """Close in on the nearest point, within so many steps of the verifier."""
        self.found = len(self.places)
        limit = FIRST
        while True:
            self._halve(limit)
            if self.found - self.lower <= 1 or self.spent >= steps or limit == MOST:
                return
            if limit == FIRST:
                self._climb_down()
            limit *= MORE

    def _halve(self, limit: int) -> None:
        """Between what is proven and what is found, with so many steps a class and distance."""
        ceiling = self.found
        while ceiling - self.lower > 1:
            place = (self.lower + ceiling) // 2
            verdict = self._ask(place, limit)
            if verdict is False:
                self.lower = place
            else:
                ceiling = min(place, self.found)

    def _ask(self, place: int, limit: int) -> bool | None:
        """Whether there is a point within a distance; None: not known."""
        open_pairs = False
        for pair in self.pairs:
            if self.reached.get(pair, 0) >= place:
                continue
            verdict, point, steps = self.part.verifier.ask(pair, *self._box(place), self.x, limit)
            self.spent += steps
            if verdict is False:
                self.reached[pair] = place
            elif point is None or self.several:
                open_pairs = True
            else:
                self._keep(point)
                return True
        if open_pairs:
            return self._climb(place) or None
        return False

    def _climb_down(self) -> None:
        """Look for points nearer than the one found, where the verifier came to no end."""
        below = self.lower
        while self.found - below > 1:
            place = (below + self.found) // 2
            if not self._climb(place):
                below = place

    def _climb(self, place: int) -> bool:
        low, high = (side[None] for side in self._box(place))
        climb = Climb(self.part.cells, self.x[None], low, high, self.wanted)
        standing = climb.standing
        done = bool(climb.climb(standing)[0])
        if done:
            self._keep(standing.point[0])
        return done

    def _keep(self, point: Tensor) -> None:
        far = float((point.double() - self.x.double()).abs().max())
        place = int(np.searchsorted(self.places, far))
        if place < self.found:
            self.found, self.point = place, point

    def _box(self, place: int) -> tuple[Tensor, Tensor]:
        """The float32 values within a distance, low <= x <= high (d,)."""
        far, x = float(self.places[place]), self.x.double()
        low, high = torch.maximum(self.low.double(), x - far), torch.minimum(self.high.double(), x + far)
        return _inward(low, up=True), _inward(high, up=False)


def _inward(value: Tensor, up: bool) -> Tensor:
    """float64 values as the next float32 that is not outside."""
    single = value.float()
    outside = single.double() < value if up else single.double() > value
    end = torch.full_like(single, torch.inf if up else -torch.inf)
    return torch.where(outside, torch.nextafter(single, end), single)


class Verifier:
    """Veritas on the difference of two classes' sums."""

    def __init__(self, trees: Trees) -> None:
        import veritas

        self.library: Any = veritas
        self.trees = trees
        self.whole = self._converted()
        self.pairs: dict[tuple[int, int], Any] = {}
        config = veritas.Config(veritas.HeuristicType.MAX_OUTPUT)
        config.stop_when_optimal = False
        config.ignore_state_when_worse_than = 0.0
        config.stop_when_num_solutions_exceeds = 1
        config.max_focal_size = 1000
        config.focal_eps = 0.2
        self.config = config

    def ask(
        self, pair: tuple[int, int], low: Tensor, high: Tensor, x: Tensor, limit: int
    ) -> tuple[bool | None, Tensor | None, int]:
        """Whether the first class can pass the second in a box (d,); the nearest such point; the steps."""
        interval = self.library.Interval
        above = np.nextafter(high.double().numpy(), np.inf)
        box = [interval(*sides) for sides in zip(low.tolist(), above.tolist(), strict=True)]
        search = self.config.get_search(self._difference(pair), box)
        reason = search.steps(limit)
        steps = int(search.stats.num_steps)
        if search.num_solutions():
            return True, self._nearest(search.get_solution(0).box(), low, high, x), steps
        ended = reason in (self.library.StopReason.NO_MORE_OPEN, self.library.StopReason.OPTIMAL)
        return (False if ended else None), None, steps

    def _nearest(self, box: Any, low: Tensor, high: Tensor, x: Tensor) -> Tensor:
        """The point of a solution nearest to x."""
        least, most = low.clone(), high.clone()
        number = torch.tensor(list(box), dtype=torch.int64)
        ends = [(sides.lo, np.nextafter(sides.hi, -np.inf)) for sides in box.values()]
        held = torch.tensor(ends, dtype=torch.float64).reshape(-1, 2)
        least[number] = torch.maximum(least[number], _inward(held[:, 0], up=True))
        most[number] = torch.minimum(most[number], _inward(held[:, 1], up=False))
        return torch.minimum(torch.maximum(x, least), most)

    def _difference(self, pair: tuple[int, int]) -> Any:
        """The sum of one class less another's, at least 0 where the first may win."""
        if pair not in self.pairs:
            made = self.whole.contrast_classes(*pair)
            start, rank = self.trees.start, self.trees.rank
            room = self.trees.rounding or (GRAIN if rank[pair[0]] < rank[pair[1]] else -GRAIN)
            made.set_base_score(0, float(start[pair[0]] - start[pair[1]]) + room)
            self.pairs[pair] = made
        return self.pairs[pair]

    def _converted(self) -> Any:
        trees, library = self.trees, self.library
        left, feature = trees.left.tolist(), trees.feature.tolist()
        # A sample goes left below the split: from the next float32 on it goes right.
        end = torch.full_like(trees.threshold, torch.inf)
        split = torch.nextafter(trees.threshold, end).double().tolist()
        value = trees.value.numpy()
        whole = library.AddTree(value.shape[1], library.AddTreeType.REGR)
        for root in trees.roots.tolist():
            tree = whole.add_tree()
            waiting: list[tuple[int, int]] = [(tree.root(), root)]
            while waiting:
                place, node = waiting.pop()
                if left[node] == node:
                    tree.set_leaf_values(place, value[node])
                    continue
                tree.split(place, feature[node], split[node])
                waiting += [(tree.left(place), left[node]), (tree.right(place), left[node] + 1)]
        return whole
