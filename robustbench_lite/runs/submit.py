"""A run on a cluster of SLURM from Python: shards as a job array, by submitit (extra `slurm`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from robustbench_lite.core.errors import require
from robustbench_lite.records.folder import Folder
from robustbench_lite.reports.results import Results
from robustbench_lite.runs.config import Config
from robustbench_lite.runs.plan import Subject, plan
from robustbench_lite.runs.run import carry_out, carry_out_part
from robustbench_lite.runs.shard import Shard


class Executor(Protocol):
    """One of submitit's, with its partition, time and GPUs set."""

    def map_array(self, function: Callable[[int], int], /, *values: Sequence[int]) -> list[Any]:
        """Jobs of an array, one a value."""


def submit(config: Config, out: Path, executor: Executor, shards: int) -> list[Any]:
    """Hand a run to a scheduler, in shards that share a folder; nothing is waited for.

    Parameters
    ----------
    config : Config
        Its data and models by name: each shard makes them anew.
    out : Path
        The run's folder, on a file system that all machines share. Where it holds a part of the run already,
        the rest is done.
    executor : submitit.Executor
        `submitit.AutoExecutor("logs")` with `update_parameters(slurm_partition=…, gpus_per_node=1, …)`.
    shards : int
        How many jobs of the scheduler, at least 1.

    Returns
    -------
    list of submitit.Job
        The result of each is how many of its jobs failed, or were not begun in time.

    Raises
    ------
    InvalidParameter
        For no shards.
    """
    require(shards >= 1, "shards", shards, "at least 1")
    carry = functools.partial(_carry_out_shard, config, out, shards)
    return executor.map_array(carry, range(shards))


def collect(jobs: Sequence[Any], config: Config, out: Path) -> Results:
    """Wait for the shards of a run, and make its tables and page.

    Parameters
    ----------
    jobs : sequence of submitit.Job
        What `submit` returned.
    config : Config
        What it was given.
    out : Path
        The run's folder.

    Returns
    -------
    Results
        Of all shards; what one of them did not do is done here.
    """
    for job in jobs:
        job.exception()  # waits; a shard that broke down is made up for
    return carry_out(plan(config, Subject.of(config)), config, Folder.create(out, resume=True))


def _carry_out_shard(config: Config, out: Path, shards: int, index: int) -> int:
    """What runs on a machine of the cluster: a shard; how many of its jobs are not done."""
    made = plan(config, Subject.of(config))
    part = Shard(index, shards)
    done = carry_out_part(made, config, Folder.create(out, resume=True), part)
    return len(part.of(made.jobs)) - sum(1 for one in done if not one.failure)
