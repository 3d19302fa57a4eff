"""Tables from records made by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from robustbench_lite.reports.tables.rates import summary, worst_case
from robustbench_lite.reports.tables.sizes import gaps
from robustbench_lite.reports.tables.statistics import wilson
from tests.conftest import recorded


def cell(attack: str, distance: list[float], **columns: object) -> pd.DataFrame:
    """Records of one cell: four samples, the last of which the model has wrong by itself."""
    usual: dict[str, object] = {
        "model": "tree",
        "attack": attack,
        "threat": "l2:min",
        "goal": "untargeted",
        "sample_id": np.array([7, 3, 5, 9]),
        "label": 1,
        "clean_prediction": np.array([1, 1, 1, 0]),
        "success": np.array([d < math.inf for d in distance]),
        "valid": True,
        "l2": np.array([0.0 if d == math.inf else d for d in distance]),
        "linf": 0.1,
        "forwards": 1,
        "seconds": 0.5,
        "surrogate": False,
    }
    return recorded(usual | columns, 4)


def test_gaps_count_failures_as_infinite_and_mark_weak_surrogates() -> None:
    exact = cell(
        "exact", [1.0, 2.0, 4.0, math.inf], lower_bound=np.array([1.0, 2.0, 4.0, 0.0]), bound_kind="exact"
    )
    soft = cell("ddn", [1.5, 2.2, math.inf, math.inf], surrogate=True)
    fair = cell("fmn", [1.0, 2.1, 5.0, math.inf], surrogate=True)
    table = gaps(pd.concat([exact, soft, fair], ignore_index=True)).set_index("attack")
    assert table.loc["ddn", "samples"] == 3  # the one that was wrong before has no distance
    assert table.loc["ddn", "distance"] == 2.2
    assert table.loc["ddn", "exact"] == 2.0
    assert table.loc["ddn", "ratio"] == pytest.approx(1.1)
    assert table.loc["ddn", "gap"] == pytest.approx(0.5)
    assert table.loc["ddn", "gap_95"] == math.inf
    assert table["weak"].tolist() == [False, bool(table.loc["ddn", "ratio"] > 1.1), False]
    assert table.loc["exact", ["gap", "gap_95"]].tolist() == [0.0, 0.0]
    worse = cell("ddn", [1.5, 2.3, math.inf, math.inf], surrogate=True)
    assert gaps(pd.concat([exact, worse], ignore_index=True)).set_index("attack").loc["ddn", "weak"]
    assert gaps(soft).empty  # nothing is known
    assert gaps(cell("pgd", [0.1] * 4, eps=0.5)).empty  # a fixed eps has no smallest distance


def test_summary_and_worst_case_by_hand() -> None:
    one = cell("pgd", [1.0, math.inf, math.inf, math.inf], eps=1.0)
    two = cell("apgd", [math.inf, 1.0, math.inf, math.inf], eps=1.0)
    records = pd.concat([one, two], ignore_index=True)
    table = summary(records)
    assert table["clean"].tolist() == [0.75, 0.75]
    assert table["success"].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert table["robust"].tolist() == [0.5, 0.5]
    assert table[["low", "high"]].iloc[0].tolist() == pytest.approx(list(wilson(1, 3)))
    assert worst_case(records)["robust"].tolist() == [0.25]


def test_wilson_by_hand() -> None:
    """Carlini et al.'s and the textbook's figures."""
    assert wilson(500, 1000) == pytest.approx((0.469, 0.531), abs=1e-3)
    assert wilson(0, 100)[1] == pytest.approx(0.0370, abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
