"""The judge: knows the original sample, the returned one, the threat and the true model, and nothing else.

No attack's word counts. Every returned point is looked at as it is, on the true model in its reference
precision, its distance in float64, a second time in another batch size, and after rounding to 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model, reference_precision
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm, norms
from robustbench_lite.threats.ball import Lp
from robustbench_lite.threats.box import Box

TOLERANCE = 1e-6  # what a float32 rounding may add; within it a point is valid, and marked


@dataclass(frozen=True)
class Verdict:
    """One entry a sample (n,). NaN, -1 or None stand where there is nothing to say.

    valid: the point may be looked at and lies inside the threat; reason: why not, or a mark. success: valid,
    goal met, and the model was right before. second_look, eight_bit: whether a success stood when looked at
    again in another batch size, and after rounding to 256 levels. Distances: float64.
    """

    clean_prediction: np.ndarray
    adversarial_prediction: np.ndarray
    target: np.ndarray
    success: np.ndarray
    valid: np.ndarray
    reason: np.ndarray
    second_look: np.ndarray
    eight_bit: np.ndarray
    l0: np.ndarray
    l0_values: np.ndarray
    l1: np.ndarray
    l2: np.ndarray
    linf: np.ndarray
    clean_confidence: np.ndarray
    adversarial_confidence: np.ndarray


def clean_scores(model: Model, x: Tensor, batch: int = 1024) -> Tensor:
    """The true model's scores of x (n, …), (n, K) on the CPU."""
    ids = torch.arange(len(x))
    return torch.cat(list(_looks(model, x, ids, batch, "clean")))


