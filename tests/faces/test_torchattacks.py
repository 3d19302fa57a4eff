"""Code written for torchattacks runs after one import is changed."""

import inspect
import warnings

import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
import robustbench_lite.faces.torchattacks as torchattacks
from robustbench_lite.core.errors import InvalidParameter

CLASSES = [
    name for name, thing in vars(torchattacks).items()
    if isinstance(thing, type) and issubclass(thing, torchattacks.Attack)
    and thing is not torchattacks.Attack and not name.startswith("_")
]  # fmt: skip


@pytest.fixture(scope="module")
def net() -> nn.Module:
    held = rb.load_model("cnn")
    assert isinstance(held, rb.TorchModel)
    return held.module


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    data = rb.load_data("digits", samples=24)
    return data.x, data.y


@pytest.mark.parametrize("name", CLASSES)
def test_called_with_its_defaults_it_returns_images(
    name: str, net: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    images, labels = batch
    small = {"n_queries": 50, "steps": 3} if name in ("Square", "AutoAttack") else {"steps": 3}
    made = getattr(torchattacks, name)
    taken = inspect.signature(made).parameters
    if name == "AutoAttack":
        images, labels = images[:4], labels[:4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        atk = made(net, **{key: value for key, value in small.items() if key in taken})
        adv_images = atk(images, labels)
    assert adv_images.shape == images.shape
    assert adv_images.dtype == images.dtype
    assert 0 <= float(adv_images.min()) <= float(adv_images.max()) <= 1
    if "eps" in taken and name != "PGDL2":
        assert float((adv_images - images).abs().max()) <= 8 / 255 + 1e-6
    assert len(atk.records) == len(images)


@pytest.mark.parametrize("name", CLASSES)
def test_parameters_are_theirs_in_their_order(name: str) -> None:
    theirs = pytest.importorskip("torchattacks")
    mine = list(inspect.signature(getattr(torchattacks, name)).parameters.values())
    original = inspect.signature(getattr(theirs, name)).parameters
    assert [p.name for p in mine] == [known for known in original if known in {p.name for p in mine}]
    for p in mine:
        if p.default is not inspect.Parameter.empty and p.name != "alpha":
            assert p.default == original[p.name].default, p.name


def test_the_first_page_of_their_manual(net: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    atk = torchattacks.PGD(net, eps=0.2, alpha=0.05, steps=10)
    adv_images = atk(images, labels)
    broken = (net(adv_images).argmax(1) != labels).float().mean()
    assert float((adv_images - images).abs().max()) <= 0.2 + 1e-6
    assert broken > 0.8

    target_labels = (labels + 1) % 10
    atk.set_mode_targeted_by_label(quiet=True)
    reached = net(atk(images, target_labels)).argmax(1) == target_labels
    assert reached.float().mean() > 0.3
    net.train()
    atk(images, target_labels)
    assert net.training, "the model stays as it was"
    net.eval()
    atk.set_mode_default()
    assert torch.equal(atk(images, labels), adv_images)
    atk.set_mode_targeted_least_likely()
    least = net(images).argmin(1)
    assert (net(atk(images, labels)).argmax(1) == least).any()
    with pytest.raises(InvalidParameter, match="kth_min"):
        atk.set_mode_targeted_least_likely(2)


def test_images_that_come_normalised_go_back_so(net: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch

    class Wants(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = net(x * 0.5 + 0.25)
            return scores

    atk = torchattacks.PGD(Wants(), eps=0.1, alpha=0.02, steps=5)
    atk.set_normalization_used(mean=[0.25], std=[0.5])
    plain = torchattacks.PGD(net, eps=0.1, alpha=0.02, steps=5)
    found = atk((images - 0.25) / 0.5, labels) * 0.5 + 0.25
    torch.testing.assert_close(found, plain(images, labels), atol=1e-4, rtol=0)


def test_a_step_that_ours_does_not_take_is_warned_about(net: nn.Module) -> None:
    with pytest.warns(UserWarning, match="alpha=0.02 is not taken"):
        torchattacks.MIFGSM(net, eps=0.1, alpha=0.02)
    with pytest.raises(InvalidParameter, match="norm"):
        torchattacks.APGD(net, norm="L3")  # type: ignore[arg-type]
