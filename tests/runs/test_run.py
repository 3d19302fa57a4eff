"""A run as a user makes one: plan, records, resume, failures, and the command line end to end."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import robustbench_lite as rb
from robustbench_lite.cli.main import main
from robustbench_lite.core.errors import RobustError, UnknownName, Unsupported
from robustbench_lite.demo import ten_numbers
from robustbench_lite.engines import engine
from robustbench_lite.records.folder import Folder
from robustbench_lite.records.schema import read as read_records
from robustbench_lite.runs.config import Config, as_toml, make, read
from robustbench_lite.runs.plan import Subject, plan
from tests.conftest import attack_with, run_with


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def few(out: Path | None = None, **options: object) -> rb.Results:
    settings: dict[str, object] = {
        "models": ["logistic"],
        "attacks": ["fgsm", "iterative:steps=5"],
        "threats": ["linf:0.1"],
        "samples": 40,
    }
    return run_with("digits", out=out, **(settings | options))  # type: ignore[arg-type]


def test_a_folder_holds_everything(tmp_path: Path) -> None:
    result = few(tmp_path / "r", threats=["linf:0.1", "l2:0.5"], eight_bit=True)
    assert result.path == tmp_path / "r"
    assert len(result.records) == 4 * 40
    assert len(list((tmp_path / "r" / "records").glob("*.parquet"))) == 4
    settings = tomllib.loads((tmp_path / "r" / "config.toml").read_text())
    assert settings["attacks"] == ["fgsm", "iterative:steps=5"]
    resolved = settings["resolved"]
    assert len(resolved["model_sha256 logistic"]) == 64
    assert resolved["version torch"] == torch.__version__
    for table in ("summary", "worst_case", "winners"):
        pd.testing.assert_frame_equal(
            pd.read_csv(tmp_path / "r" / "tables" / f"{table}.csv"),
            pd.DataFrame(result.table(table)),
            check_dtype=False,
        )
    report = (tmp_path / "r" / "report.md").read_text()
    assert "| logistic | fgsm | linf:0.1 |" in report
    records = read_records(sorted((tmp_path / "r" / "records").glob("*.parquet")))
    data = rb.load_data("digits", samples=40)
    for artifact, part in records[records["success"]].groupby("artifact"):
        stored = np.load(tmp_path / "r" / str(artifact))
        assert stored["ids"].tolist() == part["sample_id"].tolist()
        original = data.x[torch.isin(data.ids, torch.from_numpy(stored["ids"]))].numpy()
        linf = np.abs(stored["adversarial"].astype(float) - original).reshape(len(part), -1).max(1)
        assert np.allclose(linf, part["linf"].to_numpy(float))


def test_the_tables_are_of_the_records() -> None:
    result = few(attacks=["fgsm", "iterative:steps=5", "noise"])
    records, summary = result.records, result.table().set_index("attack")
    worst = result.table("worst_case").iloc[0]
    broken = records.groupby("sample_id")["success"].any()
    right = (records["clean_prediction"] == records["label"]).groupby(records["sample_id"]).first()
    assert worst["robust"] == pytest.approx((right & ~broken).mean())
    assert worst["robust"] <= summary["robust"].min()
    for attack, part in records.groupby("attack"):
        assert summary.loc[attack, "success"] == pytest.approx(part["success"].sum() / right.sum())
        assert summary.loc[attack, "low"] <= summary.loc[attack, "success"] <= summary.loc[attack, "high"]
    with pytest.raises(UnknownName, match="summary"):
        result.table("sumary")


def test_resume_keeps_what_is_done_and_runs_what_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    execute = engine.carry_out

    def watched(cell: object, *args: object, **options: object) -> object:
        done.append(str(cell))
        if len(done) == 2 and not (tmp_path / "go").exists():
            raise KeyboardInterrupt
        return execute(cell, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "carry_out", watched)
    with pytest.raises(KeyboardInterrupt):
        few(tmp_path / "r")
    assert len(list((tmp_path / "r" / "records").glob("[!.]*"))) == 1
    (tmp_path / "go").touch()
    with pytest.raises(RobustError, match="holds a run already"):
        few(tmp_path / "r")
    done.clear()
    resumed = few(tmp_path / "r", resume=True)
    assert done == ["logistic × iterative:steps=5 × linf:0.1"]
    done.clear()
    whole = few()
    same = [
        c
        for c in whole.records.columns
        if c not in ("run", "seconds", "memory_mib", "artifact", "job", "fingerprint", "certify_seconds")
    ]
    pd.testing.assert_frame_equal(resumed.records[same], whole.records[same])
    done.clear()
    few(tmp_path / "r", resume=True, seed=1)
    assert len(done) == 2  # another seed is another run


def test_a_cell_that_fails_is_written_down_and_the_run_goes_on(tmp_path: Path) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.requires_grad and x[0].any():  # the inputs it is tried with begin with a black one
                raise RuntimeError("no gradients today")
            scores: torch.Tensor = self.inner(x.flatten(1))
            return scores

    result = few(tmp_path / "r", models=[Broken(), "logistic"], attacks=["noise", "fgsm"])
    assert list(result.failures) == ["Broken × fgsm × linf:0.1"]
    assert len(result.records) == 3 * 40
    written = json.loads((tmp_path / "r" / "failures.json").read_text())
    assert "no gradients today" in written["Broken × fgsm × linf:0.1"]
    assert "no gradients today" in (tmp_path / "r" / "report.md").read_text()
    repaired = few(tmp_path / "r", models=["logistic"], attacks=["noise", "fgsm"], resume=True)
    assert not repaired.failures
    assert json.loads((tmp_path / "r" / "failures.json").read_text()) == {}


def test_slices_are_cells_of_their_own_and_change_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = few(attacks=["noise"])
    monkeypatch.setattr("robustbench_lite.runs.plan.MOST", 15)
    parts = few(tmp_path / "r", attacks=["noise"])
    assert len(list((tmp_path / "r" / "records").iterdir())) == 3
    for column in ("sample_id", "success", "l2", "forwards"):
        assert parts.records[column].tolist() == whole.records[column].tolist()


def test_goals_multiply_the_cells() -> None:
    result = few(attacks=["iterative:steps=5"], goals=["untargeted", "least_likely"])
    assert result.table()["goal"].tolist() == ["untargeted", "least_likely"]
    rate = result.table().set_index("goal")["success"]
    assert rate["least_likely"] < rate["untargeted"]


def test_what_cannot_be_is_refused_aloud() -> None:
    result = few(models=["cnn"], attacks=["fgsm", "linear_demo"], samples=5)
    assert list(result.refused) == ["cnn × linear_demo × linf:0.1"]
    with pytest.raises(Unsupported, match="linear_demo needs structure access"):
        few(models=["cnn"], attacks=["linear_demo"], samples=5)


def test_a_users_own_network_and_tensors() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x, y = torch.rand(12, 1, 8, 8), torch.arange(12) % 10
    result = run_with((x, y), [module], ["fgsm"], ["linf:0.1"])
    assert len(result.records) == 12
    assert result.records["data"].unique().tolist() == ["own data"]


def test_attack_takes_parameters_and_checks_them() -> None:
    data = rb.load_data("digits", samples=20)
    model = rb.load_model("logistic", data)
    one = attack_with(model, data.x, data.y, "iterative:steps=3", "linf:0.1")
    other = attack_with(model, data.x, data.y, "iterative", "linf:0.1", steps=3)
    assert torch.equal(one.adversarial, other.adversarial)
    assert one.success.tolist() == one.records["success"].tolist()
    with pytest.raises(UnknownName, match="did you mean steps"):
        attack_with(model, data.x, data.y, "iterative", "linf:0.1", step=3)
    with pytest.raises(RobustError, match="divide integer images by 255"):
        attack_with(model, (data.x * 255).byte(), data.y, "fgsm")
    with pytest.raises(RobustError, match=r"sample 2: values from 0 to 2"):
        attack_with(model, torch.cat([data.x[:2], data.x[2:3] * 2]), data.y[:3], "fgsm")
    with pytest.raises(RobustError, match="gives 10 scores; the data has 11 classes"):
        attack_with(model, data.x[:1], torch.tensor([10]), "fgsm")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_what_is_returned_has_the_type_of_what_was_given(dtype: torch.dtype) -> None:
    data = rb.load_data("digits", samples=20)
    x = data.x.to(dtype)
    result = attack_with(rb.load_model("logistic", data), x, data.y, "fgsm", "linf:0.1")
    assert result.adversarial.dtype == dtype
    assert result.adversarial.shape == x.shape


def test_config_from_toml_flags_and_python_is_the_same(tmp_path: Path) -> None:
    config = make({"data": "wine", "threats": ["linf:8/255"], "eight_bit": True, "budget": 9})
    (tmp_path / "c.toml").write_text(as_toml(config, {'a "quoted"': "x\ny", "n": 3}))
    assert make(read(tmp_path / "c.toml")) == config
    with pytest.raises(
        RobustError, match=r"config: seed: input should be a valid integer.*; sample: extra inputs"
    ):
        make({"sample": 3, "seed": "many"})
    (tmp_path / "bad.toml").write_text("samples = ")
    with pytest.raises(RobustError, match=r"bad\.toml"):
        read(tmp_path / "bad.toml")
    assert Config() == make({})


def test_the_command_prints_a_table_and_writes_a_folder(tmp_path: Path) -> None:
    flags = [
        "--model",
        "logistic",
        "--attack",
        "fgsm",
        "--samples",
        "30",
        "--threat",
        "linf:0.1",
        "--threat",
        "l2:1",
    ]
    done = command("run", *flags, "--out", str(tmp_path / "r"))
    assert done.exit_code == 0
    assert "linf:0.1, untargeted" in done.output
    assert "l2:1, untargeted" in done.output
    assert all(len(line) <= 80 for line in done.output.splitlines() if str(tmp_path) not in line)
    again = command("run", str(tmp_path / "r" / "config.toml"), "--json", "--out", str(tmp_path / "again"))
    answer = json.loads(again.stdout)
    summary = pd.read_csv(tmp_path / "r" / "tables" / "summary.csv")
    assert [row["success"] for row in answer["summary"]] == pytest.approx(summary["success"].tolist())
    resumed = command("run", "--resume", "--out", str(tmp_path / "r"), "--quiet")
    assert (resumed.exit_code, resumed.output) == (0, "")
    assert len(list((tmp_path / "r" / "records").iterdir())) == 2


def test_a_dry_run_lists_the_cells_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("run", "--dry-run", "--samples", "10", "--model", "logistic", "--model", "cnn")
    assert not list(tmp_path.iterdir())
    assert done.exit_code == 0
    assert "logistic × fgsm × linf:0.1: 10 samples" in done.output
    assert "exact needs structure access" in done.output
    assert "18 jobs" in done.output
    some = ("--samples", "10", "--model", "logistic", "--attack", "fgsm", "--attack", "auto", "--json")
    told = json.loads(command("run", "--dry-run", *some).stdout)
    first, second = (told["jobs"][place] for place in (0, -1))
    assert f"{first['job']}: 10 samples, at most {first['passes']} passes" in done.output
    assert second["passes"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--attack", "fsgm"], "unknown attack 'fsgm'; did you mean fgsm"),
        (["run", "--model", "cnnn"], "unknown model 'cnnn'; did you mean cnn?"),
        (["run", "--data", "digit"], "unknown data 'digit'; did you mean digits"),
        (["run", "--threat", "linf"], "linf = 'linf': must be linf:EPS"),
        (["run", "--goal", "top"], "goal = 'top': must be"),
        (["run", "--samples", "0"], "samples: input should be greater"),
        (["run", "--device", "cuda:99"], "device 'cuda:99'"),
        (["run", "--attack", "fgsm:steps=3"], "unknown parameter of fgsm 'steps'"),
        (["run", "--resume"], "--resume needs --out"),
        (["info", "attack", "fsgm"], "did you mean fgsm"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: list[str], message: str) -> None:
    done = command(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert done.output.startswith("robust: ")


def test_status_1_when_a_cell_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(engine, "carry_out", fail)
    done = command(
        "run", "--model", "logistic", "--attack", "fgsm", "--samples", "5", "--out", str(tmp_path / "r")
    )
    assert done.exit_code == 1
    assert "out of luck" in done.output


def test_list_and_info() -> None:
    for kind, table in (
        ("attacks", rb.list_attacks()),
        ("models", rb.list_models()),
        ("data", rb.list_data()),
    ):
        listed = command("list", kind).output
        as_json = json.loads(command("list", kind, "--json").output)
        for name, summary in table["summary"].items():
            assert str(name) in listed
            assert str(summary) in listed
            assert str(name) in [entry["name"] for entry in as_json]
            info = command("info", kind if kind == "data" else kind.removesuffix("s"), str(name)).output
            assert info.startswith(f"{name}: {summary}")
    assert "steps: int, at least 1 = 40" in command("info", "attack", "iterative").output
    assert command("list", "defenses").exit_code == 0
    assert "ensemble(" in command("list", "models").output
    assert rb.__version__ in command("--version").output


def test_the_lecture_has_its_numbers() -> None:
    example = ten_numbers()
    assert example.scores == (-3.0, 2.0)
    assert example.probabilities == (pytest.approx(0.0474, abs=5e-5), pytest.approx(0.8808, abs=5e-5))
    shown = command("demo").output
    for number in ("-3", "0.0474", "0.8808", "sure"):
        assert number in shown


def test_adversarial_examples_made_elsewhere_are_judged(tmp_path: Path) -> None:
    data = rb.load_data("digits", samples=60)
    model = rb.load_model("logistic", data)
    made = attack_with(model, data.x, data.y, "fgsm", "linf:0.1")
    np.savez(tmp_path / "ids.npz", ids=data.ids.numpy(), adversarial=made.adversarial.numpy())
    np.savez(tmp_path / "xy.npz", x=data.x.numpy(), y=data.y.numpy(), adversarial=made.adversarial.numpy())
    np.savez(tmp_path / "far.npz", x=data.x.numpy(), y=data.y.numpy(), adversarial=1 - data.x.numpy())
    np.savez(
        tmp_path / "byte.npz",
        x=data.x.numpy(),
        y=data.y.numpy(),
        adversarial=(data.x.numpy() * 255).astype("uint8"),
    )
    for name in ("ids", "xy"):
        out = tmp_path / f"{name}.parquet"
        done = command(
            "judge",
            str(tmp_path / f"{name}.npz"),
            "--model",
            "logistic",
            "--threat",
            "linf:0.1",
            "--out",
            str(out),
        )
        assert done.exit_code == 0
        assert read_records([out])["success"].tolist() == made.records["success"].tolist()
    for name, reason in (("far", "outside the ball"), ("byte", "integer image")):
        out = tmp_path / f"{name}.parquet"
        command(
            "judge",
            str(tmp_path / f"{name}.npz"),
            "--model",
            "logistic",
            "--threat",
            "linf:0.1",
            "--out",
            str(out),
        )
        records = read_records([out])
        assert not records["success"].any()
        assert records["reason"].str.contains(reason).all()
    np.savez(tmp_path / "none.npz", adversarial=made.adversarial.numpy())
    done = command("judge", str(tmp_path / "none.npz"), "--model", "logistic", "--threat", "linf:0.1")
    assert (done.exit_code, done.output.startswith("robust: ")) == (2, True)


def test_a_plan_is_complete_before_the_first_job(tmp_path: Path) -> None:
    config = make({"models": ["logistic"], "attacks": ["fgsm"], "threats": ["linf:0.1"], "samples": 5})
    job = plan(config, Subject.of(config)).jobs[0]
    folder = Folder.create(tmp_path / "r")
    assert folder.records_of(job.key(), "anything") is None
    assert job.key() == plan(config, Subject.of(config)).jobs[0].key()
    other = make({"batch_size": 2, **{k: v for k, v in config.model_dump().items() if k != "search"}})
    assert job.key() == plan(other, Subject.of(other)).jobs[0].key()
    third = config.model_copy(update={"search": rb.Search(seed=1)})
    assert job.key() != plan(third, Subject.of(third)).jobs[0].key()


def test_control_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "carry_out", stop)
    flags = ["--model", "logistic", "--attack", "fgsm", "--samples", "5", "--out", str(tmp_path / "r")]
    done = command("run", *flags)
    assert done.exit_code == 130
    assert f"robust run --resume --out {tmp_path / 'r'}" in done.output


def test_of_very_many_records_none_are_held_once_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robustbench_lite.runs import run as running

    held = few(tmp_path / "held", attacks=["noise", "fgsm"])
    monkeypatch.setattr(running, "MANY", 40)
    read = few(tmp_path / "read", attacks=["noise", "fgsm"])
    for column in ("model", "attack", "sample_id", "success", "l2", "forwards"):
        assert read.records[column].tolist() == held.records[column].tolist()