def judge(
    model: Model,
    threat: Lp | Box,
    goal: Goal,
    x0: Tensor,
    y: Tensor,
    adversarial: object,
    clean: Tensor,
    target: Tensor | None = None,
    ids: Tensor | None = None,
    batch: int = 1024,
    eight_bit: bool = False,
) -> Verdict:
    """The verdict on what is claimed to be adversarial to x0 (n, …) with classes y (n,).

    clean: the true model's scores of x0 (n, K). target: classes to reach (n, k), any of which will do. ids
    key the draws of a stochastic model.
    """
    n = len(x0)
    ids = torch.arange(n) if ids is None else ids
    complaint = _unusable(adversarial, x0)
    x = adversarial if complaint is None and isinstance(adversarial, Tensor) else x0
    reason: list[str | None] = [complaint] * n if complaint else _inadmissible(threat, x, x0)
    valid = torch.tensor([text is None or text.startswith("beyond") for text in reason])
    finite = x.flatten(1).isfinite().all(1)
    shown = torch.where(finite.reshape(-1, *[1] * (x.dim() - 1)), x, x0)

    def look(points: Tensor, size: int, tag: str, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = torch.cat(list(_looks(model, points[rows], ids[rows], size, tag)))
        met = _met(model, goal, scores, y[rows], None if target is None else target[rows])
        return scores.argmax(1), _confidence(model, scores), met

    everything = torch.arange(n)
    prediction, confidence, met = look(shown, batch, "judge", everything)
    success = valid & met & (clean.argmax(1) == y)
    won = success.nonzero()[:, 0]
    again, rounded = (np.full(n, None, dtype=object) for _ in range(2))
    if len(won):
        other = max(1, min(batch, len(won)) // 2 + 1)
        again[won.numpy()] = look(shown, other, "again", won)[2].tolist()
    if eight_bit and x0.dim() == 4 and len(won):
        grid, possible = eight_bit_image(threat, shown[won], x0[won])
        whole = shown.clone()
        whole[won] = grid
        rounded[won.numpy()] = (look(whole, batch, "8-bit", won)[2] & possible).tolist()
    nothing = torch.full((n,), torch.nan, dtype=torch.float64)
    delta = None if complaint else x.double() - x0.double()
    measure = {norm: nothing if delta is None else norms(delta, threat.domain, norm) for norm in Norm}
    values = nothing if complaint else (x != x0).flatten(1).sum(1).double()
    unseen = torch.full((n,), bool(complaint)) | ~finite
    return Verdict(
        clean_prediction=clean.argmax(1).numpy(),
        adversarial_prediction=torch.where(unseen, -1, prediction).numpy(),
        target=_reached(target, prediction, n),
        success=success.numpy(),
        valid=valid.numpy(),
        reason=np.array(reason, dtype=object),
        second_look=again,
        eight_bit=rounded,
        l0=measure[Norm.L0].numpy(),
        l0_values=values.numpy(),
        l1=measure[Norm.L1].numpy(),
        l2=measure[Norm.L2].numpy(),
        linf=measure[Norm.LINF].numpy(),
        clean_confidence=_confidence(model, clean).numpy(),
        adversarial_confidence=torch.where(unseen, torch.nan, confidence).numpy(),
    )


def eight_bit_image(threat: Lp | Box, x: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
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
    grid = torch.where(fits.reshape(-1, 1, 1, 1), nearest, inward)
    return grid, threat.contains(grid, x0, eps, TOLERANCE)


def stack(verdicts: list[Verdict]) -> Verdict:
    """The verdicts on parts of a set, as one."""
    joined = {f.name: np.concatenate([getattr(v, f.name) for v in verdicts]) for f in fields(Verdict)}
    return Verdict(**joined)


def _looks(model: Model, x: Tensor, ids: Tensor, batch: int, tag: str) -> Iterator[Tensor]:
    """True scores in batches, on the CPU; a stochastic model answers with draws of its own for every tag."""
    oracle = Oracle(model)
    with reference_precision():
        for begin in range(0, max(1, len(x)), batch):
            part = slice(begin, begin + batch)
            stream = Stream.of(0, ids[part].to(model.device)).fold(tag) if model.stochastic else None
            yield oracle.truth(x[part].to(model.device), stream).cpu()


def _unusable(adversarial: object, x0: Tensor) -> str | None:
    """Why nothing returned can be looked at, for the whole set."""
    if not isinstance(adversarial, Tensor):
        return f"returned {type(adversarial).__name__}, not a tensor"
    if len(adversarial.shape) and adversarial.shape[1:] == x0.shape[1:] and len(adversarial) != len(x0):
        return f"returned {len(adversarial)} samples for {len(x0)}"
    if adversarial.shape != x0.shape:
        return f"returned shape {tuple(adversarial.shape)} for {tuple(x0.shape)}"
    if not adversarial.is_floating_point():
        return f"returned {adversarial.dtype} values: an integer image, not one in the box"
    if adversarial.dtype != x0.dtype:
        return f"returned {adversarial.dtype} for {x0.dtype}"
    return None


def _inadmissible(threat: Lp | Box, x: Tensor, x0: Tensor) -> list[str | None]:
    """What is wrong with each point, or None; one that float32 rounding could explain is only marked."""
    eps = _eps(threat, x0)
    domain = threat.domain
    finite = x.flatten(1).isfinite().all(1)
    low, high = domain.bounds(x)
    outside = torch.maximum(low - x, x - high).flatten(1).amax(1).nan_to_num(torch.inf)
    allowed = domain.changed_only_allowed(x, x0)
    distance = threat.distance(x, x0)
    excess = distance - eps
    found: list[str | None] = []
    rows = zip(
        finite.tolist(), outside.tolist(), allowed.tolist(), excess.tolist(), distance.tolist(), strict=True
    )
    for fine, out, may, over, far in rows:
        if not fine:
            found.append("has NaN or infinite values")
        elif out > TOLERANCE:
            found.append(f"outside the box by {out:.3g}")
        elif not may:
            found.append("changes what may not change, or not in whole steps")
        elif over > TOLERANCE:
            found.append(f"outside the ball: distance {far:.6g}, {threat}")
        elif out > 0 or over > 0:
            found.append(f"beyond by {max(out, over):.2g}, within rounding")
        else:
            found.append(None)
    return found


def _met(model: Model, goal: Goal, scores: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    confidence = model.confidence(scores) if goal.confidence else None
    if target is None:
        return goal.met(scores, y, None, confidence)
    reached = [goal.met(scores, y, target[:, k], confidence) for k in range(target.shape[1])]
    return torch.stack(reached).any(0)


def _confidence(model: Model, scores: Tensor) -> Tensor:
    confidence = model.confidence(scores)
    nothing = torch.full((len(scores),), torch.nan, dtype=torch.float64)
    return nothing if confidence is None else confidence.double()


def _reached(target: Tensor | None, prediction: Tensor, n: int) -> np.ndarray:
    """The target that was reached, else the first; -1 where none was sought."""
    if target is None:
        return np.full(n, -1)
    hit = target == prediction[:, None]
    return torch.where(hit.any(1), prediction, target[:, 0]).numpy()


def _eps(threat: Lp | Box, x0: Tensor) -> Tensor:
    eps = torch.inf if threat.eps is None else threat.eps
    return torch.full((len(x0),), eps, dtype=torch.float64)
