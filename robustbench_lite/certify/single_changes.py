"""Every change of a single feature or choice, asked of the model itself: where all of them take steps.

What an exhaustive one-pixel attack finds is the truth only on its grid. Where the domain itself is a grid, as
in tables of whole numbers and categories, no change is left out, whatever the model is.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robustbench_lite.certify.certifier import Bounds, Question
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.threat import Norm, Threat

MOST = 20_000  # questions to the model for a sample, at the usual effort
ROWS = 1 << 11  # asked at once
ROOM = 1 << 20  # changes held at once


class SingleChangeBounds:
    """In l0: whether one change suffices, and else that it takes two."""

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        """None in l0 for features that all take steps, each a pixel of its own."""
        domain, shape = threat.domain, model.input_shape
        if threat.norm is not Norm.L0 or domain.spacing is None or model.stochastic:
            return "single changes are counted in l0, where features take steps and answers stay the same"
        if domain.groups is None and domain.pixel_axis(shape) is not None and _channels(domain, shape) > 1:
            return "a pixel of several channels has too many values"
        free = torch.ones(shape, dtype=torch.bool) if domain.mask is None else domain.mask.cpu().expand(shape)
        if bool((domain.spacing.cpu().expand(shape)[free] == 0).any()):
            return "some features may take any value"
        ends = (side.cpu().expand(1, *shape)[0][free] for side in domain.bounds(torch.zeros(1, *shape)))
        if not all(bool(end.isfinite().all()) for end in ends):
            return "some features have values without an end"
        return None

    def bounds(self, question: Question) -> Bounds:
        """1 and exact where one change is enough, else 2; nothing for samples with too many changes."""
        x0, domain = question.x0, question.threat.domain
        distance = torch.full_like(question.y, 2, dtype=torch.float64)
        nearest = x0.clone()
        most = int(MOST * question.effort)
        few = torch.cat([_counts(part, domain)[1].sum(1) <= most for part in torch.split(x0, ROWS)])
        distance[~few] = torch.nan
        for rows in torch.split(few.nonzero()[:, 0], max(1, ROOM // max(1, most))):
            if not len(rows):
                break
            question.progress(int(rows[0]) / len(x0))
            row, feature, value = _changes(x0[rows], domain)
            for point, own in _points(question, rows[row], feature, value):
                answer = question.model.prediction(question.model.scores(point))
                there = question.sought[own].gather(1, answer.clamp_min(0)[:, None])[:, 0] & (answer >= 0)
                distance[own[there]] = 1.0
                nearest[own[there]] = point[there]
        return Bounds(distance, distance == 1, "every single change", nearest=nearest)


def _channels(domain: Domain, shape: tuple[int, ...]) -> int:
    axis = domain.pixel_axis(shape)
    return 1 if axis is None else shape[axis]


def _counts(x0: Tensor, domain: Domain) -> tuple[Tensor, Tensor]:
    """The least step of each feature (n, d), and how many values it may take, its own among them."""
    assert domain.spacing is not None
    least, most = (side.flatten(1).long() for side in domain.steps(x0))
    counts = (most - least + 1).clamp_min(0)
    if domain.mask is not None:
        counts = counts * domain.mask.to(x0.device).expand(x0.shape[1:]).flatten()
    return least, counts


def _changes(x0: Tensor, domain: Domain) -> tuple[Tensor, Tensor, Tensor]:
    """Row, feature and new value of every change of one feature; of a choice, the one chosen instead."""
    assert domain.spacing is not None
    x = x0.flatten(1).double()
    least, counts = _counts(x0, domain)
    unit = domain.spacing.to(x0.device).expand(x0.shape[1:]).flatten().double()
    counts = counts.flatten()
    place = torch.arange(len(counts), device=x0.device).repeat_interleave(counts)
    first = counts.cumsum(0) - counts
    step = torch.arange(len(place), device=x0.device) - first[place] + least.flatten()[place]
    row, feature = place // x.shape[1], place % x.shape[1]
    value = (x[row, feature] + step * unit[feature]).to(x0.dtype)
    changed = step != 0
    return row[changed], feature[changed], value[changed]


def _points(
    question: Question, row: Tensor, feature: Tensor, value: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """The points of changes that the domain allows, as many at once as are asked, and whose they are."""
    domain, x0 = question.threat.domain, question.x0
    for some in torch.split(torch.arange(len(row), device=row.device), ROWS):
        own, at = row[some], feature[some]
        flat = x0[own].flatten(1).clone()
        if domain.groups is not None:  # what was chosen before is not any more
            groups = domain.groups.to(row.device)
            same = (groups[None] == groups[at][:, None]) & (groups[at] >= 0)[:, None]
            flat = torch.where(same, 0.0, flat)
        flat[torch.arange(len(own), device=row.device), at] = value[some]
        point = domain.clamp(flat.reshape(-1, *x0.shape[1:]))
        fine = domain.admits(point, x0[own])
        yield point[fine], own[fine]
