"""One folder, many processes, and rough weather: no record is lost, doubled or torn."""

import errno
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

import robustbench_lite as rb
from robustbench_lite.engines import engine
from robustbench_lite.engines.engine import Agenda, Done
from robustbench_lite.engines.serial import Serial
from robustbench_lite.records import schema
from robustbench_lite.records.folder import Folder
from robustbench_lite.runs.plan import Subject, plan
from robustbench_lite.runs.run import carry_out

UNLIKE = ["run", "memory_mib", "seconds", "certify_seconds", "fit_seconds"]
KILLS = int(os.environ.get("ROBUST_KILLS", "3"))
CONFIG = rb.Config(
    samples=30, models=("linear", "tree"), threats=("l2:1", "linf:0.1"), pictures=False,
    attacks=("noise:steps=3", "boundary:steps=30", "square:steps=200", "universal:steps=2"),
)  # fmt: skip
HOLDER = """
import sys, time
from pathlib import Path
from robustbench_lite.records.folder import Folder
claim = Folder(Path(sys.argv[1])).claim(sys.argv[2])
print("held" if claim else "not held", flush=True)
time.sleep(600)
"""


def holder(folder: Path, key: str) -> "subprocess.Popen[str]":
    """Another process that holds a job, once it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), key], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_job_is_held_by_one_process_until_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PAUSE", 0.05)
    config = rb.Config(samples=20, models=("linear",), attacks=("fgsm", "noise"), threats=("linf:0.1",))
    made, folder = plan(config, Subject.of(config)), Folder.create(tmp_path / "run")
    first, second = made.jobs
    other = holder(folder.path, first.key())
    try:
        assert folder.claim(first.key()) is None
        assert folder.running()[first.key()].process == other.pid
        agenda = Agenda(made.jobs, made.workshop, folder)
        assert agenda.take() == second, "what nobody holds comes first"
        assert agenda.take() is None
        assert folder.running()[second.key()].process == os.getpid()
        agenda.close()
        assert list(folder.running()) == [first.key()]
        said: list[str] = []

        def watch(what: str, fraction: float) -> None:
            if what.startswith("waiting") and said.count(what) > 3:
                other.kill()
            said.append(what)

        done = list(Serial().run(Agenda(made.jobs, made.workshop, folder), False, watch))
    finally:
        other.kill()
        other.wait()
    assert [one.job for one in done] == [second, first]
    assert all(one.records is not None for one in done)
    assert "waiting for jobs that other processes are at" in said
    assert not folder.running()
    assert not list(folder.path.glob("records/.*.owner"))


def test_two_runs_on_one_folder_share_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PAUSE", 0.05)
    carried: list[str] = []
    kept = engine.carry_out

    def counted(work: object, *more: object) -> object:
        carried.append(str(work))
        time.sleep(0.05)
        return kept(work, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "carry_out", counted)
    folder = Folder.create(tmp_path / "run")
    found: list[list[Done]] = []

    def take_part() -> None:
        made = plan(CONFIG, Subject.of(CONFIG))
        found.append(list(Serial().run(Agenda(made.jobs, made.workshop, folder), False, lambda w, f: None)))

    threads = [threading.Thread(target=take_part) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    jobs = len(plan(CONFIG, Subject.of(CONFIG)).jobs)
    assert len(carried) == len(set(carried)) == jobs, "each job is carried out once"
    assert [len(one) for one in found] == [jobs, jobs], "and both have all records"
    one, two = (pd.concat([d.records for d in sorted(f, key=lambda d: str(d.job))]) for f in found)
    pd.testing.assert_frame_equal(one, two)


def _weathered(path: Path, workers: int, fails: int | None) -> None:
    """A run in a process of its own; fails: which of its writes finds the disk full."""
    if fails is not None:
        writes, sync = iter(range(10**6)), os.fsync

        def full(handle: int) -> None:
            if next(writes) >= fails:
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(handle)

        schema.os.fsync = full  # type: ignore[assignment]
    config = CONFIG.model_copy(update={"workers": workers})
    carry_out(plan(config, Subject.of(config)), config, Folder.create(path, resume=True))


@pytest.mark.skipif(sys.platform == "win32", reason="processes are killed as they are on Unix")
def test_killed_at_any_moment_a_run_loses_what_is_under_way_only(tmp_path: Path) -> None:
    """The process, a worker, a write, a full disk, a torn file: 3 times, or as ROBUST_KILLS says."""
    chance, path = random.Random(0), tmp_path / "run"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["robustbench_lite.runs.run"])
    seen: dict[str, bytes] = {}
    torn: dict[str, bytes] = {}
    there: list[int] = []
    for number in range(KILLS):
        workers = 2 if number % 5 == 4 else 1
        fails = chance.randrange(12) if number % 3 == 1 else None
        process = context.Process(target=_weathered, args=(path, workers, fails))
        process.start()
        process.join(chance.uniform(0.5, 3.0) + 4.0 * (workers > 1))
        process.kill()
        process.join()
        files = {file.name: file for file in path.glob("records/[!.]*.parquet")}
        lost = [name for name in seen if name not in files or files[name].read_bytes() != seen[name]]
        assert not lost, "what was there stays as it was"
        bytes_of = {name: file.read_bytes() for name, file in files.items()}
        seen = {name: held for name, held in bytes_of.items() if held != torn.get(name)}
        there.append(len(files))
        if seen and number % 2:
            name = chance.choice(sorted(seen))
            held = seen.pop(name)
            at = chance.randrange(len(held))
            torn[name] = held[:at] + (b"" if number % 4 == 1 else b"\0" * (len(held) - at))
            files[name].write_bytes(torn[name])
    result = carry_out(plan(CONFIG, Subject.of(CONFIG)), CONFIG, Folder.create(path, resume=True))
    whole = carry_out(plan(CONFIG, Subject.of(CONFIG)), CONFIG, Folder.create(tmp_path / "whole"))
    assert any(0 < count < 16 for count in there), f"killed in the middle: {there} of 16 jobs"
    assert not result.failures
    for found in (result, rb.Results.open(path)):
        one, two = (
            r.records.drop(columns=UNLIKE).sort_values(["job", "sample_id"]).reset_index(drop=True)
            for r in (found, whole)
        )
        pd.testing.assert_frame_equal(one, two)
    assert not list(path.glob("*/.*")), "nothing is left of what was killed"
