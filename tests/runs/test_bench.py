"""Times: what is counted is what was asked for, and is kept and compared."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from robustbench_lite.cli.main import main
from robustbench_lite.runs.bench import COLUMNS, beside, kept


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", "--samples", "30", "--rounds", "1", "--on", "cpu", *arguments])


def test_rows_say_what_was_done_and_files_are_compared(tmp_path: Path) -> None:
    file, figure = tmp_path / "times.json", tmp_path / "bars.png"
    said = run("--model", "linear", "--model", "tree", "--attack", "pgd:steps=5", "--attack", "noise:steps=3",
               "--out", str(file), "--figure", str(figure), "--json")  # fmt: skip
    assert said.exit_code == 0, said.output
    rows = pd.DataFrame(json.loads(said.stdout))
    assert list(rows.columns) == COLUMNS
    assert len(rows) == 4
    assert (rows["samples"] == 30).all()
    assert (rows[["images_per_second", "over_bare", "seconds"]] > 0).all(axis=None)
    passes = (rows["passes_per_second"] / rows["images_per_second"]).to_numpy()
    linear = passes[(rows["model"] == "linear").to_numpy()]
    right = linear[1] / 4  # the share that the model has right, each of which noise asks about four times
    assert linear[0] == pytest.approx(11 * right), "five forward and backward passes, and one more"
    assert figure.stat().st_size > 1000
    again = run("--model", "linear", "--attack", "pgd:steps=5", "--against", str(file))
    assert again.exit_code == 0, again.output
    assert "times as fast" in again.output


def test_times_are_compared_by_what_was_timed() -> None:
    now = pd.DataFrame({"model": ["a", "b"], "attack": "x", "threat": "t", "device": "cpu"})
    now = now.assign(images_per_second=[20.0, 20.0])
    before = now.iloc[:1].assign(images_per_second=5.0)
    assert beside(now, before)["times_as_fast"].fillna(-1).tolist() == [4.0, -1.0]


def test_what_cannot_be_timed_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("[]")
    for arguments, why in (
        (["--against", str(tmp_path / "no.json")], "holds no times"),
        (["--attack", "nonsense"], "nonsense"),
        (["--attack", "exact", "--model", "cnn"], "exact"),
    ):
        said = run(*arguments)
        assert said.exit_code == 2
        assert why in said.output
    with pytest.raises(Exception, match="holds no times"):
        kept(tmp_path / "absent.json")
