"""All tables by name: functions from records to frames; they know nothing but the records."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import pandas as pd

from robustbench_lite.reports.tables.answers import answers
from robustbench_lite.reports.tables.corruptions import corruptions
from robustbench_lite.reports.tables.costs import confidence, costs, queries
from robustbench_lite.reports.tables.defenses import defenses
from robustbench_lite.reports.tables.pairs import pairs
from robustbench_lite.reports.tables.rates import (
    confusion,
    per_class,
    success,
    summary,
    transfer,
    winners,
    worst_case,
)
from robustbench_lite.reports.tables.rejections import rejections
from robustbench_lite.reports.tables.sizes import curves, distances, gaps, missed

RATES = {
    "clean", "success", "low", "high", "cp_low", "cp_high", "robust", "proven", "by_transfer", "of_broken",
    "zero_gradients", "eight_bit", "gap", "gap_95", "above", "missed", "autoattack", "best_known",
    "originals_right", "still_broken", "destroyed", "clean_error", "error",
    "severity_1", "severity_2", "severity_3", "severity_4", "severity_5",
    "clean_wrong", "wrong", "clean_iou", "iou", "clean_edits", "edits",
    "before", "after", "median_after", "claimed", "adaptive", "transfer", "black_box", "apparent",
    "false_rejections", "passed", "refused", "held",
}  # fmt: skip

# Counts of what rarely is: a page leaves them out where nothing is.
RARE = {"invalid", "rejected", "nan", "unattacked", "doubtful", "by_transfer", "left_out"}


class Styled(pd.DataFrame):
    """A frame that a notebook shows as the page would: rates in percent, the rest to three digits."""

    @property
    def _constructor(self) -> type[Styled]:
        return Styled

    def _repr_html_(self) -> str:
        rates: dict[Hashable, Callable[[object], str] | str | None] = {
            head: "{:.1%}" for head in self.columns if head in RATES
        }
        styled = self.style.format(rates, precision=3, na_rep="–", escape="html").hide(axis="index")
        return str(styled.to_html())


TABLES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "summary": summary,
    "worst_case": worst_case,
    "success": success,
    "distances": distances,
    "confidence": confidence,
    "costs": costs,
    "per_class": per_class,
    "confusion": confusion,
    "curves": curves,
    "queries": queries,
    "pairs": pairs,
    "winners": winners,
    "gaps": gaps,
    "missed": missed,
    "transfer": transfer,
    "defenses": defenses,
    "rejections": rejections,
    "corruptions": corruptions,
    "answers": answers,
}
