"""How numbers are written: once, for the terminal, the page, Markdown and LaTeX."""

from __future__ import annotations

import math


def percent(rate: float) -> str:
    """A rate in percent, where the head of a table says so: 38.2."""
    return "–" if not math.isfinite(rate) else f"{100 * rate:.1f}"


def share(rate: float) -> str:
    """A rate in a sentence: 38.2 %."""
    return "–" if not math.isfinite(rate) else f"{percent(rate)} %"


def number(value: float) -> str:
    """A size to three digits."""
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.3g}"


def interval(low: float, high: float) -> str:
    """An interval of rates in whole percent: 34–42."""
    return f"{100 * low:.0f}–{100 * high:.0f}"


def proven_to(proven: float, attacked: float) -> str:
    """What is proven, and what attacks left: 15.4–18.2; one number where they meet."""
    if not math.isfinite(proven):
        return percent(attacked)
    low, high = percent(proven), percent(attacked)
    return low if low == high else f"{low}–{high}"


def printable(text: str) -> str:
    """Text without what steers a terminal: control characters and turns of the writing's direction."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def cell(value: object) -> object:
    """A cell for a spreadsheet: text that would be taken for a formula is quoted."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r") else value
