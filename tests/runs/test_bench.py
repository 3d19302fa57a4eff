"""Times: what is counted is what was asked for, and is kept and compared."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from robustbench_lite.cli.main import main
from robustbench_lite.core.errors import InvalidParameter, RobustError
from robustbench_lite.runs import bench as benching
from robustbench_lite.runs import energy
from robustbench_lite.runs.bench import COLUMNS, beside, kept, regressions
from robustbench_lite.runs.forecast import forecast


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
    now = pd.DataFrame({"model": ["a", "b"], "attack": "x", "threat": "t", "device": "cpu", "asked": "auto"})
    now = now.assign(images_per_second=[20.0, 20.0], over_bare=[1.2, 1.2])
    before = now.iloc[:1].assign(images_per_second=5.0, over_bare=1.0)
    found = beside(now, before)
    assert found["times_as_fast"].fillna(-1).tolist() == [4.0, -1.0]
    assert regressions(found, 21.0) == []
    (line,) = regressions(found, 19.0)
    assert "a × x × t × cpu × auto: 1.2 times the bare passes, 1 before" in line


def test_what_cannot_be_timed_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("[]")
    for arguments, why in (
        (["--against", str(tmp_path / "no.json")], "holds no times"),
        (["--attack", "nonsense"], "nonsense"),
        (["--worse", "5"], "--worse needs --against"),
        (["--attack", "exact", "--model", "cnn"], "exact"),
    ):
        said = run(*arguments)
        assert said.exit_code == 2
        assert why in said.output
    with pytest.raises(Exception, match="holds no times"):
        kept(tmp_path / "absent.json")


def test_every_precision_is_timed_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "ABLATED", tuple(one for one in benching.ABLATED if not one[1]))
    figure = tmp_path / "bars.png"
    said = run("--model", "cnn", "--attack", "pgd:steps=9", "--ablate", "--figure", str(figure), "--json")
    assert said.exit_code == 0, said.output
    rows = pd.DataFrame(json.loads(said.stdout))
    assert rows["asked"].tolist() == ["float32, not compiled", "bfloat16, not compiled"]  # no TF32 here
    assert rows["precision"].tolist() == ["float32", "bfloat16"]
    assert figure.stat().st_size > 1000


def times(models: int, rate: float, passes: float = 3000.0) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"model": f"model {i}", "attack": "auto", "threat": "t", "device": "cuda", "asked": "auto",
             "images_per_second": rate * (i + 1), "passes_per_second": rate * (i + 1) * passes}
            for i in range(models)
        ]
    )  # fmt: skip


def test_imagenet_on_64_gpus_by_calculation() -> None:
    found = forecast(times(12, 0.5), 50_000, 64, price=2.5)
    alone = sum(50_000 / (0.5 * (i + 1)) for i in range(12)) / 3600
    assert found.device_hours == pytest.approx(alone)
    assert found.cost == pytest.approx(2.5 * alone)
    assert (found.table["passes"] - 3000 * 50_000).abs().max() < 1
    longest = 2000 / 0.5 / 3600  # a slice of the slowest model
    assert alone / 64 <= found.hours <= alone / 64 + longest
    assert forecast(times(12, 0.5), 50_000, 1).hours == pytest.approx(alone)


def test_what_a_run_takes_is_told_from_what_was_timed(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    run("--model", "linear", "--attack", "pgd:steps=5", "--out", str(file))
    said = CliRunner().invoke(
        main, ["plan", str(file), "--samples", "100000", "--devices", "8", "--price", "3", "--json"]
    )
    assert said.exit_code == 0, said.output
    answer = json.loads(said.stdout)
    row = kept(file).iloc[0]
    assert answer["device_hours"] == pytest.approx(100_000 / row["images_per_second"] / 3600)
    assert answer["device_hours"] / 8 <= answer["hours"] < answer["device_hours"]
    shown = CliRunner().invoke(main, ["plan", str(file), "--samples", "1000", "--on", "cpu"])
    assert "judging, bounds and loading come on top" in shown.output
    absent = CliRunner().invoke(main, ["plan", str(file), "--samples", "1000", "--on", "cuda"])
    assert absent.exit_code == 2
    assert "no times of cuda" in absent.output


def test_what_cannot_be_forecast_is_said() -> None:
    both = pd.concat([times(1, 1.0), times(1, 1.0).assign(device="cpu")])
    with pytest.raises(RobustError, match="device: cuda; cpu; choose one"):
        forecast(both, 10, 1)
    twice = pd.concat([times(1, 1.0), times(1, 2.0).assign(asked="float32")])
    with pytest.raises(RobustError, match="asked: auto; float32; choose one"):
        forecast(twice, 10, 1)
    with pytest.raises(InvalidParameter, match="price"):
        forecast(times(1, 1.0), 10, 1, -1.0)


def test_energy_is_read_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    cpu = torch.device("cpu")
    assert math.isnan(energy.joules(cpu))
    for name, value in (("intel-rapl:0", 2_000_000), ("intel-rapl:1", 3_500_000), ("intel-rapl:0:0", 9)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
    before = energy.joules(cpu)
    assert before == 5.5
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("4500000\n")
    assert energy.used(before, energy.joules(cpu)) == 1.0
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("1\n")
    assert math.isnan(energy.used(before, energy.joules(cpu))), "the counter began anew"
