"""Shards by a scheduler: what comes back is what one process finds."""

from pathlib import Path

import pytest

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.runs.submit import collect, submit

CONFIG = rb.Config(
    samples=30, models=("linear", "tree"), attacks=("fgsm", "noise"), threats=("linf:0.1",), pictures=False
)


class AtOnce:
    """An executor that does what it is given, and breaks down in the second shard."""

    def map_array(self, function, /, *values):  # type: ignore[no-untyped-def]
        return [Ended(function, value) for value in values[0]]


class Ended:
    def __init__(self, function, value: int) -> None:  # type: ignore[no-untyped-def]
        self.failures = None if value == 1 else function(value)

    def exception(self) -> Exception | None:
        return RuntimeError("preempted") if self.failures is None else None


def test_shards_are_joined_and_one_that_broke_down_is_made_up_for(tmp_path: Path) -> None:
    out = tmp_path / "run"
    jobs = submit(CONFIG, out, AtOnce(), 3)
    assert [job.failures for job in jobs] == [0, None, 0]
    assert len(rb.Folder.open(out).shards()) == 3
    result = collect(jobs, CONFIG, out)
    alone = rb.run(config=CONFIG)
    for column in ("model", "attack", "sample_id", "success", "forwards"):
        assert result.records[column].tolist() == alone.records[column].tolist()
    assert (out / "report.html").is_file()
    with pytest.raises(InvalidParameter, match="shards"):
        submit(CONFIG, out, AtOnce(), 0)


def test_submitit_carries_them_to_processes_of_their_own(tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    executor = submitit.LocalExecutor(tmp_path / "logs")
    executor.update_parameters(timeout_min=5)
    jobs = submit(CONFIG, tmp_path / "run", executor, 2)
    result = collect(jobs, CONFIG, tmp_path / "run")
    assert [job.result() for job in jobs] == [0, 0]
    assert len(result.records) == 120
    assert not result.failures
