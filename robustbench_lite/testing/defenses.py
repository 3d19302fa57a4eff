"""The laws of defenses, on small data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import FrozenInstanceError, fields
from functools import partial

import torch

from robustbench_lite.core.errors import RobustError
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.random import Stream
from robustbench_lite.core.registry import build, given, load, look_up, read_name
from robustbench_lite.data.load import DataLike, load_data
from robustbench_lite.models.defense import Defense
from robustbench_lite.models.load import load_model
from robustbench_lite.testing.check import Check
from robustbench_lite.testing.models import model_checks


def defense_checks(text: str, data: DataLike = "digits") -> list[Check]:
    """Every law for a defended model: those of models, and those of what a defense promises.

    Parameters
    ----------
    text : str
        A defense around a base that it fits, trained as shortly as the laws may be tested on, such as
        `pgd_training(conv_small,epochs=1)`.
    data : str or Data, default "digits"

    Returns
    -------
    list of Check

    Raises
    ------
    RobustError
        Where the model cannot be made at all.
    """
    held = load_data(data, samples=16)
    model = load_model(text, held)
    found = model_checks(model, held.x)
    return [*found, *(Check(f"{text}-{law.__name__}", partial(law, text, model, held.x)) for law in LAWS)]


def it_is_called_what_it_was_asked_as(text: str, model: Model, x: torch.Tensor) -> None:
    """Its name is its text, so that records tell defenses apart."""
    assert model.name == text


def what_stands_behind_takes_the_same_inputs(text: str, model: Model, x: torch.Tensor) -> None:
    """An attack that does not know the defense can be judged on it."""
    bare = model.undefended
    assert bare.input_shape == model.input_shape
    assert bare.num_classes <= model.num_classes
    assert bare.undefended is bare


def its_gradient_leads_somewhere(text: str, model: Model, x: torch.Tensor) -> None:
    """To an attacker who knows it: most samples have a slope, and a small step along it raises the loss."""
    if model.access < Access.GRADIENT:
        return
    fixed = model.draw(Stream.of(0, torch.arange(len(x))))
    leaf = x.clone().requires_grad_()
    scores = fixed.gradient_scores(leaf).double()
    y = model.prediction(scores)
    (gradient,) = torch.autograd.grad(scores.log_softmax(1).gather(1, y[:, None]).sum(), leaf)
    assert bool(gradient.isfinite().all())
    steep = gradient.flatten(1).abs().amax(1) > 0
    odds = scores - scores.gather(1, y[:, None])
    sure = odds.scatter(1, y[:, None], -torch.inf).amax(1) < -30  # softmax is flat there in any arithmetic
    assert bool((steep | sure).float().mean() > 0.5)


def the_same_seed_makes_it_again(text: str, model: Model, x: torch.Tensor) -> None:
    """Made a second time it is the same model."""
    assert load_model(text, load_data("digits", samples=16)).fingerprint() == model.fingerprint()


def its_parameters_are_frozen_and_checked(text: str, model: Model, x: torch.Tensor) -> None:
    """A defense is a value, and refuses nonsense in a line."""
    name = read_name("models", text)
    entry = look_up("defenses", name.head)
    cls = load(entry.where, "defense")
    assert isinstance(cls, type)
    assert issubclass(cls, Defense)
    made = build(cls, given(entry, name))
    for field in fields(made):
        try:
            setattr(made, field.name, 1)
        except FrozenInstanceError:
            pass
        else:
            raise AssertionError(f"{field.name} can be set")
        said = _refusal(partial(build, cls, {field.name: "nonsense"}))
        assert said is not None, f"{field.name} takes nonsense"
        assert field.name in said


def what_does_not_fit_is_refused_in_a_line(text: str, model: Model, x: torch.Tensor) -> None:
    """A base that it cannot defend, on images and on a table, is an error of one line, or is defended."""
    head = text.partition("(")[0]
    for base, data in (("tree", "digits"), ("tree", "breast_cancer"), ("cnn", "breast_cancer")):
        said = _refusal(partial(load_model, f"{head}({base})", data))
        assert said is None or "\n" not in said, said


def _refusal(ask: Callable[[], object]) -> str | None:
    try:
        ask()
    except RobustError as error:
        return str(error)
    return None


LAWS: Sequence[Callable[[str, Model, torch.Tensor], None]] = (
    it_is_called_what_it_was_asked_as,
    what_stands_behind_takes_the_same_inputs,
    its_gradient_leads_somewhere,
    the_same_seed_makes_it_again,
    its_parameters_are_frozen_and_checked,
    what_does_not_fit_is_refused_in_a_line,
)
