"""What is known of each sample of a batch: its best point so far, and what it has cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

FRESH = 0.1  # the weight of the newest margin in a smoothed one
Keep = Literal["first", "nearest", "margin", "mean"]


@dataclass
class Ledger:
    """The only mutable part of a problem, shared by all its views; one entry a sample, not a row.

    best_z (s, …): the best admissible point seen: the first success; or the success of smallest distance or
    highest margin, as `keep` says; while there is none, the point of highest margin. best_distance (s,)
    float64, inf until found. With `mean`, for models that draw at random: the point whose success rate over
    fresh draws was highest (`rate` (s,), -1 until it was measured), and beside it candidate_z (s, …), where
    the margin, `smoothed` (s,) over the points before it, was highest. streak (s,): draws in a row that
    succeeded; confirmed (s,): whether a point stood in all of many fresh draws.

    forwards, backwards, queries_at_success (s,) int64, the last -1 until found; zero_gradients, nans (s,):
    gradients that were all zero or not finite, and answers that were NaN. winner (s,): which of `attacks`
    found best_z. budget: passes, of either kind, allowed to a sample.
    """

    best_z: Tensor
    keep: Keep
    budget: int | None = None
    attacks: list[str] = field(default_factory=list)
    found: Tensor = field(init=False)
    best_distance: Tensor = field(init=False)
    best_margin: Tensor = field(init=False)
    rate: Tensor = field(init=False)
    candidate_z: Tensor = field(init=False)
    candidate_margin: Tensor = field(init=False)
    smoothed: Tensor = field(init=False)
    streak: Tensor = field(init=False)
    confirmed: Tensor = field(init=False)
    forwards: Tensor = field(init=False)
    backwards: Tensor = field(init=False)
    zero_gradients: Tensor = field(init=False)
    nans: Tensor = field(init=False)
    queries_at_success: Tensor = field(init=False)
    winner: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.best_z = self.best_z.clone()
        n, device = len(self.best_z), self.best_z.device
        self.found = torch.zeros(n, dtype=torch.bool, device=device)
        self.best_distance = torch.full((n,), torch.inf, dtype=torch.float64, device=device)
        self.best_margin = torch.full((n,), -torch.inf, device=device)
        self.rate = torch.full((n,), -1.0, device=device)
        self.confirmed = torch.zeros_like(self.found)
        self.candidate_z, self.candidate_margin = self.best_z.clone(), self.best_margin.clone()
        self.smoothed = self.best_margin.clone()
        counts = [torch.zeros(n, dtype=torch.int64, device=device) for _ in range(5)]
        self.forwards, self.backwards, self.zero_gradients, self.nans, self.streak = counts
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
        self, rows: Tensor, z: Tensor, success: Tensor, distance: Tensor, margin: Tensor, attack: int
    ) -> None:
        """Look at admissible points z (m, …) of the samples in rows (m,); keep what is better than before.

        margin is -inf for a point that may not be kept at all.
        """
        if not len(rows):
            return
        sought = torch.zeros_like(distance)
        record = self.best_distance.new_zeros(len(self.found))
        if self.keep == "nearest":
            sought, record = distance, self.best_distance
        elif self.keep == "margin":
            sought, record = -margin.double(), -self.best_margin.double()
        rank = torch.where(success, sought, -margin.double())
        record = torch.where(self.found, record, -self.best_margin)
        upgrade = success & ~self.found[rows]
        better = upgrade | ((success == self.found[rows]) & (rank < record[rows]))
        row, has = self._best_row_of_each_sample(rows, better, success, rank)
        first = has & success[row] & ~self.found
        self.queries_at_success = torch.where(first, self.forwards, self.queries_at_success)
        self.best_z = _updated(self.best_z, z[row], has)
        self.best_margin = _updated(self.best_margin, margin[row], has)
        reached = torch.where(success, distance, torch.inf)
        self.best_distance = _updated(self.best_distance, reached[row], has)
        self.winner = _updated(self.winner, torch.full_like(self.winner, attack), has)
        self.found = _updated(self.found, success[row], has)

    def propose(self, rows: Tensor, z: Tensor, met: Tensor, draws: int, margin: Tensor) -> None:
        """Look at points of a random model: met (m,) by all of so many draws, their mean margin (m,)."""
        if not len(rows):
            return
        went_on = torch.zeros_like(self.streak).scatter_reduce(0, rows, met.long(), "amax")
        seen = torch.zeros_like(self.found).index_fill(0, rows, True)
        longer = torch.where(went_on > 0, self.streak + draws, 0)
        self.streak = torch.where(seen, longer, self.streak)
        possible = margin > -torch.inf
        row, any_row = self._best_row_of_each_sample(
            rows, possible, torch.zeros_like(possible), -margin.double()
        )
        # One draw is luck: points that follow each other are alike, and their mean says more.
        mean = torch.where(
            self.smoothed > -torch.inf, (1 - FRESH) * self.smoothed + FRESH * margin[row], margin[row]
        )
        self.smoothed = torch.where(any_row, mean, self.smoothed)
        has = any_row & (self.smoothed > self.candidate_margin)
        self.candidate_z = _updated(self.candidate_z, z[row], has)
        self.candidate_margin = _updated(self.candidate_margin, self.smoothed, has)
        unmeasured = has & (self.rate < 0)
        self.best_z = _updated(self.best_z, self.candidate_z, unmeasured)
        self.best_margin = _updated(self.best_margin, self.candidate_margin, unmeasured)

    def measure(
        self, rows: Tensor, z: Tensor, rate: Tensor, distance: Tensor, margin: Tensor, attack: int
    ) -> None:
        """Look at points z (m, …) whose success rate (m,) and mean margin (m,) fresh draws have told."""
        if not len(rows):
            return
        now = self.rate[rows]
        better = (rate > now) | ((rate == now) & (margin > self.best_margin[rows]))
        rank = -rate.double() - 1e-6 * margin.double().sigmoid()
        row, has = self._best_row_of_each_sample(rows, better, torch.zeros_like(better), rank)
        success = has & (rate[row] > 0.5)
        self.queries_at_success = torch.where(success & ~self.found, self.forwards, self.queries_at_success)
        self.best_z = _updated(self.best_z, z[row], has)
        self.best_margin = _updated(self.best_margin, margin[row], has)
        self.rate = _updated(self.rate, rate[row].to(self.rate), has)
        self.best_distance = torch.where(success, distance[row], self.best_distance)
        self.winner = torch.where(success, torch.full_like(self.winner, attack), self.winner)
        self.found = self.found | success

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


def _updated(old: Tensor, new: Tensor, where: Tensor) -> Tensor:
    return torch.where(where.reshape(-1, *[1] * (old.dim() - 1)), new, old)
