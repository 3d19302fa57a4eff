"""Parts of a run in processes that share a folder, and how far they have come."""

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from robustbench_lite.cli.main import main
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.records.folder import Folder
from robustbench_lite.runs.shard import Shard, parse_shard

RUN = ["run", "--data", "digits", "--samples", "30", "--quiet"]
for _flag, *_values in (
    ("--model", "linear", "logistic"),
    ("--attack", "fgsm", "noise:steps=5"),
    ("--threat", "linf:0.1", "linf:0.2"),
):
    RUN += [part for value in _values for part in (_flag, value)]


def command(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env=environment, catch_exceptions=False)


@given(st.integers(0, 40), st.integers(1, 12))
def test_shards_share_all_jobs_out_each_once(jobs: int, count: int) -> None:
    parts = [parse_shard(f"{i}/{count}", {}).of(range(jobs)) for i in range(1, count + 1)]
    assert sorted(job for part in parts for job in part) == list(range(jobs))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        ("2/8", {"RANK": "0", "WORLD_SIZE": "4"}, Shard(1, 8)),
        ("auto", {f"SLURM_ARRAY_TASK_{n}": v for n, v in (("ID", "12"), ("MIN", "10"), ("COUNT", "5"))},
         Shard(2, 5)),
        ("auto", {"RANK": "3", "WORLD_SIZE": "4"}, Shard(3, 4)),
        ("auto/6", {"JOB_COMPLETION_INDEX": "5"}, Shard(5, 6)),
    ],
)  # fmt: skip
def test_a_shard_is_said_or_told_by_the_scheduler(
    text: str, environment: dict[str, str], shard: Shard
) -> None:
    assert parse_shard(text, environment) == shard


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("0/4", {}), ("5/4", {}), ("1/0", {}), ("3", {}), ("a/b", {}), ("", {}), ("-1/4", {}), ("auto", {}),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}), ("auto", {"RANK": "x", "WORLD_SIZE": "4"}),
        ("auto/2", {"RANK": "2", "WORLD_SIZE": "4"}), ("²/3", {}),
    ],
)  # fmt: skip
def test_what_is_no_shard_is_refused(text: str, environment: dict[str, str]) -> None:
    with pytest.raises(InvalidParameter, match="shard"):
        parse_shard(text, environment)


def test_shards_and_a_resume_give_what_one_run_gives(tmp_path: Path) -> None:
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    assert command(*RUN, "--out", str(whole)).exit_code == 0
    loud = [word for word in RUN if word != "--quiet"]
    first = command(*loud, "--out", str(shared), "--shard", "2/3")
    assert first.exit_code == 0
    assert "shard 2/3: 3 of its 3 jobs done, of 8 in all" in first.stdout
    status = command("status", str(shared), "--json")
    assert status.exit_code == 1
    facts = json.loads(status.stdout)
    assert (facts["jobs"], facts["done"], facts["failed"], facts["missing"]) == (8, 3, 0, 5)
    assert facts["seconds_left"] > 0
    assert (
        "3 of 8 jobs done, 0 failed, 5 missing (0 of them running); about"
        in command("status", str(shared)).stdout
    )
    for index in ("0", "2"):
        told = {"RANK": index, "WORLD_SIZE": "3"}
        assert command(*RUN, "--out", str(shared), "--shard", "auto", **told).exit_code == 0
    before = {file.name: file.stat().st_mtime_ns for file in (shared / "records").glob("*.parquet")}
    assert len(before) == 8
    assert command("run", "--resume", "--out", str(shared), "--quiet").exit_code == 0
    assert before == {file.name: file.stat().st_mtime_ns for file in (shared / "records").glob("*.parquet")}
    assert command("status", str(shared)).stdout == "8 of 8 jobs done, 0 failed, 0 missing\n"
    assert (shared / "report.html").is_file()
    order = ["job", "sample_id"]
    one, other = (Folder.open(f).records().sort_values(order, ignore_index=True) for f in (whole, shared))
    timed = ["memory_mib", "seconds", "certify_seconds", "fit_seconds", "run"]
    pd.testing.assert_frame_equal(one.drop(columns=timed), other.drop(columns=timed))


def test_a_shard_needs_a_folder() -> None:
    answer = CliRunner().invoke(main, [*RUN, "--shard", "1/2"])
    assert answer.exit_code == 2


def test_shards_in_folders_of_their_own_are_joined(tmp_path: Path) -> None:
    parts = [tmp_path / f"part-{i}" for i in (1, 2, 3)]
    for number, part in enumerate(parts, 1):
        command(*RUN, "--out", str(part), "--shard", f"{number}/3")
    some = command("merge", *map(str, parts[:2]), "--out", str(tmp_path / "some"))
    assert some.exit_code == 1
    assert "6 of 8 jobs, 0 failed, 2 missing" in some.stdout
    every = command("merge", *map(str, [*parts, parts[0]]), "--out", str(tmp_path / "all"))
    assert every.exit_code == 0
    command(*RUN, "--out", str(tmp_path / "whole"))
    joined, whole = (Folder.open(tmp_path / name) for name in ("all", "whole"))
    timed = ["memory_mib", "seconds", "certify_seconds", "fit_seconds", "run"]
    one, two = (
        f.records().drop(columns=timed).sort_values(["job", "sample_id"]).reset_index(drop=True)
        for f in (joined, whole)
    )
    pd.testing.assert_frame_equal(one, two)
    assert (tmp_path / "all" / "report.html").is_file()
    assert command("verify", str(tmp_path / "all")).exit_code == 0
    resumed = command("run", "--resume", "--out", str(tmp_path / "some"), "--quiet")
    assert resumed.exit_code == 0
    assert not Folder.open(tmp_path / "some").missing()
    other = command(*RUN, "--seed", "1", "--out", str(tmp_path / "other"), "--shard", "1/2")
    assert other.exit_code == 0
    refused = command("merge", str(parts[0]), str(tmp_path / "other"), "--out", str(tmp_path / "no"))
    assert refused.exit_code == 2
    assert "no parts of one run: data_sha256, model_sha256 linear" in refused.stderr
