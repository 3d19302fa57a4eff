"""Workers: the records of one process, whatever becomes of them on the way."""

import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import robustbench_lite as rb
from robustbench_lite.core.errors import RobustError
from robustbench_lite.engines import engine, processes
from robustbench_lite.engines.engine import Agenda, Done
from robustbench_lite.runs.plan import Subject, plan
from tests.conftest import run_with

UNLIKE = [
    "run",
    "memory_mib",
    "seconds",
    "certify_seconds",
    "fit_seconds",
]  # what time and place make of the same run
MODELS, ATTACKS, THREATS = (
    ["linear", "tree", "knn"],
    ["pgd:steps=5", "noise", "universal:steps=3"],
    ["linf:0.1"],
)
KILLER = """
import multiprocessing, os, signal
from pathlib import Path
import numpy as np

WEIGHT = np.random.default_rng(0).normal(size=(64, 10))

def model():
    return scores

def scores(x):
    flag = Path({flag!r})
    if multiprocessing.parent_process() is not None and {often}:
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x.reshape(len(x), -1) @ WEIGHT
"""


def _processes() -> list[int]:
    return [int(file.name) for file in Path("/proc").iterdir() if file.name.isdecimal()]


def _group(pid: int) -> int:
    """The process group of a process that is alive, 0 of others."""
    try:
        state, group = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0:3:2]
    except OSError:
        return 0
    return 0 if state == "Z" else int(group)


def sorted_records(result: rb.Results) -> pd.DataFrame:
    return result.records.drop(columns=UNLIKE).sort_values(["job", "sample_id"]).reset_index(drop=True)


def test_two_workers_find_what_one_process_finds_though_one_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mortal.py").write_text(KILLER.format(flag=str(tmp_path / "died"), often="not flag.exists()"))
    monkeypatch.chdir(tmp_path)
    models, attacks = ["linear", "tree", "mortal:model"], ["noise", "universal:steps=3"]
    one, two = (
        run_with("digits", models, attacks, THREATS, 60, out=tmp_path / str(workers), workers=workers)
        for workers in (1, 2)
    )
    assert (tmp_path / "died").exists()
    assert not two.failures
    pd.testing.assert_frame_equal(sorted_records(one), sorted_records(two))
    assert list(two.refused) == list(one.refused)
    for kind in ("adversarial", "pictures", "learnt", "records"):
        names = [sorted(f.name for f in (tmp_path / which / kind).iterdir()) for which in ("1", "2")]
        assert names[0] == names[1]


def test_a_job_that_takes_its_workers_with_it_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "TRIES", 2)
    (tmp_path / "deadly.py").write_text(KILLER.format(flag=str(tmp_path / "died"), often="True"))
    monkeypatch.chdir(tmp_path)
    result = run_with("digits", ["deadly:model"], ["noise"], THREATS, 30, out=tmp_path / "run", workers=2)
    (failure,) = result.failures.values()
    assert "its worker ended with status -9, 2 times" in failure
    assert not len(result.records)


def test_a_worker_that_dies_while_it_waits_is_replaced() -> None:
    config = rb.Config(samples=20, models=("linear",), attacks=("noise",), threats=("linf:0.1",))
    base = plan(config, Subject.of(config))
    agenda = Agenda(base.jobs, base.workshop, None)
    settings = processes._settings_of_workers(agenda, False, 1)
    pool = processes._WorkerPool(agenda, settings)
    pool.workers[0] = worker = processes._started(settings[0])
    try:
        worker.process.kill()
        worker.process.join()
        assert not list(pool.hand_out())
        told = None
        while not isinstance(told, Done):
            told = pool.listen()
        assert told.records is not None
        assert not agenda.tries, "which is not the job's fault"
    finally:
        pool.stop()


def test_live_objects_are_refused_in_a_line(tmp_path: Path) -> None:
    data = rb.load_data("digits", samples=20)
    with pytest.raises(RobustError, match="use one worker"):
        run_with("digits", [rb.load_model("linear", data)], ["noise"], THREATS, 20, workers=2)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are not listed here")
def test_killed_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """No record is lost, doubled or torn."""
    models, attacks, killed = ["linear", "tree"], ["noise:steps=3", "boundary:steps=30"], tmp_path / "killed"
    named = [word for m in models for word in ("--model", m)] + [
        word for a in attacks for word in ("--attack", a)
    ]
    code = "from robustbench_lite.cli.main import main; main()"
    command = [
        sys.executable, "-c", code, "run", *named, "--threat", "l2:1", "--samples", "30", "--workers", "2",
        "--no-pictures", "--quiet", "--out", str(killed),
    ]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True)
    late = time.monotonic() + 120
    while not list(killed.glob("records/*.parquet")):  # in the middle, however slow the machine is
        assert process.poll() is None
        assert time.monotonic() < late
        time.sleep(0.02)
    workers = [pid for pid in _processes() if _group(pid) == process.pid and pid != process.pid]
    assert len(workers) >= 2
    process.kill()  # alone: its workers end by themselves
    process.wait()
    while [pid for pid in workers if _group(pid) == process.pid]:
        assert time.monotonic() < late
        time.sleep(0.05)
    run_with("digits", models, attacks, ["l2:1"], 30, out=killed, resume=True, pictures=False)
    whole = run_with("digits", models, attacks, ["l2:1"], 30, out=tmp_path / "whole", pictures=False)
    pd.testing.assert_frame_equal(sorted_records(whole), sorted_records(rb.Results.open(killed)))
    assert not list(killed.glob("*/.*.tmp"))
