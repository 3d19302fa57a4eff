"""Folders of runs that were stopped, damaged or made by others; terminals and disks of every kind."""

import contextlib
import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.cli.main import main
from robustbench_lite.records.folder import Folder, Told
from robustbench_lite.records.schema import SCHEMA
from robustbench_lite.reports.results import Results
from robustbench_lite.reports.serve import server
from tests.conftest import run_with


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run_with("digits", ["logistic"], ["fgsm", "iterative"], ["linf:0.1"], 30, out=tmp_path / "r")
    return tmp_path / "r"


def in_one_line(result: Result, status: int, *words: str) -> None:
    assert result.exit_code == status, result.output
    lines = [line for line in result.output.splitlines() if line.strip()]
    assert len(lines) == 1, result.output
    for word in words:
        assert word in lines[0]


def test_damaged_shards_are_named_and_done_again(run: Path) -> None:
    shards = Folder(run).shards()
    foreign = pa.table({"a": [1, 2]})
    for damage in (b"", b"PAR1 torn", None):
        if damage is None:
            pq.write_table(foreign, shards[0])
        else:
            shards[0].write_bytes(damage)
        for words in (["show", run], ["report", run], ["leaderboard", run]):
            in_one_line(command(*words), 2, shards[0].name)
        assert command("run", "--resume", "--quiet", "--out", run).exit_code == 0
        assert len(Results.open(run).records) == 60


def test_a_record_without_a_verdict_is_named(run: Path) -> None:
    file = Folder(run).shards()[0]
    records = pq.read_table(file).to_pandas()
    records.loc[3, "success"] = None
    pq.write_table(pa.Table.from_pandas(records, schema=SCHEMA, preserve_index=False), file)
    in_one_line(command("show", run), 2, file.name, "success")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"notes": 5}', '{"version": 99}', "\0\0"])
def test_damaged_notes_are_named(run: Path, text: str) -> None:
    (run / "notes.json").write_text(text)
    in_one_line(command("report", run), 2, "notes.json")


