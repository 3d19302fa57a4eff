"""Transformations against other implementations, facts, and their gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidParameter, Unsupported
from robustbench_lite.core.random import Stream
from robustbench_lite.defenses.transformation.jpeg import JPEG, through_transforms
from robustbench_lite.defenses.transformation.preprocessing import Preprocessing, check_images
from robustbench_lite.defenses.transformation.quantising import BitDepth, _Code, soft_round
from robustbench_lite.defenses.transformation.randomised import PixelDeflection, ResizePad
from robustbench_lite.defenses.transformation.smoothing import (
    GaussianBlur,
    Median,
    TotalVariation,
    _FromLibrary,
    _patches,
    _whole,
)
from robustbench_lite.models.behind import Behind, Transformation
from tests.conftest import attack_with

FIXED: list[Preprocessing] = [BitDepth(), JPEG(), GaussianBlur(), Median(), TotalVariation()]


def images(n: int = 6, channels: int = 1, side: int = 12) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def stream(n: int) -> Stream:
    return Stream.of(0, torch.arange(n))


@pytest.mark.parametrize("one", [*FIXED, ResizePad(), PixelDeflection()], ids=lambda one: one.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_stay_images_and_rows_stay_apart(one: Preprocessing, channels: int) -> None:
    x = images(channels=channels)
    keys = stream(6)
    whole = one.apply(x, keys)
    assert whole.shape == x.shape
    assert float(whole.min()) >= -1e-6
    assert float(whole.max()) <= 1 + 1e-6
    rows = torch.tensor([4, 1])
    alone = one.apply(x[rows], Stream(keys.key[rows]))
    assert torch.allclose(alone, whole[rows], atol=1e-6)
    assert len(one.apply(x[:0], Stream(keys.key[:0]))) == 0


@pytest.mark.parametrize("one", FIXED, ids=lambda one: one.name)
def test_gradients_go_through_the_values_that_count(one: Preprocessing) -> None:
    leaf = images().requires_grad_()
    seen = one.smooth(leaf, stream(6))
    assert torch.allclose(seen, one.apply(images(), stream(6)), atol=1e-6)
    (gradient,) = torch.autograd.grad(seen.sum(), leaf)
    assert bool(gradient.isfinite().all())
    assert bool((gradient != 0).any())


def test_median_and_blur_are_scipys() -> None:
    x = images()
    by_scipy = [ndimage.median_filter(image, 3, mode="nearest") for image in x[:, 0].numpy()]
    assert np.allclose(Median(3).apply(x, stream(6))[:, 0], by_scipy)
    by_scipy = [ndimage.gaussian_filter(image, 0.7, mode="nearest", radius=3) for image in x[:, 0].numpy()]
    assert np.allclose(GaussianBlur(0.7).apply(x, stream(6))[:, 0], by_scipy, atol=1e-5)


def test_total_variation_falls_and_what_is_flat_stays() -> None:
    def variation(x: Tensor) -> float:
        return float((x[:, :, 1:] - x[:, :, :-1]).abs().sum() + (x[..., 1:] - x[..., :-1]).abs().sum())

    def length(x: Tensor) -> float:
        down = torch.diff(x, dim=2, append=x[:, :, -1:])
        right = torch.diff(x, dim=3, append=x[..., -1:])
        return float((down**2 + right**2).sqrt().sum())

    x = images()
    less, least = (TotalVariation(weight).apply(x, stream(6)) for weight in (0.02, 0.08))
    assert variation(x) > variation(less) > variation(least)
    assert torch.allclose(less.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=0.02)
    # The objective of Rudin, Osher & Fatemi is lower than at the input, at the mean, and on the way there.
    flat = x.mean((2, 3), keepdim=True).expand_as(x)
    others = [x, flat, (x + flat) / 2, (x + 3 * flat) / 4, less]
    objective = [float((z - x).square().sum() / 2) + 0.08 * length(z) for z in (least, *others)]
    assert objective[0] < min(objective[1:])


def test_levels_and_codes() -> None:
    x = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
    assert len(BitDepth(2).apply(x, stream(1)).unique()) == 4
    code = _Code(8).apply(x, stream(1))
    assert code.shape == (1, 8, 8, 8)
    assert torch.equal(code.sum(1, keepdim=True), (x * 8).ceil())
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(_Code(8).smooth(leaf, stream(1)).sum(), leaf)
    assert bool((slope > 0).all())


def test_jpeg_is_a_file_and_coarser_where_asked() -> None:
    x = torch.nn.functional.interpolate(images(3, 3, 4), 16, mode="bilinear")
    fine, coarse = (JPEG(quality).apply(x, stream(3)) for quality in (95, 5))
    assert float((fine - x).abs().mean()) < 0.02 < float((coarse - x).abs().mean())
    grey = torch.full((1, 1, 8, 8), 128 / 255)
    assert torch.equal(JPEG(75).apply(grey, stream(1)), grey)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 50, 90])
@pytest.mark.parametrize("side", [13, 32])
def test_transforms_with_hard_rounding_are_the_file(channels: int, quality: int, side: int) -> None:
    """Files of colour too, which hold it in half the size; a file's pixels are whole numbers of 255."""
    x = torch.nn.functional.interpolate(images(4, channels, 4), side, mode="bicubic").clamp(0, 1)
    file = JPEG(quality).apply(x, stream(4))
    near = through_transforms(x, quality, torch.round).clamp(0, 1)
    assert float((near - file).abs().mean()) < 0.007
    assert float((x - file).abs().mean()) > (0.02 if quality == 10 else 0.003)
    if channels == 1:
        assert torch.allclose(through_transforms(x, quality, lambda values: values), x, atol=1e-5)


