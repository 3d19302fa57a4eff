"""All tables by name: functions from records to frames; they know nothing but the records."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from robustbench_lite.reports.costs import confidence, costs, queries
from robustbench_lite.reports.pairs import pairs
from robustbench_lite.reports.rates import (
    confusion,
    per_class,
    success,
    summary,
    transfer,
    winners,
    worst_case,
)
from robustbench_lite.reports.sizes import curves, distances, gaps

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
    "transfer": transfer,
}