def test_broken_pictures_cost_nothing_but_themselves(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file, content in zip(sorted((run / "pictures").iterdir()), (b"", b"no zip"), strict=False):
        file.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            assert command("report", run).exit_code == 0
        assert file.name in caplog.text


def test_links_and_pipes_are_not_records(run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.parquet"
    shard = Folder(run).shards()[0]
    shard.rename(outside)
    shard.symlink_to(outside)
    os.mkfifo(run / "records" / "pipe.parquet")
    os.mkfifo(run / "pictures" / "pipe.npz")
    result = command("show", run)
    assert result.exit_code == 0
    assert "records of 1 job are gone" in result.output


def test_what_is_done_is_shown_after_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustbench_lite.engines import engine

    out = tmp_path / "r"
    run_with("digits", ["logistic"], ["fgsm"], ["linf:0.1"], 20, out=out)
    kept = engine.carry_out

    def stop(work: object, *more: object) -> object:
        if "noise" in str(work):
            raise KeyboardInterrupt
        return kept(work, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "carry_out", stop)
    words = [
        "--samples",
        20,
        "--model",
        "logistic",
        "--attack",
        "fgsm",
        "--attack",
        "iterative",
        "--attack",
        "noise",
    ]
    stopped = command("run", *words, "--threat", "linf:0.1", "--resume", "--out", out, "--quiet")
    assert stopped.exit_code == 130
    shown = command("show", out)
    assert shown.exit_code == 0
    assert "iterative" in shown.output
    assert "stopped with 1 job to go" in shown.output


def test_an_interrupt_before_the_first_job_ends_with_130(tmp_path: Path) -> None:
    # Whoever runs the tests in the background has it ignored, which a process inherits.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from robustbench_lite.cli.main import main; print('on', flush=True); main()"
    words = ["run", "--samples", "50", "--model", "cnn", "--attack", "pgd:steps=4000", "--threat", "linf:0.1"]
    started = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--quiet", "--out", str(tmp_path / "r")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert started.stdout is not None
    started.stdout.readline()
    time.sleep(0.7)
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130, said
    assert "Traceback" not in said


def test_another_seed_in_the_same_folder_is_refused(run: Path) -> None:
    in_one_line(command("run", "--resume", "--seed", 3, "--out", run), 2, "another seed")


def test_code_that_a_foreign_config_names_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUST_CACHE", str(tmp_path / "cache"))
    (tmp_path / "theirs.py").write_text(
        "open('called', 'w').close()\nimport numpy as np\n"
        "def model():\n    return lambda x: np.tile(x.reshape(len(x), -1)[:, :1], (1, 10)) + np.eye(10)[0]\n"
    )
    (tmp_path / "c.toml").write_text(
        'models = ["theirs:model"]\nattacks = ["noise"]\nthreats = ["linf:0.1"]\nsamples = 5\n'
    )
    in_one_line(command("run", "c.toml", "--out", "r"), 2, "theirs:model", "--trust")
    assert not (tmp_path / "called").exists()
    assert command("run", "--trust", "c.toml", "--out", "r", "--quiet").exit_code == 0
    assert (tmp_path / "called").exists()
    assert command("run", "--resume", "--out", "r", "--quiet").exit_code == 0  # now it is known
    assert command("diagnose", "r").exit_code in (0, 2)


def test_names_from_files_steer_no_terminal_and_no_spreadsheet(run: Path) -> None:
    for file in Folder(run).shards():
        records = pq.read_table(file).to_pandas()
        records["model"] = "=cmd()\x1b]0;owned\x07\x1b[2J\N{RIGHT-TO-LEFT OVERRIDE}m"
        pq.write_table(pa.Table.from_pandas(records, schema=SCHEMA, preserve_index=False), file)
    for words in (["show", run], ["leaderboard", run], ["show", run, "--table", "summary"]):
        output = command(*words).output
        assert "\x1b[2J" not in output
        assert "\x07" not in output
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in output
    assert command("report", run, "--format", "csv").exit_code == 0
    assert pd.read_csv(run / "tables" / "summary.csv")["model"].str.startswith("'=").all()


@contextlib.contextmanager
def served(path: Path) -> Iterator[http.client.HTTPConnection]:
    held = server([path], 0)
    thread = threading.Thread(target=held.serve_forever, daemon=True)
    thread.start()
    try:
        yield http.client.HTTPConnection("127.0.0.1", held.server_address[1], timeout=5)
    finally:
        held.shutdown()
        held.server_close()


def test_odd_addresses_get_an_answer_and_pages_are_in_a_sandbox(run: Path) -> None:
    (run / "loop").symlink_to("loop")
    with served(run) as connection:
        for path in (
            "/%C2%B2/x",
            f"/0/{'a' * 300}",
            "/0/loop",
            f"/{'9' * 5000}/x",
            "/0/%00",
            "/-1/x",
            "/0/../x",
        ):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 404, path
        connection.request("GET", "/0/report.html")
        page = connection.getresponse()
        page.read()
        assert page.status == 200
        assert "sandbox" in (page.getheader("Content-Security-Policy") or "")


def test_tables_come_in_the_poorest_encoding(run: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "robustbench_lite.cli", "show", str(run)],
        capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "100"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"logistic" in done.stdout


@pytest.mark.parametrize("encoding", ["latin1", "cp437", "ascii", "utf-8"])
def test_tables_come_in_every_encoding(run: Path, encoding: str) -> None:
    done = CliRunner(charset=encoding).invoke(main, ["show", str(run)], env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    assert b"logistic" in done.stdout_bytes


@pytest.mark.parametrize("columns", [20, 40, 60, 200])
def test_narrow_terminals_still_name_model_and_attack(run: Path, columns: int) -> None:
    done = CliRunner().invoke(main, ["show", str(run)], env={"COLUMNS": str(columns)})
    top = "".join(done.output.split("Worst")[0].split())
    assert "logistic"[:8] in top
    assert "fgsm" in top


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ROBUST_CACHE", str(tmp_path / "file" / "cache"))
    assert rb.load_model("linear").num_classes == 10


@pytest.mark.parametrize("out", ["", "x" * 300, "file/below"])
def test_folders_that_cannot_be_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    words = ["run", "--model", "linear", "--attack", "noise", "--samples", "5", "--quiet", "--out", out]
    in_one_line(command(*words), 2)


def test_a_model_that_hangs_costs_its_jobs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustbench_lite.engines import engine

    monkeypatch.setattr(engine, "GRACE", 0.3)
    calls = []

    class Hangs(rb.Model):
        name, family, num_classes, input_shape = "hangs", "test", 10, (1, 8, 8)
        device = rb.load_model("linear").device

        def scores(self, x):  # type: ignore[no-untyped-def]
            calls.append(1)
            if len(calls) > 6:
                time.sleep(30)
            return rb.load_model("linear").scores(x)

        def to(self, device):  # type: ignore[no-untyped-def]
            return self

    began = time.monotonic()
    result = run_with("digits", [Hangs(), "linear"], ["square:steps=500"], ["linf:0.1"], 10, time_limit=0.2)
    assert time.monotonic() - began < 20
    assert any("still at work" in text for text in result.failures.values())
    assert set(result.records["model"]) == {"linear"}


@pytest.mark.parametrize("samples", [1, 10])  # while it is looked at, or on the samples
def test_a_model_that_hangs_before_any_attack_costs_itself_only(
    monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    from robustbench_lite.engines import engine

    monkeypatch.setattr(engine, "GRACE", 0.3)

    class Hangs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            if len(x) >= samples:
                time.sleep(30)
            scores: Tensor = self.inner(x.flatten(1))
            return scores

    began = time.monotonic()
    result = run_with("digits", [Hangs(), "linear"], ["fgsm"], ["linf:0.1"], 10, time_limit=0.2)
    assert time.monotonic() - began < 20
    told = "does not answer: still at work after 0.7 s, with a time limit of 0.2 s"
    assert result.refused == {"Hangs": told}
    assert set(result.records["model"]) == {"linear"}


def test_what_a_model_prints_is_no_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud.py").write_text(
        "import os\nfrom torch import nn\nclass Loud(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "    def forward(self, x):\n        print('hello from the model')\n"
        "        os.write(1, b'as a library would'); return self.net(x)\n"
        "def net():\n    return Loud()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "robustbench_lite.cli", "run", "--model", "loud:net", "--attack", "fgsm",
         "--threat", "linf:0.1", "--samples", "5", "--json", "--out", "r"],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["summary"][0]["model"] == "net"
    assert "hello from the model" in done.stderr
    assert "as a library would" in done.stderr


def test_a_run_tells_at_its_start_which_jobs_it_has(tmp_path: Path) -> None:
    run_with("digits", ["linear"], ["noise"], ["linf:0.1"], 5, out=tmp_path)
    told = Folder(tmp_path).told()
    assert told.finished
    Folder(tmp_path).tell(told.model_copy(update={"finished": False, "jobs": [*(told.jobs or []), "more"]}))
    assert "stopped with 1 job to go" in command("show", tmp_path).output
    assert Told().finished


@pytest.mark.parametrize("goal", ["top:99", "class:99", "top:10", "class:10"])
def test_classes_that_there_are_not_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goal: str
) -> None:
    monkeypatch.setenv("ROBUST_CACHE", str(tmp_path / "cache"))
    words = ["run", "--model", "cnn", "--attack", "pgd", "--threat", "linf:0.1", "--goal", goal, "--quiet"]
    in_one_line(command(*words, "--out", tmp_path / "r"), 2, f"goal {goal}")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("device", ["meta", "xpu", "mps", "cuda:99", "gpu", "", "cpu:x"])
def test_devices_that_are_not_there_are_one_line(tmp_path: Path, device: str) -> None:
    words = ["run", "--model", "linear", "--attack", "noise", "--samples", "5", "--quiet", "--device", device]
    in_one_line(command(*words, "--out", tmp_path / "r"), 2, "device")
