"""SurFree: circles through the sample, in random planes, on which the boundary lies nearer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.attacks.coarse import coarse_shape, enlarged, part_of_side
from robustbench_lite.attacks.decision_based.walk import Walk, Walking
from robustbench_lite.core.parameters import Count
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row, size_of
from robustbench_lite.core.threat import Norm

WIDEST = torch.pi / 6  # the first angle tried
NARROWER = 0.98  # the widest angle tried after a plane where nothing was found; wider by as much where it was
PARTS = 3  # angles tried to either side: the widest, two thirds and one third of it
HALVINGS = 7  # between an angle that stays adversarial and the next wider one that does not


@dataclass(frozen=True, kw_only=True)
class SurFreeState(Walking):
    """widest (n,): the angle that each plane is tried up to, in radians."""

    widest: Tensor


@dataclass(frozen=True)
class SurFree(Walk[SurFreeState]):
    """In the plane of the way to the point and a random direction, the points nearer to the sample by the
    cosine of an angle; the widest angle that stays adversarial (Maho, Furon & Le Merrer 2021, algorithm 1).

    Parameters
    ----------
    steps : int, default 500
        Planes.
    tries : int, default 100
        Random points for the start, as in `Walk`.
    side : int, optional
        Of the coarse images that directions are made of; None: half the image's, and at least 8.

    Notes
    -----
    Cost: at most 13 · steps forward passes, about 8 as a rule, and what the start takes.

    Examples
    --------
    >>> SurFree(steps=3).tries
    100
    """

    steps: Count = 500
    side: Count | None = None

    name = "surfree"
    norms = frozenset({Norm.L2})
    paper = "Maho, Furon & Le Merrer 2021, arXiv:2011.12807"

    def begun(self, problem: Problem, x: Tensor, started: Tensor) -> SurFreeState:
        return SurFreeState(z=x, started=started, widest=torch.full_like(problem.eps, WIDEST))

    def walk(self, problem: Problem, state: SurFreeState) -> SurFreeState:
        x = state.z
        out = x - problem.x0
        distance = size_of(out, 2).clamp_min(1e-12).double()
        out = out / per_row(distance, x)
        way = problem.threat.domain.free(self._direction(problem, x))
        way = way - out * per_row((way * out).flatten(1).sum(1), x)
        way = way / per_row(size_of(way, 2).clamp_min(1e-12), x)

        def at(angle: Tensor, rows: Tensor) -> Tensor:
            turned, size = angle[rows], distance[rows] * angle[rows].cos()
            near, aside = (per_row(size * part, x) for part in (turned.cos(), turned.sin()))
            return problem.threat.domain.clamp(problem.x0[rows] + near * out[rows] + aside * way[rows])

        # From the widest angle inwards, to either side, until one stays adversarial.
        none = torch.zeros_like(problem.eps)
        good, bad = none, none
        for part in range(PARTS, 0, -1):
            for sign in (1.0, -1.0):
                rows = (good == 0).nonzero()[:, 0]
                if not len(rows):
                    break
                angle = sign * state.widest * part / PARTS
                held = rows[problem.decisions(at(angle, rows), rows)]
                good = good.index_copy(0, held, angle[held])
                wider = sign * state.widest * min(part + 1, PARTS + 1) / PARTS
                bad = bad.index_copy(0, held, wider[held])
        rows = (good != 0).nonzero()[:, 0]
        for _ in range(HALVINGS):
            if not len(rows):
                break
            middle = (good + bad) / 2
            stays = problem.decisions(at(middle, rows), rows)
            good = good.index_copy(0, rows[stays], middle[rows[stays]])
            bad = bad.index_copy(0, rows[~stays], middle[rows[~stays]])
        turned = at(good, torch.arange(len(x), device=x.device))
        nearer = (good != 0) & (size_of(turned - problem.x0, 2) < distance)
        return replace(
            state,
            z=torch.where(per_row(nearer, x), turned, x),
            widest=(state.widest * torch.where(good != 0, 1 / NARROWER, NARROWER)).clamp(1e-3, torch.pi / 3),
        )

    def _direction(self, problem: Problem, x: Tensor) -> Tensor:
        """A random smooth image for each row; plain noise for other inputs."""
        shape = tuple(x.shape[1:])
        coarse = coarse_shape(shape, self.side or part_of_side(shape, 2))
        return enlarged(problem.random("direction").gaussian(coarse).to(x), shape)
