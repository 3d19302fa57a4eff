"""The smallest step into an intersection of half-spaces, inside a box: one program a sample, by SciPy.

Least squares by the least-distance programme of Lawson & Hanson 1974 (chapter 23), linear and integer
programmes by HiGHS; least squares over whole steps by outer approximation (Duran & Grossmann 1986).
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp, nnls

from robustbench_lite.core.threat import Norm

Array = np.ndarray
NEAR = range(-2, 4)  # whole numbers about the answer without steps, whose squares are told from the first
NODES = 1000  # of branch and bound, at most, of each programme of whole steps
INFEASIBLE = 2  # SciPy's status where there is no point at all
TOLERANCE = 1e-7  # relative, of squared lengths


def smallest_step(
    normals: Array, need: Array, low: Array, high: Array, norm: Norm, pixel: Array, unit: Array
) -> Array | None:
    """The smallest delta (d,) with normals @ delta >= need in the box; None where there is none.

    normals (m, d), need (m,), low <= 0 <= high (d,); pixel (d,): the pixel of each feature, for l0. unit
    (d,): the size of a feature's steps, 0 where it has none.
    """
    free = np.flatnonzero(low < high)
    delta = np.zeros(len(low))
    if (need <= 0).all():
        return delta
    if not len(free):
        return None
    # In steps a feature is a whole number, within the whole numbers that the box leaves.
    whole = unit[free] > 0
    scale = np.where(whole, unit[free], 1.0)
    least, most = low[free] / scale, high[free] / scale
    least, most = np.where(whole, np.ceil(least - 1e-3), least), np.where(whole, np.floor(most + 1e-3), most)
    part = (normals[:, free] * scale, need, least, most, scale, whole.astype(float))
    match norm:
        case Norm.LINF:
            found = _linf(*part)
        case Norm.L1:
            found = _l1(*part)
        case Norm.L2:
            found = _l2_in_steps(*part) if whole.any() else _l2(*part[:4])
        case Norm.L0:
            found = _l0(*part, np.unique(pixel[free], return_inverse=True)[1])
    if found is None:
        return None
    found = np.where(whole, np.round(found), found)
    delta[free] = np.clip(found, least, most) * scale
    return delta


def _linf(normals: Array, need: Array, low: Array, high: Array, scale: Array, whole: Array) -> Array | None:
    """Over (steps, t): the least t with -t <= scale · steps <= t."""
    d = len(low)
    one, unit = np.ones((d, 1)), np.diag(scale)
    rows = np.block([[normals, np.zeros((len(need), 1))], [-unit, one], [unit, one]])
    least = np.concatenate([need, np.zeros(2 * d)])
    bounds = np.append(low, 0.0), np.append(high, np.inf)
    found = _solve(np.append(np.zeros(d), 1.0), rows, least, *bounds, np.append(whole, 0.0))
    return None if found is None else found[:d]


def _l1(normals: Array, need: Array, low: Array, high: Array, scale: Array, whole: Array) -> Array | None:
    """Over (up, down), steps = up - down: the least sum."""
    d = len(low)
    rows = np.hstack([normals, -normals])
    cost, either = np.append(scale, scale), np.append(whole, whole)
    found = _solve(cost, rows, need, np.zeros(2 * d), np.concatenate([high, -low]), either)
    return None if found is None else found[:d] - found[d:]


def _l2(normals: Array, need: Array, low: Array, high: Array) -> Array | None:
    unit = np.eye(len(low))
    rows, limit = np.vstack([normals, unit, -unit]), np.concatenate([need, low, -high])
    size = np.linalg.norm(rows, axis=1).clip(1e-300)  # of one length, the rows weigh alike
    system = np.vstack([rows.T, limit]) / size
    goal = np.append(np.zeros(len(low)), 1.0)
    weights, distance = nnls(system, goal)
    residual = goal - system @ weights
    return None if distance < 1e-10 else -residual[:-1] / residual[-1]


def _l2_in_steps(
    normals: Array, need: Array, low: Array, high: Array, scale: Array, whole: Array
) -> Array | None:
    """Over (steps, squares): the least sum of squares, which stay above lines that touch them.

    Between two whole numbers the line through their squares loses nothing; elsewhere a tangent is added where
    the last programme came to stand. Its whole numbers given, the rest is solved as it is; when the same ones
    come again, no others are better.
    """
    d = len(low)
    start = _l2_relaxed(normals, need, low, high, scale)
    if start is None:
        return None
    lines = [_lines(start + np.where(whole > 0, k, 0), whole) for k in NEAR]
    tried: set[bytes] = set()
    best, found = np.inf, None
    while True:
        slope, drop = (np.concatenate(part) for part in zip(*lines, strict=True))
        below = np.tile(np.arange(d), len(lines))
        place = np.arange(len(slope))
        touching = (
            sparse.csr_array((-slope, (place, below))),
            sparse.csr_array((place * 0 + 1.0, (place, below))),
        )
        asked = sparse.csr_array(normals), sparse.csr_array((len(need), d))
        rows = sparse.vstack([sparse.hstack(asked), sparse.hstack(touching)])
        cost = np.append(np.zeros(d), np.square(scale))
        bounds = np.append(low, np.zeros(d)), np.append(high, np.full(d, np.inf))
        solved = _solve(cost, rows, np.append(need, -drop), *bounds, np.append(whole, np.zeros(d)))
        if solved is None:
            return found
        steps = np.where(whole > 0, np.round(solved[:d]), solved[:d])
        least, most = (np.where(whole > 0, steps, side) for side in (low, high))
        relaxed = _l2_relaxed(normals, need, least, most, scale)
        steps = steps if relaxed is None else relaxed
        value = float(np.square(scale * steps).sum())
        if value < best:
            best, found = value, steps
        key = steps[whole > 0].tobytes()
        if key in tried or best <= float(cost @ solved) * (1 + TOLERANCE):
            return found
        tried.add(key)
        lines += [_lines(steps, whole), _lines(steps - whole, whole)]


def _lines(at: Array, whole: Array) -> tuple[Array, Array]:
    """Slope and drop (d,) of lines below the squares: through two whole numbers, or touching at one point."""
    first = np.floor(at)
    slope = np.where(whole > 0, 2 * first + 1, 2 * at)
    return slope, np.where(whole > 0, first * (first + 1), np.square(at))


def _l2_relaxed(normals: Array, need: Array, low: Array, high: Array, scale: Array) -> Array | None:
    """Over steps of any size: the shortest scale · steps within the box, which need not hold 0."""
    # The nearest point of the box to 0 is where the least-distance programme starts from.
    base: Array = np.clip(0.0, low, high)
    unit = np.eye(len(low))
    rows = np.vstack([normals / scale, unit, -unit])
    limit = np.concatenate([need, low * scale, -high * scale])
    size = np.linalg.norm(rows, axis=1).clip(1e-300)
    if (normals @ base >= need).all():
        return base
    system = np.vstack([rows.T, limit]) / size
    goal = np.append(np.zeros(len(low)), 1.0)
    weights, distance = nnls(system, goal, maxiter=100 * system.shape[1])
    residual = goal - system @ weights
    if distance < 1e-10:
        return None
    relaxed: Array = np.clip(-residual[:-1] / residual[-1] / scale, low, high)
    return relaxed


def _l0(
    normals: Array, need: Array, low: Array, high: Array, scale: Array, whole: Array, pixel: Array
) -> Array | None:
    """Over (steps, changed): the fewest changed pixels, steps within their box where the pixel is changed."""
    d, count = len(low), int(pixel.max()) + 1
    owner = np.eye(count)[pixel]
    unit = np.eye(d)
    rows = np.block(
        [
            [normals, np.zeros((len(need), count))],
            [-unit, owner * high[:, None]],
            [unit, -owner * low[:, None]],
        ]
    )
    least = np.concatenate([need, np.zeros(2 * d)])
    cost = np.append(np.zeros(d), np.ones(count))
    bounds = np.append(low, np.zeros(count)), np.append(high, np.ones(count))
    found = _solve(cost, rows, least, *bounds, np.append(whole, np.ones(count)), limited=bool(whole.any()))
    return None if found is None else np.where(owner @ found[d:] > 0.5, found[:d], 0.0)


def _solve(
    cost: Array,
    rows: Array | sparse.csr_array,
    least: Array,
    low: Array,
    high: Array,
    whole: Array,
    limited: bool = True,
) -> Array | None:
    """The cheapest v with rows @ v >= least and low <= v <= high; whole: 1 where v is a whole number.

    limited: whether it may end early; what bounds are made of may not.
    """
    found = milp(
        cost,
        constraints=LinearConstraint(rows, least, np.inf),
        bounds=Bounds(low, high),
        integrality=whole if whole.any() else None,
        options={"mip_rel_gap": 0.0, **({"node_limit": NODES} if limited else {})},
    )
    solution: Array | None = found.x
    if not found.success and found.status != INFEASIBLE:  # a fixed text, which Python prints once
        warnings.warn(
            f"a programme over whole steps was left after {NODES} branches: the nearest point seen is kept, "
            "and is not proven to be the nearest",
            stacklevel=2,
        )
    return solution
