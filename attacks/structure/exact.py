"""The smallest adversarial perturbation there is, where it can be computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robustbench_lite.certify.certifier import Question, certify
from robustbench_lite.certify.linear import Aim, nearest_point, scores_of
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.structure import SOLVED, Boxes, Linear
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate, Schedule

OVERSHOOT = (0.0, 1e-7, 1e-6, 1e-5, 1e-4)  # how far past the boundary, relative to the scores
REACHED = 1e-4  # how far, relative to the scores, a point may be from the boundary by rounding


@dataclass(frozen=True)
class Exact(Attack[Iterate]):
    """The nearest point of another class: of linear models, trees, forests, boosting, nearest neighbours.

    Linear: for each class j the smallest t with the sum over features of |w_j - w_y| · move = the gap of the
    scores, where move is min(t, room) (linf), min(t |w|, room) (l2), the largest weights first (l1), or the
    pixels that gain most (l0); room is the distance to the box; the least over j. Targeted, the target has
    to pass every other class: a linear (linf, l1), quadratic (l2) or integer (l0) programme a sample. Others:
    the nearest point that proving the sample's lower bound has met, by the search that the certifier of the
    model describes; where that search ended early, the record's `bound_kind` is sound, not exact.

    Notes
    -----
    Cost: at most 5 (K - 1) forward passes for linear models (targeted: 5), 1 for others, whose work is done
    by their certifier and counted there. Where the features of a linear model take steps, a programme of
    whole numbers a sample and class is solved: tens of milliseconds for 64 features in 16 steps, seconds for
    784 in 255. Each ends after 1,000 branches with a warning that the point is not proven to be the nearest;
    the bounds recorded are of the relaxation, and hold.

    Examples
    --------
    >>> Exact().minimum_norm
    True
    """

    name = "exact"
    access = Access.STRUCTURE
    minimum_norm = True
    paper = "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599; Chen et al. 2019, arXiv:1906.03849"

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        refusal = super().refuses(model, threat, goal)
        if refusal is not None:
            return refusal
        held = model.structure
        if not isinstance(held, SOLVED):
            return (
                f"exact knows linear models, trees, forests, boosting and nearest neighbours; {model.name} "
                "is none of them"
            )
        if threat.domain.groups is not None and not isinstance(held, Linear):
            return f"exact knows choices of several features on linear models only; {model.name} is none"
        if threat.domain.spacing is not None and not isinstance(held, Linear | Boxes):
            return f"exact knows whole steps on linear models and single trees only; {model.name} is neither"
        if threat.domain.orders:
            return "exact does not know features of which one may not pass another"
        if goal.confidence or (goal.margin and not isinstance(held, Linear)):
            return f"exact finds the nearest other class; the goal {goal} asks for more on {model.name}"
        if model.task.reject is not None:
            return f"exact finds the nearest other class; {model.name} has one that rejects"
        return None

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(passes=1 + model.num_classes)

    def start(self, problem: Problem) -> Iterate:
        structure, norm = problem.oracle.model.structure, problem.threat.norm
        assert norm is not None
        if isinstance(structure, Linear):
            classes = [None] if problem.target is not None else range(1, len(structure.bias))
            for offset in classes:
                _score_nearest(problem, structure, norm, offset)
            return Iterate(z=problem.best_z)
        nearest = problem.nearest
        if nearest is None:
            target = None if problem.target is None else problem.target[:, None]
            threat, goal = problem.threat, problem.goal
            found = certify(Question(problem.oracle.model, threat, goal, problem.x0, problem.y, target))
            nearest = problem.x0 if found is None or found.nearest is None else found.nearest
        problem.scores(nearest)
        return Iterate(z=problem.best_z)


def _score_nearest(problem: Problem, structure: Linear, norm: Norm, offset: int | None) -> None:
    """Score the nearest point of a class, a little past the boundary where rounding asks for it."""
    rows = torch.arange(len(problem), device=problem.row.device)
    for overshoot in OVERSHOOT:
        part = problem[rows]
        to = part.target if offset is None else (part.y + offset) % len(structure.bias)
        assert to is not None
        point = nearest_point(
            Aim(structure, norm, problem.threat.domain, offset is None, problem.goal.margin, overshoot),
            part.x0,
            part.y,
            to,
        )
        if offset is not None and part.threat.domain.spacing is None:
            # Where the box does not reach the class there is no such point.
            there = scores_of(structure, point)
            lead = (there.gather(1, to[:, None]) - there.gather(1, part.y[:, None]))[:, 0]
            point = torch.where(per_row(lead >= -REACHED * there.abs().amax(1), point), point, part.x0)
        answer = part.scores(point)
        prediction = problem.oracle.model.prediction(answer)
        missed = ~part.met(answer) if offset is None else prediction == part.y
        missed = missed | (problem.goal.margin > 0) & ~part.met(answer)
        rows = rows[missed & answer.isfinite().all(1) & (point != part.x0).flatten(1).any(1)]
        if not len(rows):
            break
