"""Sums of trees as a programme of whole numbers: the nearest point of another class in any norm.

A number of 0 or 1 for each cell between two thresholds says whether the point lies in it, one for each leaf
whether the point falls into it (after Kantchelian, Tygar & Joseph 2016, section 3, who have one for each
threshold). Cells and leaves further away than a point that is known are left out beforehand. Solved by HiGHS.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from robustbench_lite.core.threat import Norm

Array = np.ndarray
INFEASIBLE = 2  # SciPy's status where there is no point at all
SCALE = 1e4  # of the objective: HiGHS leaves branches that gain less than 1e-6, and calls it proven


@dataclass(frozen=True)
class Forest:
    """The leaves of trees (L, …): tree, value of the difference that is sought to be at least 0.

    feature, low, high (L, D): for each leaf the features it looks at, with low < x <= high; `features` fills
    up. start: what is added to every sum.
    """

    tree: Array
    value: Array
    feature: Array
    low: Array
    high: Array
    start: float
    features: int


@dataclass(frozen=True)
class Limits:
    """leaves: in reach, above which nothing is tried; nodes: of branch and bound."""

    leaves: int
    nodes: int


@dataclass(frozen=True)
class Cut:
    """Where one sample may go: for each cell (C,) its feature, end and cost; pixel (d,) for l0."""

    feature: Array
    end: Array
    cost: Array
    pixel: Array


@dataclass(frozen=True)
class Answer:
    """The cells chosen, one a feature that has any (None: no point was met), their cost, a bound of any."""

    cells: Array | None
    cost: float
    bound: float


def solve(forest: Forest, cut: Cut, norm: Norm, limits: Limits, cutoff: float) -> Answer:
    """The cheapest choice of cells whose leaves sum up to at least 0.

    Parameters
    ----------
    forest : Forest
    cut : Cut
        Cells in order of their ends within each feature; those that cannot be chosen cost inf.
    norm : Norm
        Costs are distances (linf, l1, l0) or their squares (l2).
    limits : Limits
    cutoff : float
        What a point that is known costs.

    Returns
    -------
    Answer
        A bound of inf: none costs as little as the cutoff; of 0: nothing was proven.
    """
    keep = np.isfinite(cut.cost) & ((cut.cost <= cutoff) | (norm is Norm.L0))
    cells = np.flatnonzero(keep)
    feature = cut.feature[cells]
    begin = np.concatenate([[-np.inf], cut.end[:-1]])
    begin[np.concatenate([[True], cut.feature[1:] != cut.feature[:-1]])] = -np.inf
    reach_low = np.full(forest.features + 1, np.inf)
    reach_high = np.full_like(reach_low, -np.inf)
    reach_low[-1], reach_high[-1] = -np.inf, np.inf  # what fills up is always in reach
    np.minimum.at(reach_low, feature, begin[cells])
    np.maximum.at(reach_high, feature, cut.end[cells])
    inside = (forest.low < reach_high[forest.feature]) & (forest.high > reach_low[forest.feature])
    leaves = np.flatnonzero(inside.all(1))
    if len(leaves) > limits.leaves:
        return Answer(None, np.inf, 0.0)
    if len(np.unique(forest.tree[leaves])) < len(np.unique(forest.tree)):
        return Answer(None, np.inf, np.inf)
    number, count = np.unique(feature, return_inverse=True)
    c, m, g = len(cells), len(leaves), int(cut.pixel.max(initial=0)) + 1
    width = c + m + (g if norm is Norm.L0 else 1 if norm is Norm.LINF else 0)
    rows: list[sparse.csr_array] = []
    least: list[Array] = []
    most: list[Array] = []

    def add(part: sparse.csr_array, low: float | Array, high: float | Array) -> None:
        rows.append(part)
        least.append(np.broadcast_to(low, (part.shape[0],)))
        most.append(np.broadcast_to(high, (part.shape[0],)))

    def table(row: Array, column: Array, value: Array, height: int) -> sparse.csr_array:
        return sparse.csr_array((value, (row, column)), shape=(height, width))

    one = np.ones(c)
    add(table(count, np.arange(c), one, len(number)), 1, 1)  # one cell a feature
    tree, place = np.unique(forest.tree[leaves], return_inverse=True)
    add(table(place, c + np.arange(m), np.ones(m), len(tree)), 1, 1)  # one leaf a tree
    add(table(np.zeros(m, int), c + np.arange(m), forest.value[leaves], 1), -forest.start, np.inf)
    add(*_consistent(forest, cut, cells, leaves, begin, width))
    cost = np.zeros(width)
    longest = cutoff if np.isfinite(cutoff) else float(cut.cost[cells].max(initial=0.0))
    scale = 1.0 if norm is Norm.L0 or longest <= 0 else SCALE / longest
    own = cut.cost[cells] * scale
    if norm is Norm.LINF:
        cost[-1] = 1.0
        row = np.concatenate([count, np.arange(len(number))])
        column = np.concatenate([np.arange(c), np.full(len(number), width - 1)])
        value = np.concatenate([-own, np.ones(len(number))])
        add(table(row, column, value, len(number)), 0, np.inf)
    elif norm is Norm.L0:
        cost[c + m :] = 1.0
        row = np.concatenate([count, np.arange(len(number))])
        column = np.concatenate([np.arange(c), c + m + cut.pixel[number]])
        value = np.concatenate([-(own > 0).astype(float), np.ones(len(number))])
        add(table(row, column, value, len(number)), 0, np.inf)
    else:
        cost[:c] = own
    whole = np.zeros(width, dtype=np.int64)
    whole[:c] = 1
    top = np.ones(width)
    if norm is Norm.LINF:
        top[-1] = np.inf
    found = milp(
        cost,
        constraints=LinearConstraint(sparse.vstack(rows), np.concatenate(least), np.concatenate(most)),
        bounds=Bounds(np.zeros(width), top),
        integrality=whole,
        options={"node_limit": limits.nodes, "mip_rel_gap": 1e-9},
    )
    if found.status == INFEASIBLE:
        return Answer(None, np.inf, np.inf)
    bound = found.mip_dual_bound
    proven = 0.0 if bound is None or not np.isfinite(bound) else max(0.0, float(bound) / scale)
    if found.x is None:
        return Answer(None, np.inf, proven)
    chosen = cells[found.x[:c] > 0.5]
    return Answer(chosen, float(found.fun) / scale, proven)


def _consistent(
    forest: Forest, cut: Cut, cells: Array, leaves: Array, begin: Array, width: int
) -> tuple[sparse.csr_array, float, float]:
    """A leaf is only taken where the cells of its features lie in it, leaf by leaf summed over each tree.

    For each tree and feature and distinct interval that its leaves ask of it: the leaves of that interval
    together are at most the cells inside it.
    """
    c = len(cells)
    keys: dict[tuple[int, int, float, float], int] = {}
    row, column, value = [], [], []
    by_feature = {int(f): np.flatnonzero(cut.feature[cells] == f) for f in np.unique(cut.feature[cells])}
    for place, leaf in enumerate(leaves.tolist()):
        for f, low, high in zip(
            forest.feature[leaf].tolist(), forest.low[leaf].tolist(), forest.high[leaf].tolist(), strict=True
        ):
            if f not in by_feature:
                continue
            key = (int(forest.tree[leaf]), f, low, high)
            if key not in keys:
                keys[key] = len(keys)
                inside = by_feature[f]
                inside = inside[(begin[cells[inside]] >= low) & (cut.end[cells[inside]] <= high)]
                row += [keys[key]] * len(inside)
                column += inside.tolist()
                value += [1.0] * len(inside)
            row.append(keys[key])
            column.append(c + place)
            value.append(-1.0)
    part = sparse.csr_array((value, (row, column)), shape=(len(keys), width))
    return part, 0, np.inf
