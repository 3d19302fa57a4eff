"""Networks of rectified units: linear bounds carried backwards to the input (CROWN).

Below every ReLU that may be either side of 0 lies a line, and above it a chord; with them a lower bound of a
margin becomes a linear function of an earlier step, and at last of the input, where its least value in the
ball is known (Zhang et al. 2018, theorem 3.2). The bounds of a unit are found the same way, where intervals
leave it open. The slopes of the lower lines are free up to 1, and are chosen by gradient for the margins (Xu
et al. 2021, section 3.1). Where that is not enough, the units that cost most are taken on either side of 0
apart, every combination a case of its own, and the sides enter with multipliers of theirs (Wang et al. 2021,
arXiv:2103.06624, theorem 3.1). The largest eps at which all margins are above 0 is found by false position.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.certify.ball import Ball, pixels_of
from robustbench_lite.certify.certifier import ORDER, Bounds, Question, counts_choices
from robustbench_lite.certify.leaves import allowed
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.structure import Layers, Product, Taken, outcome, outcomes
from robustbench_lite.core.threat import Norm, Threat

UNITS = 8000  # rectified, above which no bounds are computed
ROOM = 1 << 24  # numbers held at once
FIRST = 2.0**-8  # of the box: where the search begins
GROWTH = (1.2, 3.0)  # of eps until a margin fails, at least and at most
SHORT = 0.7  # of where a margin would fail if it fell evenly
LESS = 2.0**-3  # of eps where the first fails
TRIES = 16
FEW_TRIES = 2  # at little effort
CLOSE = 0.01  # relative: what is left between proven and failed
ROUGH = 0.1  # the same for networks of more than `FEW` units, whose slopes are not improved
FEW = 512
LEAST = 0.25  # effort from which networks of more than `FEW` units are tried
LITTLE = 0.5  # effort below which few sizes are tried, of those on some of the samples
SOME = 80  # of them for each unit of effort
SLOPES = 12  # steps of gradient for the slopes, at the usual effort
RATE = 0.1  # of those steps
STRETCH = 1.01  # by which eps grows while better slopes prove more
SPLIT = 4  # units taken on either side, at the usual effort
TOGETHER = 3  # margins of a sample that units are split for, at most
ROUNDED = 64  # units in the last place of what was summed up, that rounding may have added
GUARD = 1e-5  # of the scores: what the model's own rounding may be


class NetworkBounds:
    """A sound distance for feed-forward networks of rectified units."""

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        """None for networks whose steps are known, under a norm, if they are not too large."""
        held = model.structure
        if not isinstance(held, Layers) or threat.norm is None:
            return f"{model.name} is no network of known steps under a norm"
        return why_not(model) or counts_choices(threat)

    def bounds(self, question: Question) -> Bounds:
        """The largest eps at which no margin can fall to 0."""
        held, x0 = question.model.structure, question.x0
        assert isinstance(held, Layers)
        size = max(1, ROOM // (64 * max(1, units_of(held))))
        most = len(x0)
        if units_of(held) > FEW and question.effort < LITTLE:
            most = int(SOME * question.effort) if question.effort >= LEAST else 0
        rows = torch.split(torch.arange(min(most, len(x0)), device=x0.device), size)
        distance = torch.full((len(x0),), torch.nan, dtype=torch.float64, device=x0.device)
        for number, part in enumerate(rows):
            question.progress(number / len(rows))
            if not len(part):
                break
            batch = _Batch(held, question[part])
            distance[part] = batch.fewest() if question.norm is Norm.L0 else batch.largest()
        return Bounds(distance, torch.zeros_like(distance, dtype=torch.bool), "linear relaxation")


def why_not(model: Model) -> str:
    """Why linear bounds of a network are not sought: an unknown step, or too many units; else empty."""
    held = model.structure
    if not isinstance(held, Layers):
        return model.unread
    units = units_of(held)
    return f"it has {units} rectified units; linear bounds end at {UNITS}" if units > UNITS else ""


def units_of(layers: Layers) -> int:
    """How many rectified units a network has."""
    x = torch.zeros(1, *layers.shape, dtype=layers.dtype, device=layers.device)
    with torch.no_grad():
        values = outcomes(layers, x)
    return sum(v.numel() for step, v in zip(layers.steps, values[1:], strict=True) if step.kind == "relu")


@dataclass
class _Batch:
    """Samples whose bounds are looked for together."""

    layers: Layers
    question: Question
    margins: Tensor = field(init=False)
    open: Tensor = field(init=False)

    def __post_init__(self) -> None:
        asked = self.question
        classes = asked.model.num_classes
        own = torch.nn.functional.one_hot(asked.y, classes).double()
        every = torch.eye(classes, dtype=torch.float64, device=asked.y.device)
        self.margins = (own[:, None] - every).to(self.layers.dtype)  # (n, K, K): the score of y less each
        self.open = asked.sought

    def fewest(self) -> Tensor:
        """The number of pixels (n,) float64 below which nothing is adversarial: one after the other."""
        rows = torch.arange(len(self.question.y), device=self.question.y.device)
        proven = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        pixels = self.question.threat.domain.pixels(self.question.x0[:1]).shape[1]
        steps = int(SLOPES * self.question.effort) * (units_of(self.layers) <= FEW)
        for count in range(1, pixels + 1):
            if not len(rows):
                break
            proven[rows] = float(count)  # a sample that the model has right needs one, and so on
            least = self._least(rows, torch.full((len(rows),), float(count)).to(proven), steps)
            rows = rows[least > 0]
            if count == 1 and len(rows):  # what all pixels together cannot change needs no counting
                every = self._least(rows, torch.full((len(rows),), float(pixels)).to(proven)) > 0
                proven[rows[every]], rows = torch.inf, rows[~every]
        return proven

    def largest(self) -> Tensor:
        """The largest eps found (n,) float64."""
        x0 = self.question.x0
        low, high = allowed(x0, self.question.threat.domain)
        n = len(x0)
        ends = torch.linalg.vector_norm((high - low).double(), ord=ORDER[self.question.norm], dim=1)
        width = float(ends.amax())  # beyond which there is nothing
        proven = torch.zeros(n, dtype=torch.float64, device=x0.device)
        failed = torch.full_like(proven, torch.inf)
        above, below = proven.clone(), proven.clone()  # the least margins there
        eps = torch.full_like(proven, width * FIRST)
        rows = torch.arange(n, device=x0.device)
        small = units_of(self.layers) <= FEW
        close = CLOSE if small else ROUGH
        whole = self._least(rows, torch.zeros_like(eps))
        for _ in range(FEW_TRIES if self.question.effort < LITTLE and not small else TRIES):
            if not len(rows):
                break
            least = self._least(rows, eps[rows])
            holds = least > 0
            won, lost = rows[holds], rows[~holds]
            proven[won], above[won] = eps[won], least[holds]
            failed[lost], below[lost] = eps[lost], least[~holds]
            between = (above / (above - below).clamp_min(1e-30)).clamp(0.15, 0.85)
            inside = proven + (failed - proven) * torch.where(proven > 0, between, LESS)
            root = eps * whole / (whole - above).clamp_min(1e-30)  # where the line through the first is 0
            further = torch.minimum(torch.maximum(SHORT * root, eps * GROWTH[0]), eps * GROWTH[1])
            eps = torch.where(failed.isfinite(), inside, further)
            done = (
                (failed - proven <= close * proven) | (proven >= width) | (failed <= width * FIRST * LESS**4)
            )
            rows = (~done).nonzero()[:, 0]
        steps = int(SLOPES * self.question.effort) * small
        rows = ((proven > 0) & (proven < width)).nonzero()[:, 0]
        for split in dict.fromkeys((0, int(SPLIT * self.question.effort))):
            more = rows
            while steps and len(more):
                eps = proven[more] * STRETCH
                holds = self._least(more, eps, steps, split) > 0
                proven[more[holds]] = eps[holds]
                more = more[holds & (eps < width)]
        return torch.where(proven >= width, torch.inf, proven)

    def _least(self, rows: Tensor, eps: Tensor, steps: int = 0, split: int = 0) -> Tensor:
        """What every margin is proven to be above 0 by within eps (m,), but for rounding.

        split: units that are taken on either side where a margin is not proven otherwise.
        """
        relaxed = Relaxed(self.layers, Inputs.around(self.question[rows], eps, self.layers.dtype))
        with torch.no_grad():
            relaxed.bound_units()
            guard = GUARD * (1 + relaxed.scores.abs().amax(1, keepdim=True))
        least = relaxed.lower(self.margins[rows], steps, guard, self.open[rows])
        if split and relaxed.low:  # a network without units is linear
            least = self._split(relaxed, rows, least, steps, guard, split)
        least = least - guard
        return torch.where(self.open[rows], least, torch.inf).amin(1).double()

    def _split(
        self, relaxed: Relaxed, rows: Tensor, least: Tensor, steps: int, guard: Tensor, split: int
    ) -> Tensor:
        """Bounds (m, K) of margins, those that are not above the guard improved in cases, if they are few."""
        failing = self.open[rows] & (least <= guard)
        few = (failing.any(1) & (failing.sum(1) <= TOGETHER)).nonzero()[:, 0]
        if not len(few):
            return least
        count = int(failing[few].sum(1).max())
        worst = torch.where(failing[few], least[few], torch.inf).topk(count, largest=False).indices
        margins = self.margins[rows[few]].gather(1, worst[..., None].expand(-1, -1, self.margins.shape[2]))
        asked = failing[few].gather(1, worst)
        size = max(1, ROOM // (4 * 2**split * count * max(1, units_of(self.layers))))
        for part in torch.split(torch.arange(len(few), device=few.device), size):
            chosen = few[part]
            cases, signs = relaxed.of_rows(chosen).in_cases(margins[part], split)
            times = signs.shape[0] // len(part)
            found = cases.lower(
                margins[part].repeat_interleave(times, 0), steps, guard[chosen].repeat_interleave(times, 0),
                asked[part].repeat_interleave(times, 0), signs,
            ).view(len(part), times, count).amin(1)  # fmt: skip
            better = torch.where(asked[part], found, -torch.inf)
            least[chosen] = least[chosen].scatter_reduce(1, worst[part], better, "amax")
        return least


@dataclass(frozen=True)
class Inputs:
    """What the steps of a ball make of x0 (n, …)."""

    x0: Tensor
    ball: Ball

    @classmethod
    def around(cls, question: Question, eps: Tensor, dtype: torch.dtype) -> Inputs:
        """Within eps (n,), a little more against rounding, and what the domain allows."""
        x0, domain = question.x0.flatten(1).double(), question.threat.domain
        low, high = (side.double() - x0 for side in allowed(question.x0, domain))
        eps = eps if question.norm is Norm.L0 else eps * (1 + 4 * torch.finfo(dtype).eps)
        low, high, eps = (part.to(dtype) for part in (low, high, eps))
        ball = Ball.within(low, high, eps, question.norm, pixels_of(domain, question.x0))
        return cls(question.x0.to(dtype), ball)

    def __getitem__(self, rows: Tensor) -> Inputs:
        return Inputs(self.x0[rows], self.ball[rows])

    @property
    def sides(self) -> tuple[Tensor, Tensor]:
        """low <= x <= high, each (n, …)."""
        return self.x0 + self.ball.low.view_as(self.x0), self.x0 + self.ball.high.view_as(self.x0)

    def least(self, slope: Tensor) -> Tensor:
        """The least value of slope (n, S, …) · x (n, S)."""
        flat = slope.flatten(2)
        return (flat * self.x0.flatten(1)[:, None]).sum(2) + self.ball.least(flat)


@dataclass
class Relaxed:
    """A network over balls: the bounds of each step that a ReLU takes, and of linear functions of its end."""

    layers: Layers
    inputs: Inputs
    low: dict[int, Tensor] = field(default_factory=dict)
    high: dict[int, Tensor] = field(default_factory=dict)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    scores: Tensor = field(init=False)

    def bound_units(self) -> None:
        """Intervals first; where they leave a unit open, linear bounds of that unit."""
        self.shapes[0] = tuple(self.inputs.x0.shape[1:])
        values: list[Tensor] = [self.inputs.x0]
        low, high = ([side] for side in self.inputs.sides)
        for number, step in enumerate(self.layers.steps, start=1):
            values.append(outcome(step, values))
            if step.kind == "relu":
                source = step.inputs[0]
                if source not in self.low:
                    self._tighten(source, low, high)
                ends = [outcome(step, side) for side in (low, high)]
            elif step.kind == "add":
                ends = [outcome(step, side) for side in (low, high)]
            else:
                assert step.affine is not None
                assert step.magnitude is not None
                source = step.inputs[0]
                centre, radius = (low[source] + high[source]) / 2, (high[source] - low[source]) / 2
                middle, far = step.affine(centre), step.magnitude(radius)
                summed = step.magnitude(centre.abs()) + middle.abs() + far
                far = far + ROUNDED * torch.finfo(far.dtype).eps * summed
                ends = [middle - far, middle + far]
            low.append(ends[0])
            high.append(ends[1])
            self.shapes[number] = tuple(values[-1].shape[1:])
        self.scores = values[-1]

    def _tighten(self, source: int, low: list[Tensor], high: list[Tensor]) -> None:
        """Bounds of a step that a ReLU takes, better ones for the units that are open."""
        least, most = low[source].flatten(1).clone(), high[source].flatten(1).clone()
        shape = low[source].shape
        if self.inputs.ball.norm is not Norm.LINF or self._several(source):
            open_to = (least < 0) & (most > 0)
            count = int(open_to.sum(1).max())
            size = max(1, ROOM // (8 * max(1, count * least.shape[1])))
            for rows in torch.split(torch.arange(len(least), device=least.device), size if count else 1):
                units = open_to[rows].byte().topk(max(1, count), dim=1).indices  # those that are not open too
                slope = torch.zeros(len(rows), 2 * units.shape[1], least.shape[1]).to(least)
                both = torch.cat([units, units], 1)[..., None]
                sign = torch.ones_like(both, dtype=least.dtype)
                sign[:, units.shape[1] :] = -1.0
                slope.scatter_(2, both, sign)
                found = self.of_rows(rows).backwards(source, slope.reshape(*slope.shape[:2], *shape[1:]))
                below, above = found[:, : units.shape[1]], -found[:, units.shape[1] :]
                at = rows[:, None]
                least[at, units] = torch.maximum(least[at, units], below)
                most[at, units] = torch.minimum(most[at, units], above)
        low[source], high[source] = least.reshape(shape), most.reshape(shape)
        self.low[source], self.high[source] = low[source], high[source]

    def _several(self, source: int) -> bool:
        """Whether a step has a ReLU before it: without one, intervals are exact but for sums of one input."""
        waiting, seen = [source], set()
        while waiting:
            number = waiting.pop()
            if number == 0 or number in seen:
                continue
            seen.add(number)
            step = self.layers.steps[number - 1]
            if step.kind in ("relu", "add"):
                return True
            waiting += step.inputs
        return len(seen) > 1

    def of_rows(self, rows: Tensor) -> Relaxed:
        """The same for some of the samples."""
        low, high = ({k: v[rows] for k, v in part.items()} for part in (self.low, self.high))
        return Relaxed(self.layers, self.inputs[rows], low, high, self.shapes)

    def in_cases(self, margins: Tensor, count: int) -> tuple[Relaxed, Tensor]:
        """Each row 2^count times, its most costly open units on every combination of sides.

        And the sides (n · 2^count, units): 1 above 0, -1 below, 0 for units that are not taken apart; the
        units of all ReLUs in the order of `low`.
        """
        costs: dict[int, Tensor] = {}
        with torch.no_grad():
            self.backwards(len(self.layers.steps), margins, costs=costs)
            sources = list(self.low)
            cost = torch.cat([costs[source].flatten(1) for source in sources], 1)
            n, units = cost.shape
            chosen = cost.topk(min(count, units), dim=1).indices
            taken = cost.gather(1, chosen) > 0  # no other unit is open
            cases = 2 ** chosen.shape[1]
            bits = (torch.arange(cases)[:, None] >> torch.arange(chosen.shape[1])) & 1
            side = (2 * bits - 1).to(cost)[None] * taken[:, None]
            signs = torch.zeros(n, cases, units, dtype=cost.dtype, device=cost.device)
            signs.scatter_(2, chosen[:, None].expand(-1, cases, -1), side)
            signs = signs.flatten(0, 1)
            each = torch.arange(n, device=cost.device).repeat_interleave(cases)
            made, begin = self.of_rows(each), 0
            for source in sources:
                shape = made.low[source].shape
                size = made.low[source][0].numel()
                here = signs[:, begin : begin + size].view(shape)
                begin += size
                made.low[source] = torch.where(here > 0, 0.0, made.low[source])
                made.high[source] = torch.where(here < 0, 0.0, made.high[source])
        return made, signs

    def lower(
        self, margins: Tensor, steps: int, enough: Tensor, open_to: Tensor, signs: Tensor | None = None
    ) -> Tensor:
        """A lower bound of margins (n, S, K) @ scores (n, S), the slopes improved by gradient.

        signs (n, units): the side that units are known to be on, as `in_cases` gives them.
        """
        end = len(self.layers.steps)
        if not steps:
            with torch.no_grad():
                return self.backwards(end, margins)
        slopes: dict[int, Tensor] = {}
        least_slope: dict[int, float] = {}
        for step in self.layers.steps:
            if step.kind == "relu":
                source = step.inputs[0]
                least_slope[source] = max(step.slope, least_slope.get(source, 0.0))
                lower = (self.high[source] > -self.low[source]).to(margins)
                wide = lower[:, None].expand(-1, margins.shape[1], *lower.shape[1:]).clone()
                slopes[source] = wide.clamp(step.slope, 1.0).requires_grad_()
        if not slopes:
            with torch.no_grad():
                return self.backwards(end, margins)
        best = torch.full(margins.shape[:2], -torch.inf, dtype=margins.dtype, device=margins.device)
        weights: list[Tensor] = []
        places: list[Tensor] = []
        groups = [{"params": list(slopes.values()), "lr": RATE}]
        if signs is not None:
            sides, which = signs.abs().topk(int((signs != 0).sum(1).max().clamp_min(1)), dim=1)
            places = [which, signs.gather(1, which) * sides]
            weights = [torch.zeros(*margins.shape[:2], which.shape[1]).to(margins).requires_grad_()]
            scale = margins.abs().amax()
            groups.append({"params": weights, "lr": float(RATE * scale)})
        optimiser = torch.optim.Adam(groups)
        for _ in range(steps):
            with torch.enable_grad():
                least = self.backwards(end, margins, slopes, self._sides(weights, places))
                loss = -torch.where(open_to, least, 0.0).sum()
            best = torch.maximum(best, least.detach())
            if bool((torch.where(open_to, best, torch.inf) > enough).all()):
                break
            free = [*slopes.values(), *weights]
            for held, gradient in zip(free, torch.autograd.grad(loss, free), strict=True):
                held.grad = gradient
            optimiser.step()
            with torch.no_grad():
                for source, held in slopes.items():
                    held.clamp_(least_slope[source], 1.0)
                for held in weights:
                    held.clamp_(min=0.0)
        return best

    def _sides(self, weights: list[Tensor], places: list[Tensor]) -> dict[int, Tensor] | None:
        """What multipliers (n, S, k) of the sides of units add to the slopes of each step that a ReLU takes.

        On its side, sign times a unit's value is at least 0: a multiple of it may be taken off every margin.
        """
        if not weights:
            return None
        which, side = places
        sizes = {source: value[0].numel() for source, value in self.low.items()}
        n, count = weights[0].shape[:2]
        whole = torch.zeros(n, count, sum(sizes.values())).to(weights[0])
        whole = whole.scatter(2, which[:, None].expand(-1, count, -1), -weights[0] * side[:, None])
        parts = torch.split(whole, list(sizes.values()), 2)
        return {
            source: part.reshape(n, count, *self.low[source].shape[1:])
            for source, part in zip(sizes, parts, strict=True)
        }

    def backwards(
        self,
        end: int,
        slope: Tensor,
        slopes: dict[int, Tensor] | None = None,
        sides: dict[int, Tensor] | None = None,
        costs: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """A lower bound of slope (n, S, …) · the result of a step, over the balls (n, S).

        slopes: of the lines below open units; sides: what is added to the slopes of steps that ReLUs take;
        costs: is told, for each of these steps, how much its units' lines may cost the bound (n, …).
        """
        held: dict[int, Tensor] = {end: slope}
        constant = torch.zeros(slope.shape[:2], dtype=slope.dtype, device=slope.device)
        size = torch.zeros_like(constant)
        for number in range(end, 0, -1):
            if number not in held:
                continue
            part, step = held.pop(number), self.layers.steps[number - 1]
            if step.kind == "add":
                for source in step.inputs:
                    held[source] = held[source] + part if source in held else part
                continue
            source = step.inputs[0]
            if step.kind == "relu":
                if costs is not None:
                    costs[source] = costs.get(source, 0.0) + self._costs(source, step.slope, part)
                part, more, summed = self._through_relu(source, step.slope, part, slopes)
                if sides is not None:
                    part = part + sides[source]
            else:
                assert step.affine is not None
                part, more, summed = _through_affine(step.affine, part, self.shapes[source])
            constant, size = constant + more, size + summed
            held[source] = held[source] + part if source in held else part
        low, high = self.inputs.sides
        most = torch.maximum(low.abs(), high.abs()).flatten(1)[:, None]
        size = size + (held[0].detach().flatten(2).abs() * most).sum(2)
        # What the sums were rounded by grows with what was summed up, and less than this.
        return constant + self.inputs.least(held[0]) - size * ROUNDED * torch.finfo(slope.dtype).eps

    def _costs(self, source: int, slope: float, part: Tensor) -> Tensor:
        """How far the line that a margin (n, S, …) meets may lie from each open unit, over all margins."""
        low, high = self.low[source], self.high[source]
        open_to = (low < 0) & (high > 0)
        apart = -low * high / (high - low).clamp_min(1e-30) * (1 - slope)
        return torch.where(open_to, apart * part.abs().sum(1), 0.0)

    def _through_relu(
        self, source: int, slope: float, part: Tensor, slopes: dict[int, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        low, high = self.low[source][:, None], self.high[source][:, None]
        open_to = (low < 0) & (high > 0)
        chord = torch.where(open_to, (high - slope * low) / (high - low).clamp_min(1e-30), 0.0)
        above = torch.where(open_to, high * (1 - chord), 0.0)
        plain = torch.where(high > -low, 1.0, slope).to(part)
        free = plain if slopes is None else slopes[source]
        fixed = torch.where(low >= 0, 1.0, slope).to(part)
        below = torch.where(open_to, free, fixed)
        upper = torch.where(open_to, chord, fixed)
        falling = part.clamp_max(0)
        more = (falling.flatten(2) @ above.flatten(2).mT)[..., 0]
        return torch.addcmul(part * below, falling, upper - below), more, -more.detach()


def _through_affine(
    affine: Callable[[Tensor], Tensor], part: Tensor, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Linear functions (n, S, …) of what an affine step returns as those of what it takes.

    And what they add (n, S), with the size of the numbers that it was summed up from.
    """
    n, count = part.shape[:2]
    with torch.no_grad():
        still = affine(torch.zeros(1, *shape, dtype=part.dtype, device=part.device))
    added = part.flatten(2) * still.flatten()
    before = transposed(affine, part.flatten(0, 1), shape)
    return before.reshape(n, count, *shape), added.sum(2), added.detach().abs().sum(2)