@pytest.mark.parametrize("shade", [0.0, 1.0])
def test_blocks_of_black_and_white_have_slopes_at_every_quality(shade: float) -> None:
    for quality in range(1, 101):
        leaf = torch.full((1, 1, 8, 8), shade, requires_grad=True)
        (slope,) = torch.autograd.grad(JPEG(quality).smooth(leaf, stream(1)).sum(), leaf)
        assert bool((slope > 0).all()), quality


def test_a_rounded_value_is_steepest_where_it_turns() -> None:
    leaf = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, -3.0, 2.5], requires_grad=True)
    (slope,) = torch.autograd.grad(soft_round(leaf).sum(), leaf)
    assert torch.allclose(slope, torch.tensor([0.1, 1.0, 1.9, 1.0, 0.1, 0.1, 1.9]), atol=1e-4)
    levels = BitDepth(2).smooth(leaf.detach()[:5].requires_grad_(), stream(5))
    assert levels.tolist() == pytest.approx([0.0, 1 / 3, 2 / 3, 2 / 3, 1.0])  # values are rounded hard


@pytest.mark.parametrize(
    ("defense", "less"), [("bit_depth(conv_small,bits=1)", 0.75), ("jpeg(conv_small)", 0.95)]
)
def test_slopes_of_rounding_bring_attacks_nearer(defense: str, less: float) -> None:
    """Against the identity's slope, which the model that is not told of the defense has."""
    data = rb.load_data("digits", samples=30)
    model = rb.load_model(defense, data)
    assert isinstance(model, Behind)

    class Straight(type(model.transformation)):  # type: ignore[misc]
        smooth = Transformation.smooth

    told = model.transformation
    plain = Behind(model.model, Straight(**vars(told)), "straight")
    near, far = (attack_with(m, data.x, data.y, "ddn:steps=60", "l2:min").records for m in (model, plain))
    assert near["l2"].median() < less * far["l2"].median()


def test_deflected_pixels_come_from_nearby() -> None:
    x = images(4)
    moved = PixelDeflection(deflections=30, window=1, threshold=0.0).apply(x, stream(4))
    changed = (moved - x).abs() > 1e-5
    assert bool(changed.flatten(1).any(1).all())
    for image, old in zip(moved[:, 0], x[:, 0], strict=True):
        assert set(image.flatten().mul(1e4).round().tolist()) <= set(old.flatten().mul(1e4).round().tolist())


def test_a_box_of_tensors_and_another_box() -> None:
    data = rb.load_data("digits", samples=5)
    one = replace(data, domain=rb.Domain(torch.zeros(1, 8, 8), torch.ones(1, 8, 8)))
    check_images("jpeg", one)
    with pytest.raises(Unsupported, match="lies in another box"):
        check_images("thermometer", replace(data, domain=rb.Domain(0.0, 255.0)))


def test_patches_are_those_of_the_library() -> None:
    x = images(5, 1, 8)
    assert torch.equal(_whole(_patches(x, 4), x, 4), x)
    library = _patches(x, 4).flatten(0, 1)
    assert torch.equal(_FromLibrary(4, 1, library).apply(x, stream(5)), x)
    noisy = (x + 0.01).clamp(0, 1)
    assert torch.allclose(_FromLibrary(4, 1, library).apply(noisy, stream(5)), x)


def test_what_they_fit_and_what_they_do_not() -> None:
    with pytest.raises(Unsupported, match=r"jpeg is for images \(C, H, W\)"):
        rb.load_model("jpeg(tree)", "breast_cancer")
    for wrong in ("bit_depth(cnn,bits=9)", "jpeg(cnn,quality=0)", "resize_pad(cnn,shrink=1)"):
        with pytest.raises(InvalidParameter, match=wrong.partition(",")[2].partition("=")[0]):
            rb.load_model(wrong)
    with pytest.raises(InvalidParameter, match="a divisor of the image's side"):
        rb.load_model("patch_median(conv_small,patch=3)")


@pytest.mark.parametrize("name", ["bit_depth(cnn)", "jpeg(cnn)", "thermometer(cnn)"])
def test_who_knows_the_defense_breaks_more(name: str) -> None:
    data = rb.load_data("digits", samples=150)
    model = rb.load_model(name, data)
    goal = "untargeted,stop=never"
    blind = attack_with(
        model, data.x, data.y, "oblivious(pgd:steps=20,step_size=0.0125)", "linf:0.1", goal=goal
    ).records
    aware = attack_with(model, data.x, data.y, "apgd:steps=50", "linf:0.1").records
    assert aware["success"].mean() > blind["success"].mean() + 0.05
