"""The table of defenses, from records by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from robustbench_lite.reports.tables.defenses import defenses
from tests.conftest import recorded

COMMON: dict[str, object] = {
    "model": "jpeg(cnn)", "threat": "linf:0.1", "label": np.arange(4),
    "clean_prediction": np.array([0, 1, 2, 0]),
    "sample_id": np.arange(1, 5),
}  # fmt: skip


def rows(attack: str, broken: list[bool], goal: str = "untargeted", **more: object) -> pd.DataFrame:
    name = attack.partition("(")[0].partition(":")[0]
    columns = {
        **COMMON,
        "attack": attack,
        "attack_name": name,
        "success": np.array(broken),
        "goal": goal,
        **more,
    }
    return recorded(columns, 4)


def test_robust_accuracy_to_each_attacker() -> None:
    records = pd.concat(
        [
            rows("oblivious(pgd)", [True, False, False, False], "untargeted,stop=never",
                 zero_gradients=np.array([0, 3, 1, 0])),
            rows("pgd", [True, True, False, False]),
            rows("square:steps=10", [True, False, True, False]),
            rows("pgd", [False, True, False, False], source_model="cnn"),
            rows("auto", [True, True, True, False]),  # which uses gradients wherever there are any
        ]
    )  # fmt: skip
    (row,) = defenses(records).to_dict("records")
    assert (row["model"], row["threat"], row["goal"], row["samples"]) == (
        "jpeg(cnn)", "linf:0.1", "untargeted", 4,
    )  # fmt: skip
    assert row["clean"] == 0.75
    assert row["claimed"] == 0.5
    assert row["adaptive"] == 0.0
    assert row["black_box"] == 0.25
    assert row["transfer"] == 0.5
    assert row["apparent"] == 0.5
    assert row["zero_gradients"] == 0.5
    assert math.isnan(row["proven"])


def test_only_where_an_oblivious_attack_was_run() -> None:
    assert defenses(rows("pgd", [True] * 4)).empty
    (row,) = defenses(rows("oblivious(pgd)", [True, False, False, False])).to_dict("records")
    assert row["claimed"] == 0.5
    assert math.isnan(row["adaptive"])
    assert row["apparent"] != pytest.approx(0.0)
