"""A part of a run's jobs, for processes that share a folder and know nothing of each other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from robustbench_lite.core.errors import InvalidParameter

Thing = TypeVar("Thing")
MEANS = "I/N with I from 1 to N, such as 2/8; auto, or auto/N, where a scheduler says which I"
# Variables of schedulers: which task this is, the number of the first, how many there are.
TASKS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT"),
    ("RANK", "", "WORLD_SIZE"),
    ("JOB_COMPLETION_INDEX", "", ""),
)


@dataclass(frozen=True)
class Shard:
    """Every `count`-th job, from the `index`-th on (from 0)."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise InvalidParameter("shard", f"{self.index + 1}/{self.count}", MEANS)

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"

    def of(self, jobs: Sequence[Thing]) -> Sequence[Thing]:
        """Its part of all jobs; neighbours, which cost alike, go to different shards."""
        return jobs[self.index :: self.count]


def parse_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """A shard by its text.

    Parameters
    ----------
    text : str
        `I/N`; `auto`: as SLURM (a job array) or torchrun says in the environment; `auto/N` where the
        scheduler says which task this is but not of how many (Kubernetes, indexed jobs).
    environment : mapping
        Of the process.

    Raises
    ------
    InvalidParameter

    Examples
    --------
    >>> parse_shard("2/8", {})
    Shard(index=1, count=8)
    >>> parse_shard("auto", {"RANK": "0", "WORLD_SIZE": "4"})
    Shard(index=0, count=4)
    """
    found = re.fullmatch(r"(\d{1,9}|auto)(?:/(\d{1,9}))?", text)
    if found is None or (found[1] != "auto" and found[2] is None):
        raise InvalidParameter("shard", text, MEANS)
    if found[1] != "auto":
        return Shard(int(found[1]) - 1, int(found[2]))
    for which, first, count in TASKS:
        if which in environment:
            many = found[2] or environment.get(count, "")
            values = environment[which], environment.get(first) or "0", many
            if not all(value.isascii() and value.isdigit() for value in values):
                told = f"{text}, with {which}={values[0]} and a count of {many or 'nothing'}"
                raise InvalidParameter("shard", told, MEANS)
            index, begin, total = map(int, values)
            return Shard(index - begin, total)
    names = ", ".join(which for which, _, _ in TASKS)
    raise InvalidParameter("shard", text, f"{MEANS}; none of {names} is set")
