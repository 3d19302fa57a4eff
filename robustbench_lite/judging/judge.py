"""The judge: knows the original sample, the returned one, the threat and the true model, and nothing else.

No attack's word counts. Every returned point is rendered and looked at as it is, on the true model in its
reference precision, its distance in float64, a second time in another batch size, and after rounding to 8
bits; a stochastic model in draws of the judge's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model, reference_precision
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.random import Stream
from robustbench_lite.core.settings import Search
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.task import NOTHING
from robustbench_lite.core.threat import Norm, Threat, norms
from robustbench_lite.judging.verdict import Outcome, Reason, Verdict

TOLERANCE = 1e-6  # what a float32 rounding may add; within it a point is valid, and marked
BATCH = 1024


class BoundBroken(Exception):
    """A point that the judge found adversarial lies nearer than what was proven: one of the two is wrong."""


@dataclass(frozen=True)
class Clean:
    """What the true model says of n samples without an attack, on the CPU.

    Parameters
    ----------
    scores : Tensor
        (n, K, …): the mean over draws.
    prediction : Tensor
        (n, …): the most frequent one, -1 for NaN.
    rate : Tensor
        (n,): the share of the draws in which it is right.
    confidence : Tensor
        (n,) float64; NaN where the scores have no scale.
    """

    scores: Tensor
    prediction: Tensor
    rate: Tensor
    confidence: Tensor

    def __getitem__(self, rows: slice | Tensor) -> Clean:
        return Clean(self.scores[rows], self.prediction[rows], self.rate[rows], self.confidence[rows])


@dataclass(frozen=True)
class Originals:
    """The samples that were attacked, and what is known of them.

    Parameters
    ----------
    x : Tensor
        (n, …).
    y : Tensor
        (n, …) true classes.
    ids : Tensor
        (n,), that key the draws.
    clean : Clean
    lower_bound : Tensor, optional
        (n,) float64: proven distances that no adversarial example undercuts; None: nothing is proven.
    """

    x: Tensor
    y: Tensor
    ids: Tensor
    clean: Clean
    lower_bound: Tensor | None = None


def look_clean(model: Model, x: Tensor, y: Tensor, ids: Tensor, settings: Search | None = None) -> Clean:
    """What the model says of samples without an attack.

    Parameters
    ----------
    model : Model
    x : Tensor
        (n, *input_shape) float32.
    y : Tensor
        (n, …) true classes.
    ids : Tensor
        (n,), the samples' names, that key the draws of a stochastic model.
    settings : Search, optional
        Its `draws` and `batch_size`.

    Returns
    -------
    Clean

    Examples
    --------
    >>> import robustbench_lite as rb
    >>> digits = rb.load_data("digits", samples=5)
    >>> look_clean(rb.load_model("linear"), digits.x, digits.y, digits.ids).scores.shape
    torch.Size([5, 10])
    """
    answers = _looks(model, x, ids, settings or Search(), "clean")
    predictions = _predictions(model, answers)
    return Clean(
        answers.mean(0),
        _most_frequent(predictions, answers.shape[2]),
        torch.stack([model.task.right(one, y) for one in predictions]).double().mean(0),
        _confidence(model, answers),
    )


def judge(
    model: Model,
    threat: Threat,
    goal: Goal,
    originals: Originals,
    adversarial: object,
    target: Tensor | None = None,
    settings: Search | None = None,
) -> Verdict:
    """The verdict on what is claimed to be adversarial to samples.

    Parameters
    ----------
    model, threat, goal
        The true model, where the points may lie, what they must reach.
    originals : Originals
    adversarial : Tensor
        (n, …): the threat's z, for balls the inputs themselves; anything else is told in the reasons.
    target : Tensor, optional
        (n, k, …): classes to reach, any of which will do.
    settings : Search, optional
        Its `draws`, `batch_size` and `eight_bit`.

    Raises
    ------
    BoundBroken
        Where a success is nearer than what was proven.
    """
    settings = settings or Search()
    x0, y, ids = originals.x, originals.y, originals.ids
    n = len(x0)
    origin = threat.origin(x0)
    complaint = _unusable(adversarial, origin)
    z = adversarial if complaint is None and isinstance(adversarial, Tensor) else origin
    reasons = [complaint] * n if complaint else _inadmissible(threat, z, x0)
    valid = torch.tensor([one is None or one[0] is Reason.ROUNDING for one in reasons], dtype=torch.bool)
    finite = z.flatten(1).isfinite().all(1)
    x = threat.render(torch.where(per_row(finite, z), z, origin), x0)
    everything = torch.arange(n)

    def look(points: Tensor, tag: str, rows: Tensor, size: int | None) -> Tensor:
        return _looks(model, points[rows], ids[rows], settings, tag, size)

    def rate_of(answers: Tensor, rows: Tensor) -> Tensor:
        """In how many of the draws (D, m, K) each row reaches the goal (m,)."""
        return _met(model, goal, answers, y[rows], None if target is None else target[rows])

    answers = look(x, "judge", everything, None)
    prediction = _most_frequent(_predictions(model, answers), answers.shape[2])
    task, before = model.task, originals.clean.prediction
    right = task.open(before, y, target)
    rate = torch.where(valid & right, rate_of(answers, everything), 0.0)
    success = rate > 0.5
    won = success.nonzero()[:, 0]
    again, rounded = (np.full(n, None, dtype=object) for _ in range(2))
    if len(won):
        other = max(1, min(settings.batch_size or BATCH, len(won)) // 2 + 1)
        again[won.numpy()] = (rate_of(look(x, "again", won, other), won) > 0.5).tolist()
    if settings.eight_bit and x0.dim() == 4 and threat.over_inputs and len(won):
        grid, possible = eight_bit_image(threat, x[won], x0[won])
        whole = x.clone()
        whole[won] = grid
        stood = rate_of(look(whole, "8-bit", won, None), won) > 0.5
        rounded[won.numpy()] = (stood & possible).tolist()
    nothing = torch.full((n,), torch.nan, dtype=torch.float64)
    delta = None if complaint else torch.where(per_row(finite, x), x.double() - x0.double(), torch.nan)
    measure = {norm: nothing if delta is None else norms(delta, threat.domain, norm) for norm in Norm}
    distance = nothing if complaint else threat.distance(z, x0)
    if originals.lower_bound is not None:
        _compare(success, distance, originals.lower_bound, threat)
    unseen = torch.full((n,), bool(complaint)) | ~finite
    prediction = torch.where(per_row(unseen, prediction), NOTHING, prediction)
    shares = [task.wrong_share(before, y), torch.where(unseen, torch.nan, task.wrong_share(prediction, y))]
    classes = model.num_classes
    errors = [
        task.error(before, y, classes),
        torch.where(unseen, torch.nan, task.error(prediction, y, classes)),
    ]
    return Verdict(
        clean_prediction=_classes(before),
        clean_rate=originals.clean.rate.numpy(),
        adversarial_prediction=_classes(prediction),
        target=_reached(target, prediction, n),
        success=success.numpy(),
        success_rate=rate.double().numpy(),
        outcome=_outcomes(model, right, success, prediction, unseen),
        clean_wrong_share=shares[0].numpy(),
        wrong_share=shares[1].numpy(),
        clean_error=errors[0].numpy(),
        error=errors[1].numpy(),
        valid=valid.numpy(),
        reason_kind=np.array([None if one is None else str(one[0]) for one in reasons], dtype=object),
        reason=np.array([None if one is None else one[1] for one in reasons], dtype=object),
        second_look=again,
        eight_bit=rounded,
        distance=distance.numpy(),
        l0=measure[Norm.L0].numpy(),
        l0_values=(nothing if delta is None else _changed(delta)).numpy(),
        l1=measure[Norm.L1].numpy(),
        l2=measure[Norm.L2].numpy(),
        linf=measure[Norm.LINF].numpy(),
        clean_confidence=originals.clean.confidence.numpy(),
        adversarial_confidence=torch.where(unseen, torch.nan, _confidence(model, answers)).numpy(),
    )


def eight_bit_image(threat: Threat, x: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
    """x rounded to the 256 levels a PNG holds, inside the threat, and whether there is such a point (n,).

    Each value goes to the nearest level, or, for a sample that this takes out of the ball, to the next
    level towards x0; values that were not changed stay.
    """
    eps = _eps(threat, x0)
    levels = x.double() * 255
    nearest = (levels.round() / 255).to(x.dtype)
    inward = (torch.where(x > x0, levels.floor(), levels.ceil()) / 255).to(x.dtype)
    nearest, inward = (torch.where(x == x0, x0, grid) for grid in (nearest, inward))
    fits = threat.contains(nearest, x0, eps, TOLERANCE)
    grid = torch.where(per_row(fits, x), nearest, inward)
    return grid, threat.contains(grid, x0, eps, TOLERANCE)


def _looks(
    model: Model, x: Tensor, ids: Tensor, settings: Search, tag: str, size: int | None = None
) -> Tensor:
    """True scores (D, n, K, …) in batches, on the CPU; a stochastic model draws anew for every tag.

    Of a model that is a vote the draws are its voters, and D is 1.
    """
    return torch.cat(list(_batches(model, x, ids, settings, tag, size or settings.batch_size or BATCH)), 1)


def _batches(model: Model, x: Tensor, ids: Tensor, settings: Search, tag: str, size: int) -> Iterator[Tensor]:
    oracle = Oracle(model)
    with reference_precision():
        for begin in range(0, max(1, len(x)), size):
            part = slice(begin, begin + size)
            stream = Stream.of(0, ids[part].to(model.device)).fold(tag) if model.stochastic else None
            answers = oracle.truth(x[part].to(model.device), stream, settings.draws).cpu()
            if model.votes:
                answers = _votes(_predictions(model, answers), answers.shape[2])
            yield answers


def _votes(predictions: Tensor, classes: int) -> Tensor:
    """The share of draws (D, n) that each class won (1, n, K); NaN where most had no prediction."""
    none = predictions < 0
    won = torch.nn.functional.one_hot(predictions.clamp_min(0), classes).double() * ~none[..., None]
    shares = won.mean(0, keepdim=True)
    silent = none.double().mean(0) > shares[0].amax(1)
    return torch.where(silent[None, :, None], torch.nan, shares)


def _predictions(model: Model, answers: Tensor) -> Tensor:
    """The class of every draw (D, n, …)."""
    predictions = model.prediction(answers.flatten(0, 1))
    return predictions.view(*answers.shape[:2], *predictions.shape[1:])


def _most_frequent(predictions: Tensor, classes: int) -> Tensor:
    """The class that most draws (D, n, …) gave, the first of equals (n, …); -1 where it is NaN."""
    if len(predictions) == 1:
        return predictions[0]
    counts = torch.nn.functional.one_hot(predictions + 1, classes + 1).sum(0)
    return counts.argmax(-1) - 1


def _unusable(adversarial: object, origin: Tensor) -> tuple[Reason, str] | None:
    """Why nothing returned can be looked at, for the whole set."""
    if not isinstance(adversarial, Tensor):
        return Reason.TYPE, f"returned {type(adversarial).__name__}, not a tensor"
    shape = adversarial.shape
    if len(shape) and shape[1:] == origin.shape[1:] and len(adversarial) != len(origin):
        return Reason.COUNT, f"returned {len(adversarial)} samples for {len(origin)}"
    if shape != origin.shape:
        return Reason.SHAPE, f"returned shape {tuple(shape)} for {tuple(origin.shape)}"
    if not adversarial.is_floating_point():
        return Reason.DTYPE, f"returned {adversarial.dtype} values: an integer image, not one in the box"
    if adversarial.dtype != origin.dtype:
        return Reason.DTYPE, f"returned {adversarial.dtype} for {origin.dtype}"
    return None


def _inadmissible(threat: Threat, z: Tensor, x0: Tensor) -> list[tuple[Reason, str] | None]:
    """What is wrong with each point, or None; one that float32 rounding could explain is only marked."""
    eps = _eps(threat, x0)
    domain = threat.domain
    finite = z.flatten(1).isfinite().all(1)
    x = threat.render(torch.where(per_row(finite, z), z, threat.origin(x0)), x0)
    low, high = domain.bounds(x)
    outside = torch.maximum(low - x, x - high).flatten(1).amax(1).nan_to_num(torch.inf)
    allowed = domain.changed_only_allowed(x, x0) if threat.over_inputs else torch.ones_like(finite)
    distance = threat.distance(z, x0)
    excess = (distance - eps).nan_to_num(torch.inf)
    found: list[tuple[Reason, str] | None] = []
    rows = zip(
        finite.tolist(), outside.tolist(), allowed.tolist(), excess.tolist(), distance.tolist(), strict=True
    )
    for fine, out, may, over, far in rows:
        if not fine:
            found.append((Reason.NOT_FINITE, "has NaN or infinite values"))
        elif out > TOLERANCE:
            found.append((Reason.OUTSIDE_BOX, f"outside the box by {out:.3g}"))
        elif not may:
            found.append((Reason.NOT_ALLOWED, "changes what may not change, or not in whole steps"))
        elif over > TOLERANCE:
            found.append((Reason.OUTSIDE_BALL, f"outside the ball: distance {far:.6g}, {threat}"))
        elif out > 0 or over > 0:
            found.append((Reason.ROUNDING, f"beyond by {max(out, over):.2g}, within rounding"))
        else:
            found.append(None)
    return found


def _met(model: Model, goal: Goal, answers: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    """In how many of the draws (D, n, K) each row reaches the goal, or any of its targets (n,)."""
    draws, n = answers.shape[:2]
    flat, labels = answers.flatten(0, 1), torch.cat([y] * draws)
    confidence = model.confidence(flat) if goal.confidence else None
    if target is None:
        met = goal.met(model.task, flat, labels, None, confidence)
    else:
        each = torch.cat([target] * draws).unbind(1)
        reached = [goal.met(model.task, flat, labels, one, confidence) for one in each]
        met = torch.stack(reached).any(0)
    return met.view(draws, n).double().mean(0)


def _confidence(model: Model, answers: Tensor) -> Tensor:
    """The mean confidence over draws (n,), NaN where the scores have no scale."""
    draws, n = answers.shape[:2]
    confidence = model.confidence(answers.flatten(0, 1))
    if confidence is None:
        return torch.full((n,), torch.nan, dtype=torch.float64)
    return confidence.double().view(draws, n).mean(0)


def _outcomes(model: Model, right: Tensor, success: Tensor, prediction: Tensor, unseen: Tensor) -> np.ndarray:
    found = np.full(len(right), str(Outcome.HELD), dtype=object)
    found[model.task.rejected(prediction).numpy()] = str(Outcome.REJECTED)
    found[(~model.task.answered(prediction) & ~unseen).numpy()] = str(Outcome.NAN)
    found[success.numpy()] = str(Outcome.BROKEN)
    found[~right.numpy()] = str(Outcome.WRONG)
    return found


def _compare(success: Tensor, distance: Tensor, bound: Tensor, threat: Threat) -> None:
    """Raise `BoundBroken` for the first success nearer than what is proven."""
    nearer = (success & (distance < bound * (1 - TOLERANCE))).nonzero()[:, 0]
    if len(nearer):
        i = int(nearer[0])
        raise BoundBroken(
            f"sample {i}: an adversarial example at distance {float(distance[i]):.9g}, {threat}, where a "
            f"bound claims that none is nearer than {float(bound[i]):.9g} ({len(nearer)} such samples)"
        )


def _reached(target: Tensor | None, prediction: Tensor, n: int) -> np.ndarray:
    """The target that was reached, else the first; -1 where none was sought, or it is no single class."""
    if target is None or target.dim() > 2:
        return np.full(n, -1)
    hit = target == prediction[:, None]
    return torch.where(hit.any(1), prediction, target[:, 0]).numpy()


def _classes(prediction: Tensor) -> np.ndarray:
    """The class of every sample (n,); None where an answer has positions."""
    return prediction.numpy() if prediction.dim() == 1 else np.full(len(prediction), None, dtype=object)


def _changed(delta: Tensor) -> Tensor:
    """How many values of each input changed (n,), NaN where it cannot be told."""
    flat = delta.flatten(1)
    return torch.where(flat.isnan().any(1), torch.nan, (flat != 0).sum(1).double())


def _eps(threat: Threat, x0: Tensor) -> Tensor:
    eps = torch.inf if threat.eps is None else threat.eps
    return torch.full((len(x0),), eps, dtype=torch.float64)
