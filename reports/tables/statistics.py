"""Intervals and tests for rates."""

from __future__ import annotations

import math

from scipy.stats import beta, binomtest

Z95 = 1.959963984540054


def wilson(successes: float, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson 1927); (0, 1) when nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    centre = rate + z * z / (2 * trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    low, high = ((centre + sign * half) / (1 + z * z / trials) for sign in (-1, 1))
    return low if successes else 0.0, high if successes < trials else 1.0


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a rate (Clopper & Pearson 1934); (0, 1) when nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, successes, trials - successes + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p that two rates on the same samples are equal (McNemar 1947)."""
    pairs = only_first + only_second
    return 1.0 if pairs == 0 else float(binomtest(only_first, pairs, 0.5).pvalue)
