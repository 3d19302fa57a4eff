"""What is asked of a user's model before it is trusted: the same answer twice, alone, and with a gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.guard import one_line
from robustbench_lite.core.model import Model, reference_precision
from robustbench_lite.core.random import Stream
from robustbench_lite.core.task import Classification

ROUNDING = 1e-3  # of the largest score: what another batch size may change
SIZES = (1, 2, 8, 16, 32, 64, 128, 256)  # batches that are tried where a model does not take four rows


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


def rows_taken(call: Callable[[Tensor], object], x: Tensor) -> int:
    """The one size of batch that a model takes, 0 where it takes any; raises what it says of x (n, …)."""
    try:
        call(x.clone())
    except InvalidModel as error:
        for rows in SIZES:
            try:
                call(x[torch.arange(rows, device=x.device) % len(x)])
            except InvalidModel:
                continue
            return rows
        raise error
    try:
        call(x[:-1].clone())
    except InvalidModel:
        return len(x)
    return 0


def in_batches_of(rows: int, call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The answers (n, K) to x (n, …), asked in batches of so many rows, the last one filled up."""
    answers = []
    for part in torch.split(x, rows):
        more = part[-1:].expand(rows - len(part), *part.shape[1:])
        answers.append(call(torch.cat([part, more]))[: len(part)])
    return torch.cat(answers)


Kind = TypeVar("Kind", bound=Model)


def fitted_to(model: Kind, classes: int | None, reject: int | None = None) -> Kind:
    """The model for data of so many classes, with a class that rejects where one is named.

    It may know more classes than the data has. Raises `InvalidModel` where scores and classes do not fit.
    """
    name, scores = model.name, model.num_classes
    if classes is not None and scores < classes:
        raise InvalidModel(f"{name}: gives {scores} scores; the data has {classes} classes")
    if reject is not None and model.task.kind != "classification":
        raise InvalidModel(f"{name}: reject = {reject}: a {model.task.kind} has no class that rejects")
    if reject is not None and not 0 <= reject < scores:
        raise InvalidModel(f"{name}: reject = {reject}: must be one of its classes, 0 to {scores - 1}")
    if reject is None:
        return model
    held = copy.copy(model)
    held.__dict__.pop("_fingerprint", None)
    held.task = Classification(reject)
    return held


def draws_alone(model: Model, x: Tensor) -> bool:
    """Whether a fixed draw repeats itself, and is the same for a sample alone as among others."""
    stream = Stream.of(0, torch.arange(len(x), device=x.device))
    last = torch.arange(len(x) - 1, len(x), device=x.device)
    with torch.no_grad(), reference_precision():
        first, again = (model.draw(stream).scores(x) for _ in range(2))
        try:
            alone = model.draw(stream[last]).scores(x[last])
        except (RuntimeError, ValueError):  # some cannot do with a single sample
            return False
    return _close(first, again) and _close(first[-1:], alone)


def gradient_fault(model: Model, x: Tensor) -> str | None:
    """Why gradients cannot be had of the scores at x (n, …); None where they can."""
    leaf = x.detach().requires_grad_()
    try:
        with torch.enable_grad():
            scores = model.gradient_scores(leaf)
            weight = torch.linspace(1, 2, scores.shape[1], device=scores.device, dtype=scores.dtype)
            (gradient,) = torch.autograd.grad((scores.movedim(1, -1) * weight).sum(), leaf)
    except (RuntimeError, NotImplementedError, InvalidModel) as error:
        return f"its scores have no gradient ({one_line(error)})"
    if not bool(gradient.isfinite().all()):
        return "its gradient is NaN or infinite"
    return None if bool((gradient != 0).any()) else "its gradient is zero everywhere it was tried"


def _close(one: Tensor, other: Tensor) -> bool:
    room = ROUNDING * one.abs().amax().clamp_min(1e-6)
    return bool(((one - other).abs() <= room).all())
