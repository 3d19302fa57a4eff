"""One tree whose splits are chosen for the worst an linf adversary can do, under the exponential loss.

A sample whose interval x ± eps straddles a threshold goes to whichever side hurts more. For a split with
values w_l <= w_r that is the left side for positive samples and the right one for negative samples, so the
best values and their loss have a closed form, computed for all thresholds of a feature at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CANDIDATES = 256  # thresholds a feature that are tried
LARGEST = 2.0  # value of a leaf before shrinking


@dataclass(frozen=True)
class Samples:
    """What a tree learns from: low, high (n, d), the ends of what an adversary can reach of each feature;
    sign (n,) of the class, +1 or -1; weight (n,) by the exponential loss of what was learnt before."""

    low: np.ndarray
    high: np.ndarray
    sign: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Split:
    """Left where the feature is at most the threshold; the values of both sides, and the loss then."""

    feature: int
    threshold: float
    left: float
    right: float
    loss: float


@dataclass
class Grown:
    """A tree as lists of nodes: children (a leaf's own place), features, thresholds, values."""

    left: list[int]
    right: list[int]
    feature: list[int]
    threshold: list[float]
    value: list[float]

    @classmethod
    def leaf(cls, value: float) -> Grown:
        """A tree that says the same of everything."""
        return cls([0], [0], [0], [0.0], [value])

    def reached(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest value that an adversary can reach for each sample (n,)."""
        n = len(low)
        least, most = np.full(n, np.inf), np.full(n, -np.inf)
        waiting = [(0, np.arange(n), low, high)]
        while waiting:
            node, rows, down, up = waiting.pop()
            if self.left[node] == node:
                least[rows] = np.minimum(least[rows], self.value[node])
                most[rows] = np.maximum(most[rows], self.value[node])
                continue
            sides = divided(down, up, self.feature[node], self.threshold[node])
            for child, (goes, *ends) in zip((self.left[node], self.right[node]), sides, strict=True):
                waiting.append((child, rows[goes], ends[0], ends[1]))
        return least, most


Side = tuple[np.ndarray, np.ndarray, np.ndarray]


def divided(low: np.ndarray, high: np.ndarray, feature: int, threshold: float) -> tuple[Side, Side]:
    """Which samples reach either side of a split, and the ends of what they can reach there."""
    left, right = low[:, feature] <= threshold, high[:, feature] > threshold
    up, down = high[left].copy(), low[right].copy()
    up[:, feature] = np.minimum(up[:, feature], threshold)
    down[:, feature] = np.maximum(down[:, feature], np.nextafter(threshold, np.inf))
    return (left, low[left], up), (right, down, high[right])


def grow(samples: Samples, depth: int, smoothing: float) -> Grown:
    """A tree of a depth; smoothing: weight added to both classes of a leaf, a share of the whole."""
    extra = smoothing * samples.weight.sum()
    tree = Grown.leaf(_value(*_sums(samples), extra))
    waiting = [(0, samples, 0)]
    while waiting:
        node, held, level = waiting.pop(0)
        split = best_split(held, extra) if level < depth and len(held.sign) > 1 else None
        if split is None:
            continue
        f, t = split.feature, split.threshold
        tree.feature[node], tree.threshold[node] = f, t
        places = []
        sides = divided(held.low, held.high, f, t)
        for (goes, low, high), value in zip(sides, (split.left, split.right), strict=True):
            places.append(len(tree.left))
            for column, entry in (
                (tree.left, places[-1]), (tree.right, places[-1]), (tree.feature, 0),
                (tree.threshold, 0.0), (tree.value, value),
            ):  # fmt: skip
                column.append(entry)  # type: ignore[arg-type]
            there = Samples(low, high, held.sign[goes], held.weight[goes])
            waiting.append((places[-1], there, level + 1))
        tree.left[node], tree.right[node] = places
    return tree


def best_split(samples: Samples, extra: float) -> Split | None:
    """The split of the least worst-case loss over all features; None where none lowers it."""
    positive, negative = _sums(samples)
    best = Split(-1, 0.0, 0.0, 0.0, 2 * np.sqrt((positive + extra) * (negative + extra)) * (1 - 1e-6))
    found = best
    up = samples.sign > 0
    for f in range(samples.low.shape[1]):
        low, high = samples.low[:, f], samples.high[:, f]
        ends = np.unique(np.concatenate([low, high]))
        if len(ends) < 2:
            continue
        middle = between(ends)
        if not len(middle):
            continue
        if len(middle) > CANDIDATES:
            middle = middle[np.linspace(0, len(middle) - 1, CANDIDATES).astype(int)]
        sides = []
        for which in (up, ~up):
            weight = np.where(which, samples.weight, 0.0)
            surely_left = _below(high, weight, middle)
            surely_right = weight.sum() - _below(low, weight, middle)
            sides.append((surely_left, surely_right, weight.sum() - surely_left - surely_right))
        (left_up, right_up, torn_up), (left_down, right_down, torn_down) = sides
        for rising in (True, False):
            # Where the right value is the larger, torn positives end left and torn negatives right.
            a = (left_up + torn_up if rising else left_up) + extra
            b = (left_down if rising else left_down + torn_down) + extra
            c = (right_up if rising else right_up + torn_up) + extra
            d = (right_down + torn_down if rising else right_down) + extra
            w_left, w_right = 0.5 * np.log(a / b), 0.5 * np.log(c / d)
            loss = 2 * np.sqrt(a * b) + 2 * np.sqrt(c * d) - 2 * extra
            legal = (w_left <= w_right) if rising else (w_left >= w_right)
            loss = np.where(legal, loss, np.inf)
            i = int(loss.argmin())
            if loss[i] < found.loss:
                left, right = (float(np.clip(w[i], -LARGEST, LARGEST)) for w in (w_left, w_right))
                found = Split(f, float(middle[i]), left, right, float(loss[i]))
    return None if found is best else found


def between(ends: np.ndarray) -> np.ndarray:
    """Thresholds between neighbours of sorted values, as a tree holds them: in float32.

    Of each the lower neighbour is at most it and the upper one above it; neighbours that float32 does not
    tell apart have none.
    """
    middle = ((ends[1:] + ends[:-1]) / 2).astype(np.float32)
    below = np.nextafter(middle, np.float32(-np.inf))
    middle = np.where(middle >= ends[1:], below, middle).astype(np.float64)
    found: np.ndarray = middle[(ends[:-1] <= middle) & (middle < ends[1:])]
    return found


def _below(values: np.ndarray, weight: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """The weight of values at most each limit."""
    order = values.argsort(kind="stable")
    total = np.concatenate([[0.0], weight[order].cumsum()])
    found: np.ndarray = total[np.searchsorted(values[order], limits, side="right")]
    return found


def _sums(samples: Samples) -> tuple[float, float]:
    up = samples.sign > 0
    return float(samples.weight[up].sum()), float(samples.weight[~up].sum())


def _value(positive: float, negative: float, extra: float) -> float:
    if positive + negative + extra == 0:
        return 0.0
    raw = 0.5 * np.log((positive + extra + 1e-12) / (negative + extra + 1e-12))
    return float(np.clip(raw, -LARGEST, LARGEST))
