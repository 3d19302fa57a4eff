"""The leaderboard as one page that needs no server."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from robustbench_lite.reports.format import interval
from robustbench_lite.reports.page.page import sheet, template

HIDDEN = [  # what the heading or another column says, or nobody knows
    "data", "threat", "goal", "norm", "extra_data", "architecture", "low", "high",
]  # fmt: skip


def board(table: pd.DataFrame, notes: Sequence[str], title: str = "Leaderboard") -> str:
    """The page of ranked models as HTML.

    Parameters
    ----------
    table : DataFrame
        What `leaderboard` returns.
    notes : sequence of str
        What was left out, and why; what a rank means.
    title : str, default "Leaderboard"
    """
    parts = [
        (f"{data}, {threat}" + ("" if goal == "untargeted" else f", {goal}"), part)
        for (data, threat, goal), part in table.groupby(["data", "threat", "goal"], sort=False)
    ]
    sheets = [
        sheet(f"board_{number}", head, _shown(part), False) for number, (head, part) in enumerate(parts)
    ]
    return template("board.html").render(title=title, sheets=sheets, notes=notes)


def _shown(part: pd.DataFrame) -> pd.DataFrame:
    shown = part.drop(columns=HIDDEN)
    intervals = [interval(low, high) for low, high in zip(part["low"], part["high"], strict=True)]
    shown.insert(list(shown.columns).index("best_known") + 1, "95 %", intervals)
    return shown
