"""The table of refusals, from records by hand, and of a run on detectors at two rates."""

import numpy as np
import pandas as pd
import pytest

from robustbench_lite.reports.figures import plots
from robustbench_lite.reports.tables.rejections import rejections
from tests.conftest import recorded, run_with


def rows(model: str, **more: object) -> pd.DataFrame:
    columns: dict[str, object] = {
        "model": model,
        "attack": "pgd",
        "attack_name": "pgd",
        "threat": "linf:0.1",
        "goal": "untargeted",
        "sample_id": np.arange(5),
        "label": 0,
        "clean_prediction": np.array([3, 0, 0, 0, 0]),
        "clean_rejected": np.array([True, False, False, False, False]),
        "success": np.array([False, True, True, False, False]),
        "outcome": np.array(["wrong", "broken", "broken", "rejected", "held"], dtype=object),
        **more,
    }
    return recorded(columns, 5)


def test_what_is_refused_and_what_passes() -> None:
    left = np.array(["wrong", "unattacked", "unattacked", "unattacked", "held"], dtype=object)
    records = pd.concat(
        [
            rows("magnet(cnn,rate=0.2)"),
            rows("magnet(cnn,sigma=0.1,rate=0.01)", outcome=left, success=np.zeros(5, dtype=bool)),
            rows("cnn", clean_rejected=None),
            rows("magnet(cnn)", goal="untargeted,rejection=success"),
        ]
    )
    one, other = rejections(records).to_dict("records")
    assert (one["detector"], one["model"]) == ("magnet(cnn)", "magnet(cnn,rate=0.2)")
    assert one["false_rejections"] == 0.2
    assert (one["passed"], one["refused"], one["held"]) == (0.5, 0.25, 0.25)
    assert other["detector"] == "magnet(cnn,sigma=0.1)"
    assert (other["passed"], other["refused"], other["held"]) == (0.0, 0.0, 1.0)  # of those attacked
    assert rejections(rows("cnn", clean_rejected=None)).empty


def test_a_run_on_detectors_draws_their_trade_off() -> None:
    models = ["mahalanobis(conv_small,rate=0.02)", "mahalanobis(conv_small,rate=0.5)"]
    result = run_with("digits", [*models, "linear"], ["pgd:steps=10"], ["linf:0.15"], 60)
    table = result.table("rejections")
    assert list(table["model"]) == models
    assert table["detector"].nunique() == 1
    few, many = table["false_rejections"]
    assert few < 0.2 < many
    assert table["passed"].iloc[0] > table["passed"].iloc[1]
    assert np.allclose(table[["passed", "refused", "held"]].sum(axis=1), 1.0)
    records = result.records
    assert records.loc[records["model"] == "linear", "clean_rejected"].isna().all()
    (axes,) = (one for one in plots.rejections(table).axes if one.lines)
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[few, table["passed"].iloc[0]], [many, table["passed"].iloc[1]]]  # type: ignore[union-attr]
    assert result.table("summary")["clean"].iloc[1] == pytest.approx(1 - many, abs=0.1)
