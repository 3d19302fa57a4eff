"""The oracle: pieces, draws and precision."""

import torch

from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.random import Stream
from robustbench_lite.models.transformed import Transformed
from tests.conftest import linear_model, samples_of, small_network


def test_pieces_change_nothing() -> None:
    model = small_network()
    x, y = samples_of(model, 23)
    whole, pieces = Oracle(model), Oracle(model, chunk=5)
    assert torch.allclose(whole.truth(x), pieces.truth(x), atol=1e-6)
    for one, other in zip(
        whole.gradient(x, lambda s, rows: cross_entropy(s, y[rows])),
        pieces.gradient(x, lambda s, rows: cross_entropy(s, y[rows])),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-6)
    assert whole.truth(x[:0]).shape == (1, 0, 3)


def test_draws_come_first_and_are_each_samples_own() -> None:
    model = Transformed(linear_model(3, (1, 6, 6)), noise=0.3)
    x = torch.rand(7, 1, 6, 6)
    stream = Stream.of(0, torch.arange(7))
    answers = Oracle(model, eot=4).truth(x, stream)
    assert answers.shape == (4, 7, 3)
    assert not torch.equal(answers[0], answers[1])
    alone = Oracle(model, eot=4).truth(x[5:6], stream[torch.tensor([5])])
    assert torch.allclose(alone[:, 0], answers[:, 5])
    assert Oracle(model, eot=4).truth(x, stream, draws=9).shape == (9, 7, 3)
    gradient, _, drawn = Oracle(model, eot=4).gradient(x, lambda s, rows: s[:, 0], stream)
    assert drawn.shape == (4, 7, 3)
    assert gradient.shape == x.shape


def test_a_gradient_through_a_rendering_is_that_of_the_whole() -> None:
    model = small_network()
    x, y = samples_of(model, 4)
    z = torch.full((4, 1), 0.5)
    leaf = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(cross_entropy(model.scores(x * leaf[:, :, None, None]), y).sum(), leaf)
    found, _, _ = Oracle(model, chunk=3).gradient_through(
        z, lambda part, s: x[s] * part[:, :, None, None], lambda s, rows: cross_entropy(s, y[rows])
    )
    assert torch.allclose(found, expected, atol=1e-6)
