"""What is asked of a user's model before it is trusted: the same answer twice, alone, and with a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.core.model import Model, reference_precision

ROUNDING = 1e-3  # of the largest score: what another batch size may change


def answers_twice_alike(model: Model, x: Tensor) -> bool:
    """Whether two calls give the same scores for x (n, …)."""
    with torch.no_grad(), reference_precision():
        return _close(model.scores(x), model.scores(x))


def needs_its_batch(model: Model, x: Tensor) -> bool:
    """Whether a sample of x (n, …) scores differently alone: what batch statistics left switched on do."""
    with torch.no_grad(), reference_precision():
        together = model.scores(x)[-1:]
        try:
            return not _close(model.scores(x[-1:]), together)
        except (RuntimeError, ValueError):  # some cannot do with a single sample
            return True


def gradient_fault(model: Model, x: Tensor) -> str | None:
    """Why gradients cannot be had of the scores at x (n, …); None where they can."""
    leaf = x.detach().requires_grad_()
    try:
        with torch.enable_grad():
            scores = model.gradient_scores(leaf)
            weight = torch.linspace(1, 2, scores.shape[1], device=scores.device, dtype=scores.dtype)
            (gradient,) = torch.autograd.grad((scores * weight).sum(), leaf)
    except (RuntimeError, NotImplementedError) as error:
        return f"its scores have no gradient ({str(error).splitlines()[0]})"
    if not bool(gradient.isfinite().all()):
        return "its gradient is NaN or infinite"
    return None if bool((gradient != 0).any()) else "its gradient is zero everywhere it was tried"


def _close(one: Tensor, other: Tensor) -> bool:
    room = ROUNDING * one.abs().amax().clamp_min(1e-6)
    return bool(((one - other).abs() <= room).all())
