"""Corruptions against their formulas' facts, and against scipy and Pillow where those compute the same."""

import io
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from torch import Tensor

import robustbench_lite as rb
from robustbench_lite.attacks.corruptions import blur, digital, noise, weather
from robustbench_lite.attacks.corruptions.corruption import KINDS, Corruption
from robustbench_lite.core.errors import InvalidParameter, Unsupported
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.parameters import hints_of
from robustbench_lite.core.random import Stream
from robustbench_lite.threats.box import Box
from tests.conftest import attack_with, linear_model, samples_of

N = 12
STREAM = Stream.of(0, torch.arange(N))


def images(channels: int = 3, side: int = 32) -> Tensor:
    """Smooth images with some detail."""
    drawn = Stream.of(5, torch.arange(N)).uniform((channels, side, side))
    return (0.2 + 0.6 * blur.smoothed(drawn, 1.5) + 0.2 * drawn - 0.1).clamp(0, 1)


def test_every_kind_is_listed_and_keeps_the_shape() -> None:
    assert set(KINDS) == set(get_args(hints_of(Corruption)["kind"]))
    for channels, side in ((3, 32), (1, 8), (3, 80)):
        x = images(channels, side)[:2]
        for name, corrupt in KINDS.items():
            if (name == "saturate" and channels == 1) or (name == "glass_blur" and side > 64):
                continue
            found = corrupt(x, 3, side <= 64, Stream.of(0, torch.arange(2)))
            assert found.shape == x.shape, name
            assert found.isfinite().all(), name


@pytest.mark.parametrize("name", [name for name in KINDS if name != "saturate"])
def test_a_higher_severity_is_further_away(name: str) -> None:
    """On average; by their authors' numbers glass and elastic fields go up and down."""
    x = images()
    away = [float((KINDS[name](x, s, True, STREAM).clamp(0, 1) - x).square().mean()) for s in range(1, 6)]
    assert all(away)
    if name not in ("glass_blur", "elastic_transform"):
        assert away[0] < away[4]
        assert away == sorted(away) or name == "snow"


def test_noise_has_the_moments_of_its_formula() -> None:
    x = torch.full((N, 3, 64, 64), 0.4)
    for severity, small in ((1, True), (5, True), (3, False)):
        place = (not small, severity - 1)
        added = noise.gaussian_noise(x, severity, small, STREAM) - x
        assert float(added.mean()) == pytest.approx(0, abs=0.003)
        assert float(added.std()) == pytest.approx(noise.GAUSSIAN[place[0]][place[1]], rel=0.02)
        times = noise.speckle_noise(x, severity, small, STREAM) - x
        assert float(times.std()) == pytest.approx(0.4 * noise.SPECKLE[place[0]][place[1]], rel=0.02)
        hit = noise.impulse_noise(x, severity, small, STREAM)
        assert float((hit != x).float().mean()) == pytest.approx(noise.IMPULSE[place[0]][place[1]], rel=0.05)
        assert float(hit[hit != x].mean()) == pytest.approx(0.5, abs=0.05)
        photons = noise.SHOT[place[0]][place[1]]
        shot = noise.shot_noise(x, severity, small, STREAM)
        assert float(shot.mean()) == pytest.approx(0.4, rel=0.02)
        assert float(shot.var()) == pytest.approx(0.4 / photons, rel=0.05)
        assert torch.allclose(shot * photons, (shot * photons).round(), atol=1e-3)


def test_poisson_numbers_are_their_quantiles() -> None:
    mean = torch.tensor([0.0, 0.01, 0.7, 3.0, 40.0, 500.0], dtype=torch.float64).repeat(200)
    uniform = torch.linspace(0.0005, 0.9995, len(mean), dtype=torch.float64)
    found = noise.poisson(mean, uniform)
    assert np.array_equal(found.numpy(), stats.poisson.ppf(uniform.numpy(), mean.numpy()).clip(0))


def test_blurs_are_those_of_scipy() -> None:
    x = images()
    for severity in range(1, 6):
        wanted = ndimage.gaussian_filter(
            x.numpy(), (0, 0, blur.GAUSSIAN[0][severity - 1], blur.GAUSSIAN[0][severity - 1]), mode="nearest"
        )
        assert np.allclose(blur.gaussian_blur(x, severity, True, STREAM), wanted, atol=1e-5)
    for factor in (1.05, 1.1, 1.25):
        cut = int(np.ceil(32 / factor))
        top = (32 - cut) // 2
        part = x[0, 0, top : top + cut, top : top + cut].numpy()
        large = ndimage.zoom(part, factor, order=1)
        first = (len(large) - 32) // 2
        wanted = large[first : first + 32, first : first + 32]
        assert np.allclose(blur.zoomed(x[:1], factor)[0, 0], wanted, atol=1e-5)
    still = blur.dragged(x, 6, 1.0, torch.zeros(N))
    weight = np.exp(-(np.arange(13) ** 2) / 2)
    wanted = ndimage.correlate1d(x.numpy(), weight / weight.sum(), axis=3, mode="nearest", origin=-6)
    assert np.allclose(still, wanted, atol=1e-5), "level, to one side"
    disk = blur.defocus_blur(torch.nn.functional.pad(torch.ones(1, 1, 1, 1), [16] * 4), 5, True, STREAM)[0, 0]
    assert float(disk.sum()) == pytest.approx(1, abs=1e-5)
    assert torch.allclose(disk, disk.T)
    assert torch.allclose(disk, disk.flip(0))


