"""The smallest adversarial perturbation there is, where it can be computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.certify.boxes import nearest_in_boxes
from robustbench_lite.certify.halfspace import outward, smallest_move
from robustbench_lite.certify.polytope import smallest_step
from robustbench_lite.core.model import Access, Boxes, Linear, Model
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import Attack, Iterate
from robustbench_lite.threats.ball import Lp

OVERSHOOT = (0.0, 1e-7, 1e-6, 1e-5, 1e-4)  # how far past the boundary, relative to the scores
ROOM = 1 << 24  # numbers held at once


@dataclass(frozen=True)
class Exact(Attack):
    """The nearest point of another class: closed form for linear models, every leaf for a decision tree.

    Linear: for each class j the smallest t with the sum over features of |w_j - w_y| · move = the gap of the
    scores, where move is min(t, room) (linf), min(t |w|, room) (l2), the largest weights first (l1), or the
    pixels that gain most (l0); room is the distance to the box; the least over j. Targeted, the target has
    to pass every other class: a linear (linf, l1), quadratic (l2) or integer (l0) programme a sample. Tree: x
    clipped into each leaf's box, the nearest of a sought class, to the last float. Cost: at most 5 (K - 1)
    forward passes for linear models (targeted: 5), 1 for trees.
    """

    name = "exact"
    access = Access.STRUCTURE
    minimal = True
    exact = True
    paper = "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599; Chen et al. 2019, arXiv:1906.03849"

    def refuses(self, model: Model, threat: Threat) -> str | None:
        refusal = super().refuses(model, threat)
        if refusal is None and not isinstance(threat, Lp):
            return f"exact measures in l0, l1, l2 or linf; not in {threat}"
        return refusal

    def start(self, problem: Problem) -> Iterate:
        structure, threat = problem.oracle.model.structure, problem.threat
        assert isinstance(threat, Lp)
        match structure:
            case Linear() if problem.target is not None:
                _linear_targeted(problem, structure, threat, problem.target)
            case Linear():
                _linear(problem, structure, threat)
            case Boxes():
                for rows in torch.split(torch.arange(len(problem)), max(1, ROOM // structure.low.numel())):
                    part = problem[rows.to(problem.row.device)]
                    sought = structure.label != part.y[:, None]
                    if part.target is not None:
                        sought = structure.label == part.target[:, None]
                    part.scores(nearest_in_boxes(part.x0, structure, sought, threat))
        return Iterate(x=problem.best_x)


def _linear(problem: Problem, structure: Linear, threat: Lp) -> None:
    """Score the nearest point of every class, a little past the boundary where rounding asks for it."""
    weight, bias = (part.to(problem.x0.device) for part in (structure.weight, structure.bias))
    scores = problem.x0.double().flatten(1) @ weight.T + bias
    for offset in range(1, len(bias)):  # classes, not samples
        other = (problem.y + offset) % len(bias)
        direction = weight[other] - weight[problem.y]
        gap = (scores.gather(1, problem.y[:, None]) - scores.gather(1, other[:, None]))[:, 0]
        scale = gap.abs() + scores.abs().amax(1)
        rows = torch.arange(len(problem), device=problem.row.device)
        for overshoot in OVERSHOOT:
            part, need = problem[rows], (gap + overshoot * scale)[rows]
            answer = part.scores(smallest_move(part.x0, direction[rows], need.clamp_min(0), threat))
            rows = rows[(answer.argmax(1) == part.y) & answer.isfinite().all(1)]
            if not len(rows):
                break


def _linear_targeted(problem: Problem, structure: Linear, threat: Lp, target: Tensor) -> None:
    """Score the nearest point where the target passes every other class; a programme a sample."""
    weight, bias = (part.cpu().numpy() for part in (structure.weight, structure.bias))
    domain, like = threat.domain, problem.x0
    origin = like.double().flatten(1).cpu().numpy()
    low, high = (b.expand_as(like).double().flatten(1).cpu().numpy() - origin for b in domain.bounds(like))
    if domain.mask is not None:
        fixed = ~domain.mask.expand_as(like).flatten(1).cpu().numpy()
        low[fixed], high[fixed] = 0.0, 0.0
    count = domain.pixels(like[:1]).shape[1]
    number = torch.arange(count, device=like.device, dtype=like.dtype)[None]
    pixel = domain.spread(number, like[:1]).flatten().long().cpu().numpy()
    scores = origin @ weight.T + bias
    rows = torch.arange(len(problem), device=like.device)
    for overshoot in OVERSHOOT:
        steps = np.zeros((len(rows), origin.shape[1]))
        for i, row in enumerate(rows.tolist()):
            to = int(target[row])
            others = np.arange(len(bias)) != to
            need = scores[row, others] - scores[row, to] + overshoot * np.abs(scores[row]).max()
            step = smallest_step(weight[to] - weight[others], need, low[row], high[row], threat.norm, pixel)
            steps[i] = 0.0 if step is None else step
        part, delta = problem[rows], torch.from_numpy(steps).to(like.device).reshape(-1, *like.shape[1:])
        point = domain.clamp(outward(part.x0.double() + delta, part.x0, delta))
        answer = part.scores(point)
        rows = rows[
            (answer.argmax(1) != target[rows])
            & answer.isfinite().all(1)
            & (point != part.x0).flatten(1).any(1)
        ]
        if not len(rows):
            break
