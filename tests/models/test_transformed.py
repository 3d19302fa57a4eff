"""Random transformations of the input, and attacks that hold on average over them."""

import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidParameter, Unsupported
from robustbench_lite.core.random import Stream
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.transformed import RandomCamera, Transformed
from tests.conftest import attack_with, linear_model, samples_of, small_network


class Pixels(nn.Module):
    """Scores are the pixels themselves, so that a transformation can be seen."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def seen(x: Tensor, ids: Tensor | None = None, **settings: float) -> Tensor:
    shape = tuple(x.shape[1:])
    wrapped = Transformed(TorchModel(Pixels(), shape, outputs="logits"), **settings)
    ids = torch.arange(len(x)) if ids is None else ids
    return wrapped.draw(Stream.of(0, ids)).scores(x).view_as(x)


def test_nothing_asked_changes_nothing_and_each_row_has_its_own_draw() -> None:
    x = torch.rand(6, 1, 9, 9)
    assert torch.equal(seen(x), x)
    all_rows = seen(x, rotation=40, shift=0.2, scale=0.2, noise=0.05)
    assert not torch.allclose(all_rows, x)
    alone = seen(x[4:], torch.tensor([4, 5]), rotation=40, shift=0.2, scale=0.2, noise=0.05)
    assert torch.allclose(alone, all_rows[4:], atol=1e-6)


def test_a_disc_may_be_turned_and_a_point_moves_no_further_than_allowed() -> None:
    place = torch.arange(33) - 16.0
    disc = (-(place[:, None] ** 2 + place**2) / 40).exp().expand(20, 1, 33, 33)
    assert float((seen(disc, rotation=180) - disc).abs().max()) < 0.02
    point = torch.zeros(200, 1, 21, 21)
    point[:, :, 10, 10] = 1
    row = (seen(point, shift=0.1).sum(3)[:, 0] * torch.arange(21)).sum(1) - 10
    assert 1.5 < float(row.abs().max()) <= 2.1 + 1e-4
    assert float(row.min()) < -1.5 < 1.5 < float(row.max())
    whole = seen(torch.full((100, 1, 21, 21), 0.5), noise=0.1)
    assert float(whole.std()) == pytest.approx(0.1, rel=0.05)


def test_its_gradient_is_that_of_what_it_says() -> None:
    wrapped = Transformed(small_network(), rotation=20, shift=0.1).draw(Stream.of(0, torch.arange(3)))
    x = torch.rand(3, 1, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(wrapped.gradient_scores(x)[:, 0].sum(), x)
    way = torch.rand(3, 1, 4, 4)
    near = [wrapped.scores(x.detach() + h * way)[:, 0] for h in (1e-3, -1e-3)]
    assert torch.allclose((gradient * way).flatten(1).sum(1), (near[0] - near[1]) / 2e-3, atol=2e-2)


def test_an_expectation_over_draws_holds_where_a_single_draw_does_not() -> None:
    data = rb.load_data("digits", samples=150)
    wrapped = Transformed(rb.load_model("logistic", data), shift=0.06, rotation=10)
    one, many = (
        attack_with(
            wrapped, data.x, data.y, "pgd:steps=20", "linf:0.1", goal="untargeted,stop=never", eot=eot
        )
        for eot in (1, 16)
    )

    def broken(adversarial: Tensor) -> float:
        """How often a fresh draw is wrong."""
        stream = Stream.of(99, data.ids)
        wrong = [wrapped.draw(stream.fold(k)).scores(adversarial).argmax(1) != data.y for k in range(30)]
        return float(torch.stack(wrong).float().mean())

    clean = broken(data.x)
    assert broken(many.adversarial) > broken(one.adversarial) + 0.02
    assert broken(one.adversarial) > clean + 0.05
    assert int(many.records["forwards"].max()) >= 16 * 20


def test_names_and_what_is_no_image() -> None:
    data = rb.load_data("digits", samples=20)
    made = rb.load_model("transformed(logistic,rotation=10,noise=0.05)", data)
    assert isinstance(made, Transformed)
    assert made.transformation == RandomCamera(rotation=10.0, noise=0.05)
    assert made.name == "transformed(logistic,rotation=10,noise=0.05)"
    assert made.fingerprint() != made.model.fingerprint()
    with pytest.raises(InvalidParameter, match="rotation = 200"):
        rb.load_model("transformed(logistic,rotation=200)", data)
    with pytest.raises(Unsupported, match="only images"):
        Transformed(linear_model(2, (5,)))
    x, y = samples_of(linear_model(3, (1, 4, 4)), 5)
    found = attack_with(Transformed(linear_model(3, (1, 4, 4)), shift=0.1), x, y, "pgd", "linf:0.1")
    assert found.records["valid"].all()
