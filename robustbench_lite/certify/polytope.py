"""The smallest step into an intersection of half-spaces, inside a box: one program a sample, by SciPy.

Least squares by the least-distance programme of Lawson & Hanson 1974 (chapter 23), linear and integer
programmes by HiGHS.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp, nnls

from robustbench_lite.core.threat import Norm

Array = np.ndarray


def smallest_step(
    normals: Array, need: Array, low: Array, high: Array, norm: Norm, pixel: Array
) -> Array | None:
    """The smallest delta (d,) with normals @ delta >= need, low <= delta <= high; None where there is none.

    normals (m, d), need (m,), low <= 0 <= high (d,); pixel (d,): the pixel of each feature, for l0.
    """
    free = np.flatnonzero(low < high)
    delta = np.zeros(len(low))
    if (need <= 0).all():
        return delta
    part = (normals[:, free], need, low[free], high[free])
    match norm:
        case Norm.LINF:
            found = _linf(*part)
        case Norm.L1:
            found = _l1(*part)
        case Norm.L2:
            found = _l2(*part)
        case Norm.L0:
            found = _l0(*part, np.unique(pixel[free], return_inverse=True)[1])
    if found is None:
        return None
    delta[free] = np.clip(found, low[free], high[free])
    return delta


def _linf(normals: Array, need: Array, low: Array, high: Array) -> Array | None:
    """Over (delta, t): the least t with -t <= delta <= t."""
    d = len(low)
    one, unit = np.ones((d, 1)), np.eye(d)
    rows = np.block([[normals, np.zeros((len(need), 1))], [-unit, one], [unit, one]])
    least = np.concatenate([need, np.zeros(2 * d)])
    found = _solve(np.append(np.zeros(d), 1.0), rows, least, np.append(low, 0.0), np.append(high, np.inf))
    return None if found is None else found[:d]


def _l1(normals: Array, need: Array, low: Array, high: Array) -> Array | None:
    """Over (up, down), delta = up - down: the least sum."""
    d = len(low)
    rows = np.hstack([normals, -normals])
    found = _solve(np.ones(2 * d), rows, need, np.zeros(2 * d), np.concatenate([high, -low]))
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


def _l0(normals: Array, need: Array, low: Array, high: Array, pixel: Array) -> Array | None:
    """Over (delta, changed): the fewest changed pixels, delta within its box where its pixel is changed."""
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
    whole = np.append(np.zeros(d), np.ones(count))
    bounds = np.append(low, np.zeros(count)), np.append(high, np.ones(count))
    found = _solve(whole, rows, least, *bounds, whole)
    return None if found is None else np.where(owner @ found[d:] > 0.5, found[:d], 0.0)


def _solve(
    cost: Array, rows: Array, least: Array, low: Array, high: Array, whole: Array | None = None
) -> Array | None:
    """The cheapest v with rows @ v >= least and low <= v <= high; whole: 1 where v is a whole number."""
    constraint = LinearConstraint(rows, least, np.inf)
    found = milp(cost, constraints=constraint, bounds=Bounds(low, high), integrality=whole)
    solution: Array | None = found.x
    return solution
