"""`robust verify`: what a run claims is judged again, and what does not hold is named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from robustbench_lite.cli.main import main
from robustbench_lite.core.npz import read_arrays, write_arrays
from robustbench_lite.records.schema import read, write
from tests.conftest import run_with


def verified(folder: Path) -> tuple[pd.DataFrame, int]:
    answer: Result = CliRunner().invoke(main, ["verify", str(folder), "--json"], catch_exceptions=False)
    return pd.DataFrame(json.loads(answer.stdout)), answer.exit_code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "run"
    run_with(
        "digits", out=out, models=["logistic", "linear"], attacks=["fgsm"], threats=["linf:0.1"], samples=40
    )
    return out


def points_of(folder: Path, table: pd.DataFrame, cell: int) -> Path:
    """The file of a cell's points, told by how many there are."""
    records = {file.stem: pd.read_parquet(file) for file in (folder / "records").glob("*.parquet")}
    name = str(table["job"][cell]).split(" ")[0]
    (key,) = (key for key, one in records.items() if one["model"].iloc[0] == name)
    return folder / "adversarial" / f"{key}.npz"


def test_what_holds_is_confirmed_every_one(folder: Path) -> None:
    table, status = verified(folder)
    assert status == 0
    records = pd.concat(map(pd.read_parquet, (folder / "records").glob("*.parquet")))
    assert table["confirmed"].sum() == records["success"].sum() > 40
    assert table["refuted"].sum() == table["cannot_be_judged"].sum() == 0
    assert (table["told"] == "").all()


@pytest.mark.parametrize(
    ("attack", "threat", "goal"),
    [("pgd:steps=5", "rotation:30", "untargeted"), ("pgd:steps=5", "linf:0.2", "random"),
     ("exact", "l2:min", "untargeted"), ("pgd:steps=5", "linf:0.2", "top:3")],
)  # fmt: skip
def test_every_kind_of_claim_can_be_judged(tmp_path: Path, attack: str, threat: str, goal: str) -> None:
    out = tmp_path / "run"
    made = {"attacks": [attack], "threats": [threat], "goals": [goal]}
    run_with("digits", out=out, models=["logistic"], samples=30, **made)
    table, status = verified(out)
    assert status == 0
    assert table["confirmed"].sum() == table["successes"].sum() > 0


@pytest.mark.parametrize("how", ["undone", "too_far", "nearer"])
def test_a_point_that_was_changed_is_refuted_by_name(folder: Path, how: str) -> None:
    table, _ = verified(folder)
    file = points_of(folder, table, 0)
    arrays = read_arrays(file)
    changed = arrays["adversarial"].copy()
    changed[3] = {"undone": 0.5 + 0 * changed[3], "too_far": 1 - changed[3], "nearer": changed[4]}[how]
    write_arrays(file, {**arrays, "adversarial": changed})
    table, status = verified(folder)
    assert status == 1
    assert table["refuted"].tolist() == [1, 0]
    assert table["told"][0] == f"refuted: samples {arrays['ids'][3]}"


def test_what_cannot_be_read_or_is_not_there_is_told(folder: Path) -> None:
    table, _ = verified(folder)
    points_of(folder, table, 0).write_bytes(b"no archive")
    points = points_of(folder, table, 1)
    arrays = read_arrays(points)
    write_arrays(points, {"ids": arrays["ids"][1:], "adversarial": arrays["adversarial"][1:]})
    table, status = verified(folder)
    assert status == 0  # what is there holds
    assert table["told"][0].startswith("what it stored cannot be read")
    assert table["cannot_be_judged"].tolist() == [table["successes"][0], 1]
    (folder / "records" / f"{points.stem}.parquet").unlink()
    assert verified(folder)[0]["told"].tolist()[1:] == ["no records"]


def test_another_model_is_told(folder: Path) -> None:
    """The claims are of the model that the config names now; that it is another is said."""
    records = {file: pd.read_parquet(file) for file in (folder / "records").glob("*.parquet")}
    for file, one in records.items():
        one.assign(fingerprint="f" * 24).to_parquet(file)
    table, _ = verified(folder)
    assert (table["told"] == "the data or the models are not those that the run had").all()
    assert np.array_equal(table["confirmed"], table["successes"])  # they are the same, but for their name


def test_what_broke_another_model_is_judged_on_that(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_with("digits", out=out, models=["svm", "tree"], attacks=["fgsm"], threats=["linf:0.1"], samples=40,
             transfer=True)  # fmt: skip
    records = pd.concat(map(pd.read_parquet, (out / "records").glob("*.parquet")))
    moved = records["source_model"].notna() & records["success"]
    own = records.loc[records["source_model"].isna()].set_index(["model", "sample_id"])["success"]
    alone = [
        not own[source, sample]
        for source, sample in records.loc[moved, ["source_model", "sample_id"]].to_numpy()
    ]
    assert any(alone), "something broke the other model only"
    table, status = verified(out)
    assert status == 0
    assert table["confirmed"].sum() == records["success"].sum()
    assert table["cannot_be_judged"].sum() == 0


def rewritten(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    for file in (folder / "records").glob("*.parquet"):
        write(change(read([file])), file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.assign(threat="linf:0.001", eps=0.001), "threat, eps"),
        (lambda r: r.assign(model="another"), "the samples of"),
        (lambda r: r.assign(seed=7), "seed"),
        (lambda r: r.iloc[1:], "the samples of"),
        (lambda r: r.assign(outcome="wrong", success=False), "says without an attack"),
        (lambda r: r.assign(attack="magic"), "attack"),
    ],
)
def test_records_that_are_not_their_jobs_are_refuted(
    folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    rewritten(folder, change)
    table, status = verified(folder)
    assert status == 1
    assert (table["refuted"] > 0).all()
    assert table["told"].str.contains(said).all()


def test_records_of_no_job_are_refuted(folder: Path) -> None:
    file = next((folder / "records").glob("*.parquet"))
    (folder / "records" / "zzz.parquet").write_bytes(file.read_bytes())
    notes = json.loads((folder / "notes.json").read_text())
    notes["jobs"].append("zzz")
    (folder / "notes.json").write_text(json.dumps(notes))
    table, status = verified(folder)
    assert status == 1
    assert table["told"].iloc[-1] == "records of no job that the config names"
    assert table["refuted"].iloc[-1] == 40


def test_a_target_is_what_the_goal_says_and_not_what_a_record_says(tmp_path: Path) -> None:
    names = {"models": ["logistic"], "attacks": ["fgsm"], "threats": ["linf:0.3"], "samples": 30}
    run_with("digits", out=tmp_path / "free", **names)
    run_with("digits", out=tmp_path / "aimed", goals=["least_likely"], **names)
    (points,) = (tmp_path / "free" / "adversarial").glob("*.npz")
    (aimed,) = (tmp_path / "aimed" / "adversarial").glob("*.npz")
    before = verified(tmp_path / "aimed")[0]["confirmed"].sum()
    aimed.write_bytes(points.read_bytes())
    free = pd.read_parquet(next((tmp_path / "free" / "records").glob("*.parquet"))).set_index("sample_id")
    claimed = ["success", "adversarial_prediction", "distance"]

    def forged(records: pd.DataFrame) -> pd.DataFrame:
        theirs = free.loc[records["sample_id"]].reset_index()
        return records.assign(target=theirs["adversarial_prediction"], **{c: theirs[c] for c in claimed})

    rewritten(tmp_path / "aimed", forged)
    table, status = verified(tmp_path / "aimed")
    assert status == 1
    assert table["confirmed"].sum() <= before < table["refuted"].sum()
