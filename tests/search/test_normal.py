"""Attacks see boxes about 1 wide with channels first; what comes back is as it was given."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import Unsupported
from robustbench_lite.search.normal import NormalForm
from tests.conftest import attack_with, small_network

SHAPE = (3, 6, 6)


class ChannelsLast(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x.movedim(3, 1))
        return scores


@pytest.mark.parametrize(
    ("attack", "threat"),
    [
        ("one_pixel:steps=5,population=20", "l0:1"),
        ("one_pixel:method=exhaustive,levels=2", "l0:1"),
        ("sparse_rs:steps=20", "l0:2"),
        ("square:steps=20", "linf:0.1"),
        ("patch:steps=5", "l0:4"),
        ("pgd:steps=5", "l2:0.5"),
        ("noise", "l0:3"),
    ],
)
def test_channels_may_come_last(attack: str, threat: str) -> None:
    first = small_network(3, SHAPE)
    last = rb.TorchModel(ChannelsLast(first.module), (6, 6, 3), name=first.name)
    x = torch.rand((12, *SHAPE), generator=torch.Generator().manual_seed(0))
    y = first.scores(x).argmax(1)
    one = attack_with(first, x, y, attack, threat)
    other = attack_with(last, x.movedim(1, 3), y, attack, threat)
    assert torch.equal(other.success, one.success)
    assert torch.equal(other.adversarial.movedim(3, 1), one.adversarial)
    assert other.records["l0"].tolist() == one.records["l0"].tolist()


def test_a_shape_that_may_be_either_is_an_error_that_names_the_option() -> None:
    model = small_network(3, (3, 8, 3))
    x = torch.rand(2, 3, 8, 3)
    with pytest.raises(Unsupported, match=r"pixel_dim=0"):
        attack_with(model, x, model.scores(x).argmax(1), "noise", "l0:1")
    attack_with(model, x, model.scores(x).argmax(1), "noise", "l0:1", domain=Domain(pixel_dim=0))
    attack_with(model, x, model.scores(x).argmax(1), "noise", "linf:0.1")


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((3, 32, 32), 0), ((32, 32, 3), 2), ((1, 28, 28), 0), ((28, 28, 1), 2), ((5, 7), 0), ((4,), None),
     ((1, 3, 3), 0), ((3, 3, 1), 2), ((8, 8, 8), 0), ((16, 1, 1), 0)],
)  # fmt: skip
def test_the_pixel_axis_is_found(shape: tuple[int, ...], axis: int | None) -> None:
    assert Domain().pixel_axis(shape) == axis
    assert not Domain().ambiguous(shape)


def test_lengths_that_a_user_chose_are_in_the_units_of_x() -> None:
    form = NormalForm.of((1, 8, 8), Domain(0.0, 255.0))
    assert form.unit == 256
    assert str(form.attack(get_attack("pgd:step_size=2"))) == "pgd:step_size=0.0078125"
    assert form.attack(get_attack("spsa")) == get_attack("spsa")
    assert NormalForm.of((1, 8, 8), Domain()).plain


def test_255_levels_are_within_a_hundredth_of_a_box_of_one() -> None:
    data = rb.load_data("digits", samples=200)
    model = rb.load_model("logistic")

    class Levels(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return model.scores(x / 255).float()

    levels = rb.TorchModel(Levels(), (1, 8, 8))
    wide = replace(data, x=data.x * 255, domain=Domain(0.0, 255.0))
    for attack, threat in (
        ("pgd:steps=20", "linf:{}"),
        ("ddn:steps=50", "l2:min"),
        ("cw:steps=200", "l2:min"),
    ):
        one, other = (
            attack_with(m, d.x, d.y, attack, threat.format(0.1 * size), domain=d.domain).records
            for m, d, size in ((model, data, 1), (levels, wide, 255))
        )
        assert abs(one["success"].mean() - other["success"].mean()) <= 0.01
        if threat == "l2:min":
            middle = one["distance"][one["success"]].median()
            assert other["distance"][other["success"]].median() / 255 == pytest.approx(middle, rel=0.01)
