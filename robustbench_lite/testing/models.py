"""The laws of models."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.random import Stream
from robustbench_lite.models.checks import answers_twice_alike, gradient_fault, needs_its_batch
from robustbench_lite.testing.check import Check


def model_checks(model: Model, x: Tensor | None = None) -> list[Check]:
    """Every law for a model.

    Parameters
    ----------
    model : Model
    x : Tensor, optional
        (n, *input_shape) inputs that it is tried on; None: random ones in [0, 1].

    Returns
    -------
    list of Check
    """
    points = (
        torch.rand((8, *model.input_shape), generator=torch.Generator().manual_seed(0)) if x is None else x
    )
    return [
        Check(f"{model.name}-{law.__name__}", partial(law, model, points.to(model.device))) for law in LAWS
    ]


def scores_have_a_row_a_sample(model: Model, x: Tensor) -> None:
    """(n, K), finite, on the model's device; of no samples too."""
    scores = _fixed(model, len(x)).scores(x)
    assert scores.shape == (len(x), model.num_classes)
    assert bool(scores.isfinite().all())
    assert len(_fixed(model, 0).scores(x[:0])) == 0


def it_says_what_it_says(model: Model, x: Tensor) -> None:
    """The same twice and in any batch, unless it draws; then the same for the same draw."""
    if model.stochastic:
        first, again = (_fixed(model, len(x)).scores(x) for _ in range(2))
        assert torch.allclose(first, again, atol=1e-5) or model.batch_draws
        return
    assert answers_twice_alike(model, x)
    assert not needs_its_batch(model, x)


def its_input_stays(model: Model, x: Tensor) -> None:
    """Asking changes nothing of what was asked about."""
    before = x.clone()
    _fixed(model, len(x)).scores(x)
    assert torch.equal(before, x)


def predictions_are_classes(model: Model, x: Tensor) -> None:
    """Whole numbers below K; NaN is none."""
    scores = _fixed(model, len(x)).scores(x)
    prediction = model.prediction(scores)
    assert prediction.shape == (len(x),)
    assert bool(((prediction >= 0) & (prediction < model.num_classes)).all())
    assert bool((model.prediction(scores * torch.nan) == -1).all())
    confidence = model.confidence(scores)
    assert confidence is None or bool(((confidence >= 0) & (confidence <= 1 + 1e-6)).all())


def gradients_are_there_where_it_says_so(model: Model, x: Tensor) -> None:
    """A model of gradient access has finite ones, and somewhere one that is not zero."""
    if model.access >= Access.GRADIENT:
        fault = gradient_fault(_fixed(model, len(x)), x)
        assert fault is None, fault


def its_fingerprint_is_its_own(model: Model, x: Tensor) -> None:
    """The same every time, and 64 digits."""
    assert model.fingerprint() == model.fingerprint()
    assert len(model.fingerprint()) == 64


def it_moves(model: Model, x: Tensor) -> None:
    """To the device it is on: the same answers and the same fingerprint."""
    moved = model.to(model.device)
    assert moved.fingerprint() == model.fingerprint()
    assert torch.equal(_fixed(moved, len(x)).scores(x), _fixed(model, len(x)).scores(x)) or model.batch_draws


def it_pickles(model: Model, x: Tensor) -> None:
    """A model can be sent to another process, unless it is someone's function."""
    if model.family == "function":
        return
    sent = pickle.loads(pickle.dumps(model))
    assert sent.fingerprint() == model.fingerprint()


def _fixed(model: Model, rows: int) -> Model:
    return model.draw(Stream.of(0, torch.arange(rows, device=model.device)))


LAWS: Sequence[Callable[[Model, Tensor], None]] = (
    scores_have_a_row_a_sample,
    it_says_what_it_says,
    its_input_stays,
    predictions_are_classes,
    gradients_are_there_where_it_says_so,
    its_fingerprint_is_its_own,
    it_moves,
    it_pickles,
)
