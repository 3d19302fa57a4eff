"""The table of corruptions by hand, and a run of nothing else."""

from pathlib import Path

import pandas as pd
import pytest

import robustbench_lite as rb
from robustbench_lite.reports.tables.corruptions import corruptions
from tests.conftest import recorded, run_with


def errors_of(kind: str, severity: int, wrong: list[bool]) -> pd.DataFrame:
    """Records of four samples of class 0, the last of which the model has wrong by itself."""
    return recorded(
        {
            "model": "m", "attack": f"corruption:kind={kind}", "goal": "untargeted", "threat": "box",
            "parameters": f'{{"kind": "{kind}", "severity": {severity}}}',
            "sample_id": pd.RangeIndex(4).to_numpy(), "label": 0,
            "clean_prediction": pd.Series([0, 0, 0, 1]).to_numpy(),
            "adversarial_prediction": pd.Series(wrong).astype(int).to_numpy(),
            "success": pd.Series([*wrong[:3], False]).to_numpy(), "job": f"{kind} {severity}",
        },
        4,
    )  # fmt: skip


def test_errors_count_every_sample_and_the_mean_is_that_of_corruptions() -> None:
    records = pd.concat(
        [
            errors_of("fog", 1, [False, False, False, False]),
            errors_of("fog", 5, [True, True, False, True]),
            errors_of("contrast", 5, [True, True, True, True]),
        ]
    )
    table = corruptions(records).set_index("corruption")
    assert list(table.index) == ["mean", "fog", "contrast"]
    assert set(table["clean_error"]) == {0.25}
    assert table.loc["fog", ["severity_1", "severity_5", "error"]].tolist() == [0, 0.75, 0.375]
    assert table.loc["contrast", "error"] == 1
    assert table.loc["mean", ["severity_1", "severity_5"]].tolist() == [0, 0.875]
    assert table.loc["mean", "error"] == pytest.approx((0.375 + 1) / 2)
    assert table["severity_2"].isna().all()


def test_corruptions_stand_in_no_table_of_attacks(tmp_path: Path) -> None:
    named = ["corruption:kind=contrast,severity=5", "corruption:kind=fog"]
    result = run_with("digits", ["logistic"], named, ["box"], 60, out=tmp_path)
    assert len(result.table("summary")) == len(result.table("worst_case")) == 0
    table = result.table("corruptions")
    assert (table["error"] >= table["clean_error"]).all()
    page = (tmp_path / "report.html").read_text()
    assert "Errors on corrupted samples" in page
    again = rb.Results.open(tmp_path)
    assert again.table("corruptions").equals(table)


def test_the_suite_names_every_corruption_at_every_severity() -> None:
    from robustbench_lite.attacks.corruptions.corruption import KINDS
    from robustbench_lite.runs.suite import read_suite

    cells = [cell.attack for cell in read_suite("corruptions").cells]
    for kind in KINDS:
        for severity in range(1, 6):
            assert f"corruption:kind={kind},severity={severity}" in cells
