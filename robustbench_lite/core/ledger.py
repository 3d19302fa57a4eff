"""What is known of each sample of a batch: its best point so far, and what it has cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Ledger:
    """The only mutable part of a problem, shared by all its views; one entry a sample, not a row.

    best_x (s, …): the best admissible point seen: the first success; or the success of smallest distance or
    highest margin, as `keep` says; while there is none, the point of highest margin. best_distance (s,)
    float64, inf until found. forwards, backwards, queries_at_success (s,) int64, the last -1 until found.
    winner (s,): which of `attacks` found best_x. budget: passes, of either kind, allowed to a sample.
    """

    best_x: Tensor
    keep: str  # "first", "nearest" or "margin"
    budget: int | None = None
    attacks: list[str] = field(default_factory=list)
    found: Tensor = field(init=False)
    best_distance: Tensor = field(init=False)
    best_margin: Tensor = field(init=False)
    forwards: Tensor = field(init=False)
    backwards: Tensor = field(init=False)
    queries_at_success: Tensor = field(init=False)
    winner: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.best_x = self.best_x.clone()
        n, device = len(self.best_x), self.best_x.device
        self.found = torch.zeros(n, dtype=torch.bool, device=device)
        self.best_distance = torch.full((n,), torch.inf, dtype=torch.float64, device=device)
        self.best_margin = torch.full((n,), -torch.inf, device=device)
        self.forwards, self.backwards = (torch.zeros(n, dtype=torch.int64, device=device) for _ in range(2))
        self.queries_at_success, self.winner = (torch.full_like(self.forwards, -1) for _ in range(2))

    @property
    def remaining(self) -> Tensor:
        """Passes left to each sample (s,) int64."""
        budget = torch.iinfo(torch.int64).max if self.budget is None else self.budget
        return budget - self.forwards - self.backwards

    def charge(self, rows: Tensor, forwards: int, backwards: int, idle: Tensor | None) -> None:
        """Count passes for each row's sample; a sample may stand in several rows.

        idle (m,): rows that are there only because the batch has not been packed yet; they cost nothing, so
        that a sample's cost does not depend on its neighbours.
        """
        counted = torch.ones_like(rows) if idle is None else (~idle).long()
        self.forwards.index_add_(0, rows, forwards * counted)
        self.backwards.index_add_(0, rows, backwards * counted)

    def affordable(self, rows: Tensor, cost: int) -> Tensor | None:
        """Which rows (m,) their sample can still pay for, earlier rows first; None when all can."""
        if self.budget is None:
            return None
        order = rows.argsort(stable=True)
        sample = rows[order]
        position = torch.arange(len(rows), device=rows.device)
        first = torch.full_like(self.forwards, len(rows)).scatter_reduce(0, sample, position, "amin")
        nth = position - first[sample] + 1
        allowed = torch.empty_like(rows, dtype=torch.bool)
        allowed[order] = nth * cost <= self.remaining[sample]
        return None if bool(allowed.all()) else allowed

    def see(
        self, rows: Tensor, x: Tensor, success: Tensor, distance: Tensor, margin: Tensor, attack: int
    ) -> None:
        """Look at admissible points x (m, …) of the samples in rows (m,); keep what is better than before.

        margin is -inf for a point that may not be kept at all.
        """
        if not len(rows):
            return
        sought = {"first": torch.zeros_like(distance), "nearest": distance, "margin": -margin.double()}[
            self.keep
        ]
        standing = {"first": self.best_distance.new_zeros(len(self.found)), "nearest": self.best_distance}
        rank = torch.where(success, sought, -margin.double())
        record = torch.where(
            self.found, standing.get(self.keep, -self.best_margin.double()), -self.best_margin
        )
        upgrade = success & ~self.found[rows]
        better = upgrade | ((success == self.found[rows]) & (rank < record[rows]))
        row, has = self._best_row_of_each_sample(rows, better, success, rank)

        def update(old: Tensor, new: Tensor) -> Tensor:
            return torch.where(has.reshape(-1, *[1] * (old.dim() - 1)), new, old)

        first = has & success[row] & ~self.found
        self.queries_at_success = torch.where(first, self.forwards, self.queries_at_success)
        self.best_x = update(self.best_x, x[row])
        self.best_margin = update(self.best_margin, margin[row])
        self.best_distance = update(self.best_distance, torch.where(success, distance, torch.inf)[row])
        self.winner = update(self.winner, torch.full_like(self.winner, attack))
        self.found = update(self.found, success[row])

    def _best_row_of_each_sample(
        self, rows: Tensor, better: Tensor, success: Tensor, rank: Tensor
    ) -> tuple[Tensor, Tensor]:
        """For every sample the better row of lowest rank (s,), successes first, the earliest on a tie.

        And whether there is one. Works by scattering, so the host need not wait for the device.
        """
        m = len(rows)
        none = torch.zeros_like(self.winner)
        succeeded = none.scatter_reduce(0, rows, (better & success).long(), "amax")
        eligible = better & (success.long() == succeeded[rows])
        rank = torch.where(eligible, rank, torch.inf)
        lowest = self.best_distance.new_full(self.found.shape, torch.inf).scatter_reduce(
            0, rows, rank, "amin"
        )
        place = torch.where(eligible & (rank == lowest[rows]), torch.arange(m, device=rows.device), m)
        place = torch.full_like(none, m).scatter_reduce(0, rows, place, "amin")
        return place.clamp_max(m - 1), place < m
