"""The folder: what is whole, what is missing, what is another version's."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robustbench_lite.core.errors import RobustError
from robustbench_lite.records.folder import Folder, Told
from robustbench_lite.records.schema import VERSION, _host, read, write
from robustbench_lite.reports.leaderboard import leaderboard
from robustbench_lite.reports.results import Results
from tests.conftest import recorded, run_with


def some(job: str, success: bool = False, **columns: object) -> pd.DataFrame:
    return recorded(
        {
            "job": job, "fingerprint": "f", "model": "m", "attack": job, "threat": "linf:0.1", "eps": 0.1,
            "goal": "untargeted", "data": "d", "family": "f", "seed": 0, "sample_id": np.arange(4),
            "label": 1, "clean_prediction": 1, "adversarial_prediction": 1, "success": success,
            "valid": True, "linf": 0.1, "l2": 0.1, "forwards": 1, "seconds": 0.1, **columns,
        },
        4,
    )  # fmt: skip


def test_what_is_written_is_read_back_and_only_for_the_same_things(tmp_path: Path) -> None:
    folder = Folder.create(tmp_path)
    folder.save("key", some("key"), {"ids": np.arange(2)})
    found = folder.records_of("key", "f")
    assert found is not None
    assert len(found) == 4
    assert folder.records_of("key", "another model") is None
    assert folder.records_of("other", "f") is None
    with pytest.raises(RobustError, match="holds a run already"):
        Folder.create(tmp_path)
    assert Folder.create(tmp_path, resume=True) == folder


def test_a_temporary_file_that_a_kill_left_is_no_shard_and_goes_in_time(tmp_path: Path) -> None:
    folder = Folder.create(tmp_path)
    folder.save("key", some("key"), {})
    left = tmp_path / "records" / f".{os.getppid()}@{_host()}-abc.tmp"
    left.write_bytes((tmp_path / "records" / "key.parquet").read_bytes())
    whole = tmp_path / "records" / ".whole.parquet"  # as an older release named them
    whole.write_bytes(left.read_bytes())
    assert len(folder.records()) == 4
    Folder.create(tmp_path, resume=True)
    assert left.exists()  # another process may still be writing
    os.utime(left, (time.time() - 9999, time.time() - 9999))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    killed = tmp_path / "records" / f".{gone.pid}@{_host()}-xyz.tmp"
    elsewhere = tmp_path / "records" / f".{gone.pid}@another-xyz.tmp"
    for torn in (killed, elsewhere):
        torn.write_bytes(b"torn")
    Folder.create(tmp_path, resume=True)
    assert not left.exists()
    assert not killed.exists()
    assert elsewhere.exists(), "nobody here knows whether another machine still writes it"


def test_a_record_is_unique_or_an_error(tmp_path: Path) -> None:
    write(some("key"), tmp_path / "one.parquet")
    write(some("key"), tmp_path / "two.parquet")
    with pytest.raises(RobustError, match="recorded twice"):
        read([tmp_path / "one.parquet", tmp_path / "two.parquet"])


def test_a_report_counts_what_the_run_names_and_says_what_is_missing(tmp_path: Path) -> None:
    """A shard that is gone is missed: a weaker attack is not named the strongest without a word."""
    run_with("digits", ["logistic"], ["noise:steps=0", "exact"], ["linf:0.2"], 40, out=tmp_path)
    strong = Results.open(tmp_path)
    assert not strong.missing
    for file in Folder(tmp_path).shards():
        if (read([file])["attack"] == "exact").all():
            file.unlink()
    weak = Results.open(tmp_path)
    assert len(weak.missing) == 1
    assert leaderboard([weak])["best_known"][0] > leaderboard([strong])["best_known"][0]
    from click.testing import CliRunner

    from robustbench_lite.cli.main import main

    assert "records of 1 job are gone" in CliRunner().invoke(main, ["show", str(tmp_path)]).output
    CliRunner().invoke(main, ["report", str(tmp_path)])
    assert "records of 1 job are gone" in (tmp_path / "report.html").read_text()


def test_another_version_is_refused_in_a_line(tmp_path: Path) -> None:
    folder = Folder.create(tmp_path)
    folder.save("key", some("key"), {})
    folder.tell(Told(jobs=["key"]))
    assert folder.told().version == VERSION
    facts = json.loads((tmp_path / "notes.json").read_text())
    for version in (1, 99, None):
        facts["version"] = version
        if version is None:
            del facts["version"]
        (tmp_path / "notes.json").write_text(json.dumps(facts))
        with pytest.raises(RobustError, match=f"version {version or 1}; this release reads {VERSION}"):
            Folder.open(tmp_path)


def test_what_fails_is_not_missing(tmp_path: Path) -> None:
    folder = Folder.create(tmp_path)
    folder.save("a", some("a"), {})
    folder.tell(Told(jobs=["a", "b", "c"], failed=["b"], failures={"b": "Traceback"}))
    assert folder.missing() == ["c"]
    assert folder.told().failures == {"b": "Traceback"}


def test_no_folder_needs_torch() -> None:
    import subprocess
    import sys

    code = "import sys, robustbench_lite.records.folder; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_damaged_shard_is_set_aside_and_its_job_done_again(tmp_path: Path) -> None:
    first = run_with("digits", ["logistic"], ["fgsm"], ["linf:0.1"], 20, out=tmp_path).records
    (shard,) = (tmp_path / "records").glob("*.parquet")
    assert (Folder(tmp_path).progress()["done"], Folder(tmp_path).progress()["missing"]) == (1, 0)
    shard.write_bytes(shard.read_bytes()[:100])
    assert (Folder(tmp_path).progress()["done"], Folder(tmp_path).progress()["missing"]) == (0, 1)
    again = run_with("digits", ["logistic"], ["fgsm"], ["linf:0.1"], 20, out=tmp_path, resume=True).records
    assert again["linf"].tolist() == first["linf"].tolist()
    assert [file.suffix for file in (tmp_path / "records").iterdir() if file != shard] == [".damaged"]


def test_what_jobs_share_is_made_once_and_anew_where_its_file_is_damaged(tmp_path: Path) -> None:
    folder = Folder.create(tmp_path / "run")
    made: list[int] = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"distance": np.array([0.5, np.inf])}

    def ask(key: str) -> list[float]:
        found: list[float] = folder.once("bounds", key, make)["distance"].tolist()
        return found

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, ["one"] * 4)) == [[0.5, np.inf]] * 4
    assert len(made) == 1
    ask("other")
    assert len(made) == 2
    for file in (tmp_path / "run" / "bounds").glob("*.npz"):
        file.write_bytes(file.read_bytes()[:20])
    assert ask("one") == [0.5, np.inf]
    assert len(made) == 3
    folder.clear_locks()
    assert not list((tmp_path / "run" / "bounds").glob(".*"))


def test_waiting_for_what_another_process_makes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("robustbench_lite.records.folder.PATIENCE", 0.05)
    folder = Folder.create(tmp_path / "run")

    def make() -> dict[str, np.ndarray]:
        time.sleep(0.3)
        return {"distance": np.zeros(1)}

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda key: folder.once("bounds", key, make), ["one", "one"]))
    assert "bounds: another process makes what this one needs too" in caplog.text
