"""Small networks as a programme of whole numbers: the nearest point of another class in linf and l1.

A number of 0 or 1 says on which side of 0 each open unit is, which makes everything else linear (Tjeng, Xiao
& Tedrake 2019, arXiv:1711.07356, section 4). What a ball leaves open is told by linear bounds, so that the
ball grows from what these have proven until a point is found in it. Solved by HiGHS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import Bounds as Sides
from scipy.optimize import LinearConstraint, OptimizeResult, milp
from torch import Tensor

from robustbench_lite.certify.certifier import ORDER, ROUNDING, Bounds, Question
from robustbench_lite.certify.leaves import allowed
from robustbench_lite.certify.networks import GUARD, Inputs, NetworkBounds, Relaxed, transposed, units_of
from robustbench_lite.certify.programmes import SCALE
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.structure import Layers, Step, outcomes
from robustbench_lite.core.threat import Norm, Threat

Array = np.ndarray
NORMS = (Norm.LINF, Norm.L1)  # whose lengths are linear
UNITS = 300  # rectified, above which no programme is tried
GROWTH = 1.5  # of the ball in which no point is
NODES = 20_000  # of branch and bound for a class, for each unit of effort
PAST = (0.0, 1.0, 3.0)  # of what rounding may be, by which the boundary is passed where the model is asked
REACHED = 1e-4  # relative: how near a point has to be to what is proven
INFEASIBLE = 2  # SciPy's status where there is no point at all


class ProgrammedNetworks:
    """The exact distance of small networks, on demand: seconds a sample and more, at an effort above 1."""

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        """None for networks of few rectified units under linf and l1."""
        held = model.structure
        if not isinstance(held, Layers) or threat.norm not in NORMS:
            return f"{model.name} is no network of known steps under linf or l1"
        units = units_of(held)
        return f"{model.name} has {units} rectified units, more than {UNITS}" if units > UNITS else None

    def bounds(self, question: Question) -> Bounds:
        """From what linear bounds prove; not tried at the usual effort."""
        held = question.model.structure
        assert isinstance(held, Layers)
        if question.effort <= 1:
            none = torch.full_like(question.y, torch.nan, dtype=torch.float64)
            return Bounds(none, torch.zeros_like(question.y, dtype=torch.bool), "")
        return NetworkProgramme(held, question).bounds(NetworkBounds().bounds(question).distance)


@dataclass(frozen=True)
class NetworkProgramme:
    """The programmes of one network."""

    layers: Layers
    question: Question

    def bounds(self, proven: Tensor) -> Bounds:
        """Distances no less than those proven already (n,), sample by sample."""
        asked = self.question
        distance, points = proven.clone(), asked.x0.clone()
        matrices = self._matrices()
        for i in (proven.isfinite() & (proven > 0)).nonzero()[:, 0].tolist():
            asked.progress(i / len(proven))
            distance[i], steps = _Sample(self.layers, asked[i : i + 1], matrices).nearest(float(proven[i]))
            points[i] = self._crossed(asked[i : i + 1], steps)[0]
        reached = asked.threat.distance(points, asked.x0)
        moved = (points != asked.x0).flatten(1).any(1)
        exact = torch.isinf(distance) | (moved & (reached <= distance * (1 + REACHED)))
        return Bounds(distance, exact & self._free, "programme", nearest=points)

    @property
    def _free(self) -> bool:
        """Whether every value of the box is allowed."""
        return self.question.threat.domain.whole

    def _matrices(self) -> list[tuple[Array, Array] | None]:
        """What each affine step multiplies with and adds, float64."""
        layers = self.layers
        still = torch.zeros(1, *layers.shape, dtype=layers.dtype, device=layers.device)
        with torch.no_grad():
            shapes = [value.shape[1:] for value in outcomes(layers, still)]
        found: list[tuple[Array, Array] | None] = []
        for number, step in enumerate(layers.steps, start=1):
            if step.affine is None:
                found.append(None)
                continue
            before, after = shapes[step.inputs[0]], shapes[number]
            unit = torch.eye(after.numel(), dtype=layers.dtype, device=layers.device)
            matrix = transposed(step.affine, unit.reshape(-1, *after), tuple(before)).flatten(1)
            with torch.no_grad():
                added = step.affine(still.new_zeros(1, *before)).flatten()
            found.append((matrix.detach().cpu().double().numpy(), added.cpu().double().numpy()))
        return found

    def _crossed(self, one: Question, steps: list[Array]) -> Tensor:
        """x0 after the first of a few steps that the model decides as sought; else x0."""
        for step in steps:
            moved = torch.from_numpy(step).to(one.x0.device).reshape(one.x0.shape)
            point = one.threat.domain.clamp((one.x0.double() + moved).to(one.x0.dtype))
            answer = one.model.prediction(one.model.scores(point))
            if int(answer) >= 0 and bool(one.sought[0, int(answer)]):
                return point
        return one.x0


@dataclass(frozen=True)
class _Sample:
    """One sample, and what each affine step multiplies with and adds."""

    layers: Layers
    question: Question
    matrices: Sequence[tuple[Array, Array] | None]

    def nearest(self, proven: float) -> tuple[float, list[Array]]:
        """A distance below which nothing is, and steps to the nearest point met and a little past it."""
        asked = self.question
        low, high = (side - asked.x0.flatten(1) for side in allowed(asked.x0, asked.threat.domain))
        room = torch.maximum(high, -low).double()
        width = float(torch.linalg.vector_norm(room, ord=ORDER[asked.norm]))
        radius = proven
        while radius < width:
            proven, radius = radius, min(width, GROWTH * radius)
            lower, steps = self._within(radius)
            if steps or lower < radius:
                return max(proven, lower * (1 - ROUNDING)), steps
        return np.inf, []

    def _within(self, radius: float) -> tuple[float, list[Array]]:
        """The same within a ball: its radius where nothing is in it."""
        asked = self.question
        eps = torch.full((1,), radius, dtype=torch.float64, device=asked.x0.device)
        relaxed = Relaxed(self.layers, Inputs.around(asked, eps, self.layers.dtype))
        with torch.no_grad():
            relaxed.bound_units()
        network = _Network.within(relaxed, self.matrices)
        rivals = (~asked.sought[0]).nonzero()[:, 0].tolist()
        lower, best = radius, radius
        steps: list[Array] = []
        for one in asked.sought[0].nonzero()[:, 0].tolist():
            bound, found = network.least(one, rivals, best, int(NODES * asked.effort))
            lower = min(lower, bound)
            if found:
                steps, best = found, min(best, float(np.linalg.norm(found[0], ord=ORDER[asked.norm])))
        return min(lower, best), steps


@dataclass
class _Network:
    """A network within a ball, over the step (d,), two variables for each open unit, and lengths.

    rows @ variables <= limit; low, high: of the variables, the second half of a unit's being whole numbers;
    values: what the input and each step are, as linear functions of the variables and what they add; sides:
    the variables that are whole numbers; guard: what the scores may be rounded by; radius: of the ball;
    taken: how many variables have a meaning so far.
    """

    features: int
    units: int
    low: Array
    high: Array
    values: list[tuple[Array, Array]]
    rows: list[Array]
    limit: list[Array]
    sides: list[int]
    guard: float
    radius: float
    taken: int

    @classmethod
    def within(cls, relaxed: Relaxed, matrices: Sequence[tuple[Array, Array] | None]) -> _Network:
        """From the ball and the bounds of its units."""
        inputs = relaxed.inputs
        d = inputs.ball.low.shape[1]
        lengths = 1 if inputs.ball.norm is Norm.LINF else d
        sides = {
            source: (_numbers(relaxed.low[source]), _numbers(relaxed.high[source])) for source in relaxed.low
        }
        relus = [step.inputs[0] for step in relaxed.layers.steps if step.kind == "relu"]
        units = sum(int(_open(*sides[source]).sum()) for source in relus)
        end = d + 2 * units
        low, high = np.zeros(end + lengths), np.ones(end + lengths)
        low[:d], high[:d], high[end:] = _numbers(inputs.ball.low), _numbers(inputs.ball.high), np.inf
        step, length = np.eye(d, end + lengths), np.zeros((d, end + lengths))
        length[np.arange(d), end + np.arange(d) % lengths] = 1.0  # no step is longer than its length
        radius = float(inputs.ball.eps.max())
        guard = GUARD * (1 + float(relaxed.scores.abs().max()))
        rows, limit = [step - length, -step - length], [np.zeros(d), np.zeros(d)]
        made = cls(d, units, low, high, [(step, _numbers(inputs.x0))], rows, limit, [], guard, radius, d)
        for number, part in enumerate(relaxed.layers.steps):
            slope, added = made.values[part.inputs[0]]
            multiplied = matrices[number]
            if multiplied is not None:
                made.values.append((multiplied[0] @ slope, multiplied[0] @ added + multiplied[1]))
            elif part.kind == "add":
                more = made.values[part.inputs[1]]
                made.values.append((slope + more[0], added + more[1]))
            else:
                made.values.append(made._rectified(part, *sides[part.inputs[0]]))
        return made

    def _rectified(self, step: Step, least: Array, most: Array) -> tuple[Array, Array]:
        """The result of a ReLU, with a variable and a side for each unit that may be on either."""
        slope, added = self.values[step.inputs[0]]
        factor = np.where(least >= 0, 1.0, step.slope)
        made, constant = factor[:, None] * slope, factor * added
        open_to = np.flatnonzero(_open(least, most))
        count = len(open_to)
        number = self.taken + np.arange(count)
        self.low[number], self.high[number] = step.slope * least[open_to], most[open_to]
        unit, side = (np.zeros((count, len(self.low))) for _ in range(2))
        unit[np.arange(count), number], side[np.arange(count), number + count] = 1.0, 1.0
        before, offset = slope[open_to], added[open_to]
        below, above = ((1 - step.slope) * end[open_to] for end in (least, most))
        # At least either line, and at most that of its side: 1 above 0, 0 below.
        self.rows += [before - unit, step.slope * before - unit]
        self.limit += [-offset, -step.slope * offset]
        self.rows += [
            unit - before - below[:, None] * side,
            unit - step.slope * before - above[:, None] * side,
        ]
        self.limit += [offset - below, step.slope * offset]
        self.sides += (number + count).tolist()
        self.taken += 2 * count
        made[open_to], constant[open_to] = unit, 0.0
        return made, constant

    def least(self, one: int, rivals: Sequence[int], cutoff: float, nodes: int) -> tuple[float, list[Array]]:
        """How long a step is at least that takes a class past its rivals; the cutoff where that is more.

        And the shortest one met, with others that go past by a little more than rounding.
        """
        found = self._solved(one, rivals, -self.guard, cutoff, nodes)
        if found.status == INFEASIBLE:
            return cutoff, []
        bound = found.mip_dual_bound
        known = bound is not None and np.isfinite(bound)
        proven = max(0.0, float(bound) * self.radius / SCALE) if known else 0.0
        if found.x is None:
            return min(proven, cutoff), []
        steps = [found.x]
        for times in PAST:  # with every unit on its side the rest is quickly solved
            held = replace(self, low=self.low.copy(), high=self.high.copy())
            held.low[self.sides] = held.high[self.sides] = np.round(found.x[self.sides])
            past = held._solved(one, rivals, times * self.guard, np.inf, nodes)
            steps += [] if past.x is None else [past.x]
        return min(proven, cutoff), [step[: self.features] for step in steps]

    def _solved(
        self, one: int, rivals: Sequence[int], margin: float, cutoff: float, nodes: int
    ) -> OptimizeResult:
        """The shortest step that takes a class past its rivals by a margin."""
        slope, added = self.values[-1]
        asked = [slope[rival] - slope[one] for rival in rivals]
        room = [added[one] - added[rival] - margin for rival in rivals]
        cost, whole = np.zeros(len(self.low)), np.zeros(len(self.low), dtype=np.int64)
        cost[self.features + 2 * self.units :], whole[self.sides] = 1.0, 1
        rows = np.vstack([*self.rows, *asked, cost])
        limit = np.concatenate([*self.limit, room, [min(cutoff, self.radius * self.features)]])
        # What a solver may miss is absolute: every variable and every row is given a size of about 1.
        low, high = self.low, np.where(np.isinf(self.high), self.radius, self.high)
        size = np.where(whole > 0, 1.0, np.maximum(np.abs(low), np.abs(high)))
        size[size == 0] = 1.0
        rows = rows * size
        largest = np.abs(rows).max(1).clip(1e-300)
        found: OptimizeResult = milp(
            cost * size * (SCALE / self.radius),
            constraints=LinearConstraint(sparse.csr_array(rows / largest[:, None]), -np.inf, limit / largest),
            bounds=Sides(low / size, np.where(np.isinf(self.high), np.inf, high / size)),
            integrality=whole,
            options={"node_limit": nodes, "mip_rel_gap": 1e-7},
        )
        if found.x is not None:
            found["x"] = found.x * size
        return found


def _numbers(part: Tensor) -> Array:
    """One sample's numbers (d,) float64."""
    found: Array = part.detach().flatten().cpu().double().numpy()
    return found


def _open(least: Array, most: Array) -> Array:
    """Which units may be on either side of 0."""
    found: Array = (least < 0) & (most > 0)
    return found