def test_glass_only_moves_pixels() -> None:
    x = images()
    moved = blur.glass_blur(x, 1, True, STREAM)  # whose Gaussian is too narrow to do anything
    assert torch.allclose(moved.flatten(1).sort().values, x.flatten(1).sort().values, atol=1e-6)
    assert (moved != x).any()
    held = blur.glass_blur(x[3:4], 1, True, Stream.of(0, torch.tensor([3])))
    assert torch.allclose(held, moved[3:4], atol=1e-6)


def test_fog_is_a_fractal_and_snow_whitens() -> None:
    veil = weather.plasma(STREAM, 32, 3.0)
    assert torch.equal(veil.amin((1, 2)), torch.zeros(N, dtype=torch.float64))
    assert torch.equal(veil.amax((1, 2)), torch.ones(N, dtype=torch.float64))
    near, far = ((veil - veil.roll(shift, 1)).square().mean() for shift in (1, 8))
    assert near < far / 4, "neighbours are alike"
    rough = weather.plasma(STREAM, 32, 1.4)
    assert (rough - rough.roll(1, 1)).square().mean() > 2 * near
    x = images()
    assert (weather.fog(x, 5, True, STREAM) <= x.amax((1, 2, 3), keepdim=True) + 1e-6).all()
    assert (weather.snow(x, 5, True, STREAM).mean((1, 2, 3)) > x.mean((1, 2, 3))).all()


def test_colours_keep_what_they_should() -> None:
    x = images()
    bright = digital.brightness(x, 3, True, STREAM)
    assert torch.allclose(bright.amax(1), (x.amax(1) + 0.15).clamp(max=1), atol=1e-6)
    assert torch.allclose(bright / bright.amax(1, keepdim=True), x / x.amax(1, keepdim=True), atol=1e-5)
    pale = digital.saturate(x, 2, True, STREAM)
    assert torch.allclose(pale.amax(1), x.amax(1), atol=1e-6)
    spread = (pale.amax(1) - pale.amin(1)) / (x.amax(1) - x.amin(1)).clamp_min(1e-9)
    assert torch.allclose(spread, torch.full_like(spread, 0.1), atol=1e-3)
    assert torch.allclose(digital.saturate(torch.full((1, 3, 1, 1), 0.5), 5, True, STREAM)[0, :, 0, 0],
                          torch.tensor([0.5, 0.4, 0.4]))  # fmt: skip
    flat = digital.contrast(x, 5, True, STREAM)
    assert torch.allclose(flat.mean((2, 3)), x.mean((2, 3)), atol=1e-6)
    assert torch.allclose(flat.std((2, 3)), 0.15 * x.std((2, 3)), atol=1e-6)


def test_files_are_those_of_pillow() -> None:
    x = (images() * 255).round() / 255
    for severity, small in ((1, True), (5, True), (3, False)):
        share = digital.PIXELS[not small][severity - 1]
        less = int(32 * share)
        image = Image.fromarray((x[0, 0].numpy() * 255).astype(np.float32), "F")
        wanted = np.asarray(image.resize((less, less), Image.BOX).resize((32, 32), Image.BOX)) / 255
        assert np.allclose(digital.pixelate(x[:1], severity, small, STREAM)[0, 0], wanted, atol=1e-4)
    file = io.BytesIO()
    Image.fromarray((x[0] * 255).byte().permute(1, 2, 0).numpy()).save(file, "JPEG", quality=80)
    wanted = np.asarray(Image.open(file)).transpose(2, 0, 1) / 255
    assert np.allclose(digital.jpeg_compression(x[:1], 1, True, STREAM)[0], wanted, atol=1e-6)


def test_elastic_fields_are_smoothed_as_scipy_does() -> None:
    drawn = 2 * STREAM.uniform((2, 32, 32)) - 1
    for deviation in (6.4, 1.9, 0.96):
        found = digital.smoothed_at_edges(drawn, deviation)
        wanted = ndimage.gaussian_filter(
            drawn.numpy(), (0, 0, deviation, deviation), mode="reflect", truncate=3
        )
        assert np.allclose(found, wanted, atol=1e-4)
    ramp = torch.linspace(0.2, 0.8, 32).expand(N, 1, 32, 32)
    bent = digital.elastic_transform(ramp, 5, True, STREAM)
    assert 0 < float((bent - ramp).abs().max()) < 0.3
    place = torch.tensor([-2.0, -1.0, 0.0, 3.0, 4.0, 5.0])
    assert blur.reflected(place, 4).tolist() == [2.0, 1.0, 0.0, 3.0, 2.0, 1.0]
    assert digital.folded(place, 4).tolist() == [1.0, 0.0, 0.0, 3.0, 3.0, 2.0]


def test_every_sample_is_corrupted_in_every_box_and_what_does_not_fit_is_refused() -> None:
    model = linear_model(3, (3, 6, 6))
    x, y = samples_of(model, 8)
    found = attack_with(model, x, (y + 1) % 3, "corruption:kind=contrast,severity=5", "box")
    assert (found.adversarial != x).flatten(1).any(1).all(), "those it has wrong too"
    assert found.records["valid"].all()
    grey = linear_model(3, (1, 6, 6))
    with pytest.raises(Unsupported, match="no colours"):
        attack_with(grey, *samples_of(grey, 2), "corruption:kind=saturate", "box")
    flat = linear_model(3, (5,))
    with pytest.raises(Unsupported, match="images"):
        attack_with(flat, *samples_of(flat, 2), "corruption", "box")
    with pytest.raises(Unsupported, match="box"):
        attack_with(model, x, y, "corruption", "linf:0.1")
    for wrong in ("kind=frost", "severity=6", "severity=0"):
        with pytest.raises(InvalidParameter):
            attack_with(model, x, y, f"corruption:{wrong}", "box")
    wide = rb.load_data("digits", samples=4).domain
    assert Corruption().refuses(grey, Box(wide), parse_goal("untargeted")) is None