def transposed(affine: Callable[[Tensor], Tensor], part: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The transpose of an affine step without what it adds, on (m, …)."""
    if isinstance(affine, nn.Linear | Product):
        matrix = affine.weight if isinstance(affine, nn.Linear) else affine.matrix
        return part @ matrix
    if isinstance(affine, nn.Conv2d):
        short = [
            size - ((out - 1) * stride - 2 * pad + dilation * (kernel - 1) + 1)
            for size, out, stride, pad, dilation, kernel in zip(
                shape[1:], part.shape[2:], affine.stride, _padding(affine), affine.dilation,
                affine.kernel_size, strict=True,
            )
        ]  # fmt: skip
        return functional.conv_transpose2d(
            part, affine.weight, None, affine.stride, _padding(affine), short, affine.groups, affine.dilation
        )
    if isinstance(affine, Taken) and len(torch.unique(affine.order)) == len(affine.order):
        before = part.new_zeros(len(part), math.prod(shape))
        return before.index_copy(1, affine.order, part.flatten(1) * affine.unit).reshape(-1, *shape)
    with torch.enable_grad():
        x = torch.zeros(len(part), *shape, dtype=part.dtype, device=part.device, requires_grad=True)
        (before,) = torch.autograd.grad(affine(x), x, part, create_graph=part.requires_grad)
    return before


def _padding(layer: nn.Conv2d) -> tuple[int, int]:
    """Zeros at each side."""
    if layer.padding == "valid":
        return 0, 0
    if isinstance(layer.padding, str):  # same: odd kernels alone are padded alike on both sides
        tall, wide = (d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        return tall, wide
    return int(layer.padding[0]), int(layer.padding[1])
