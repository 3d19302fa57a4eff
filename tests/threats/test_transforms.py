"""Threats with parameters: PGD as it is turns and moves images; the judge renders again."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidParameter, RobustError, Unsupported
from robustbench_lite.core.model import Model
from robustbench_lite.core.random import Stream
from robustbench_lite.threats.geometry import Rotation
from robustbench_lite.threats.named import parse_threat
from tests.conftest import attack_with, linear_model, run_with, samples_of


def test_a_quarter_turn_and_a_shift_of_whole_pixels() -> None:
    x = torch.rand(3, 2, 6, 6)
    quarter = Rotation(90.0).render(torch.full((3, 1), 90.0), x)
    assert torch.allclose(quarter, torch.rot90(x, 1, (2, 3)), atol=1e-5), "against the clock"
    moved = Rotation(10.0, 1 / 6).render(torch.tensor([[0.0, 10.0, 0]]).expand(3, -1), x)
    assert torch.allclose(moved[:, :, :, 1:], x[:, :, :, :-1], atol=1e-5)
    assert torch.equal(Rotation(10.0).render(torch.zeros(3, 1), x), x)


def test_points_are_projected_into_the_limits() -> None:
    threat = Rotation(15.0, 0.1)
    x0, eps = torch.rand(50, 1, 4, 4), torch.full((50,), 15.0, dtype=torch.float64)
    z = 40 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    inside = threat.project(z, x0, eps)
    assert threat.contains(inside, x0, eps).all()
    assert torch.equal(threat.project(inside, x0, eps), inside)
    assert threat.distance(inside, x0).max() == 15.0


def test_pgd_turns_what_noise_turns_and_more() -> None:
    data = rb.load_data("digits", samples=100)
    rate = {}
    for attack in ("noise:steps=0", "pgd:steps=20", "iterative:steps=20"):
        found = attack_with(rb.load_model("cnn", data), data.x, data.y, attack, "rotation:40,shift=0.15")
        records = found.records
        assert records["valid"].all()
        assert (records["distance"] <= 40).all()
        assert (records["threat_kind"] == "transform").all()
        assert records["norm"].isna().all()
        again = parse_threat("rotation:40,shift=0.15").render(found.z, data.x)
        assert torch.equal(again, found.adversarial)
        rate[attack] = records["success"].mean()
    assert rate["pgd:steps=20"] > rate["noise:steps=0"] > 0
    assert rate["iterative:steps=20"] > rate["noise:steps=0"]


def test_a_run_keeps_the_parameters_beside_the_images(tmp_path: object) -> None:
    result = run_with("digits", ["cnn"], ["pgd:steps=10", "fgsm"], ["rotation:40"], 40, out=tmp_path)
    assert list(result.refused) == ["cnn × fgsm × rotation:40"]
    stored = np.load(next((result.path / "adversarial").iterdir()))  # type: ignore[operator]
    won = result.records.loc[result.records["success"].astype(bool)]
    assert stored["z"].shape == (len(won), 1)
    assert stored["adversarial"].shape == (len(won), 1, 8, 8)
    assert np.abs(stored["z"]).max(1) == pytest.approx(won["distance"].to_numpy(float))
    assert (result.path / "report.html").is_file()  # type: ignore[operator]


def test_bad_limits_and_what_is_no_image() -> None:
    wrong = (
        "rotation:0 rotation:181 rotation:10,shift=2 rotation:x fog:2 blur:0 flow:1,grid=1 patch:5y5 "
        "patch:0x2 patch:2x2,top=1 color:2 wasserstein:-1"
    )
    for text in wrong.split():
        with pytest.raises(InvalidParameter):
            parse_threat(text)
    model = linear_model(3, (5,))
    x, y = samples_of(model, 3)
    with pytest.raises(Unsupported, match="images"):
        attack_with(model, x, y, "pgd", "rotation:10")


def test_a_threat_prints_as_it_was_written() -> None:
    for text in [
        "linf:8/255",
        "l2:0.50",
        "l0:3",
        "l2:min",
        "box",
        "rotation:15,shift=0.1",
        "patch:5x5",
        "fog:0.5+linf:2/255",
    ]:
        assert str(parse_threat(text)) == text
    assert parse_threat("linf:0.1") == parse_threat("linf:1/10")


def test_the_grid_is_every_combination() -> None:
    data = rb.load_data("digits", samples=40)
    model, threat = rb.load_model("cnn", data), parse_threat("rotation:15,shift=0.05")
    clean = model.prediction(model.scores(data.x)) == data.y
    broken = torch.zeros(40, dtype=torch.bool)
    for share in itertools.product(torch.linspace(-1, 1, 3).tolist(), repeat=3):
        z = 15 * torch.tensor(share).expand(40, -1)
        broken |= model.prediction(model.scores(threat.render(z, data.x))) != data.y
    found = attack_with(model, data.x, data.y, "grid:points=3", threat)
    assert torch.equal(found.success, broken & clean)
    assert 0 < found.success.sum() < 40
    assert found.records["forwards"].max() <= 27
    with pytest.raises(Unsupported, match=r"grid tries every combination: 5 \^ 64"):
        attack_with(model, data.x, data.y, "grid", "fog:0.5")


def test_positions_are_those_of_torch() -> None:
    x, z = torch.rand(4, 3, 7, 9), torch.tensor([[33.0], [-80.0], [5.0], [160.0]])
    angle = z[:, 0] * torch.pi / 180
    cosine, sine, none = angle.cos(), angle.sin(), 0 * angle
    rows = torch.stack([cosine, -sine * 7 / 9, none, sine * 9 / 7, cosine, none], 1).view(4, 2, 3)
    grid = torch.nn.functional.affine_grid(rows, [4, 3, 7, 9], align_corners=False)
    theirs = torch.nn.functional.grid_sample(x, grid, align_corners=False)
    assert torch.allclose(Rotation(180.0).render(z, x), theirs, atol=1e-5)


def test_a_flow_moves_by_pixels_and_no_further() -> None:
    x = torch.rand(2, 1, 6, 6)
    z = torch.zeros(2, 2, 4, 4)
    z[:, 0] = 2.0
    moved = parse_threat("flow:2,grid=4").render(z, x)
    assert torch.allclose(moved[..., 2:], x[..., :-2], atol=1e-6)
    assert torch.allclose(moved[..., :2], x[..., :1].expand(-1, -1, -1, 2), atol=1e-6), "the edge goes on"


def test_colours_turn_about_grey_and_the_negative_of_a_negative_is_the_image() -> None:
    x = 0.4 + 0.2 * torch.rand(2, 3, 4, 4)
    third = parse_threat("color:1,hue=120").render(torch.tensor([[0.0, 0.0, 0.0, 1.0]]).expand(2, -1), x)
    assert torch.allclose(third, x.roll(1, 1), atol=1e-5), "a third of a turn makes red green"
    grey = parse_threat("color:1").render(torch.tensor([[0.0, 0.0, -1.0, 0.0]]).expand(2, -1), x)
    assert torch.allclose(grey[:, 0], grey[:, 1], atol=1e-6)
    flat = parse_threat("color:1").render(torch.tensor([[0.0, -1.0, 0.0, 0.0]]).expand(2, -1), x)
    assert torch.allclose(flat, x.mean((1, 2, 3), keepdim=True).expand_as(x), atol=1e-6)
    negative = parse_threat("negative:1")
    whole = torch.ones(2, 1)
    assert torch.allclose(negative.render(whole, negative.render(whole, x)), x, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.5])
def test_a_blur_has_the_variance_it_says_and_keeps_the_mean(sigma: float) -> None:
    point = torch.zeros(1, 1, 31, 31)
    point[0, 0, 15, 15] = 1
    spread = parse_threat("blur:1.5").render(torch.tensor([[sigma**2 / 1.5]]), point)[0, 0].double()
    offset = torch.arange(31) - 15
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert (spread.sum(0) * offset**2).sum() == pytest.approx(sigma**2, rel=0.02)
    assert torch.allclose(spread, spread.T, atol=1e-6)


def test_mass_is_carried_and_none_is_lost() -> None:
    threat = parse_threat("wasserstein:0.5")
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * (torch.arange(8) > 2)
    eps = torch.full((20,), 0.5, dtype=torch.float64)
    z = threat.random(Stream.of(0, torch.arange(20)), x, eps)
    assert torch.allclose(threat.render(z, x).sum((1, 2, 3)), x.sum((1, 2, 3)), rtol=1e-5)
    # The distance in one dimension, of the columns' sums, is at most that in two.
    for row in range(20):
        before, after = (image[row].sum((0, 1)).double().numpy() for image in (x, threat.render(z, x)))
        away = scipy.stats.wasserstein_distance(range(8), range(8), before, after)
        assert away <= float(threat.distance(z, x)[row]) + 1e-6
    one = torch.zeros(1, 1, 4, 4)
    one[0, 0, 1, 1] = 0.8
    way = torch.zeros(1, 1, 24, 4, 4)
    way[0, 0, 12, 1, 1] = 0.5  # one pixel to the right
    moved = threat.render(way, one)
    assert moved[0, 0, 1, 1].item() == pytest.approx(0.4)
    assert moved[0, 0, 1, 2].item() == pytest.approx(0.4)


def test_a_patch_lies_where_it_is_worst() -> None:
    generator = torch.Generator().manual_seed(0)
    model = linear_model(3, (1, 6, 6))
    x = torch.rand(30, 1, 6, 6, generator=generator)
    y = model.prediction(model.scores(x))
    threat = parse_threat("patch:2x3")
    found = attack_with(model, x, y, "pgd:steps=20,restarts=20,step_size=0.3", threat)
    changed = (found.adversarial != x).any(1)
    for row in changed:
        assert row.any(1).sum() <= 2
        assert row.any(0).sum() <= 3
    best = torch.zeros(30, dtype=torch.bool)
    weight = model.structure.weight.view(3, 1, 6, 6)  # type: ignore[union-attr]
    for other in range(3):
        slope = weight[other] - weight[y]
        corner = threat.linear_maximum(slope, x, torch.ones(30, dtype=torch.float64))
        best |= (model.prediction(model.scores(corner)) != y) & (other != y)
    assert not (found.success & ~best).any(), "more than the exact answer"
    assert found.success.sum() >= 0.9 * best.sum() > 0


def test_threats_one_after_another() -> None:
    data = rb.load_data("digits", samples=60)
    model = rb.load_model("cnn", data)
    both = parse_threat("rotation:15+linf:0.05")
    rates = {
        text: attack_with(model, data.x, data.y, "pgd:steps=20", text).success.sum()
        for text in ("rotation:15", "linf:0.05", "rotation:15+linf:0.05")
    }
    assert rates["rotation:15+linf:0.05"] > max(rates["rotation:15"], rates["linf:0.05"])
    z = both.random(Stream.of(0, data.ids), data.x, torch.ones(60, dtype=torch.float64))
    turned = parse_threat("rotation:15").render(15 * z[:, :1], data.x)
    added = (turned + 0.05 * z[:, 1:].view_as(turned)).clamp(0, 1)
    assert torch.allclose(both.render(z, data.x), added, atol=1e-6)
    for text in (
        "rotation:10+l2:1",
        "linf:min+rotation:10",
        "patch:2x2+rotation:10",
        "rotation:10+nothing:1",
    ):
        with pytest.raises(RobustError):
            parse_threat(text)


def test_parameters_in_the_shape_of_the_image_are_still_parameters(tmp_path: Path) -> None:
    """Fog on a grid of 8 by 8 over images of 8 by 8: nothing may take one for the other."""
    result = run_with("digits", ["logistic"], ["pgd:steps=10"], ["fog:0.9"], 60, out=tmp_path)
    stored = np.load(next((tmp_path / "adversarial").iterdir()))
    won = result.records.loc[result.records["success"].astype(bool)]
    assert len(won) > 0
    assert stored["z"].shape == stored["adversarial"].shape == (len(won), 1, 8, 8)
    assert np.abs(stored["z"]).reshape(len(won), -1).max(1) == pytest.approx(won["distance"].to_numpy(float))
    data = rb.load_data("digits", samples=60)
    model = rb.load_model("logistic", data)
    narrow = attack_with(model, data.x, data.y, "pgd:steps=10", "fog:0.9")
    scaled = rb.TorchModel(Scaled(model), (1, 8, 8))
    wide = attack_with(scaled, 16 * data.x, data.y, "pgd:steps=10", "fog:0.9", domain=rb.Domain(0.0, 16.0))
    assert torch.equal(narrow.z, wide.z)
    assert torch.allclose(16 * narrow.adversarial, wide.adversarial, atol=1e-5)


class Scaled(torch.nn.Module):
    """A model of inputs sixteen times as large."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.gradient_scores(x / 16)


def test_a_deviation_is_a_distance_and_a_smaller_size_reaches_no_further() -> None:
    threat, x = parse_threat("blur:1.5"), torch.rand(3, 1, 9, 9)
    z = torch.tensor([[0.0], [0.75**2 / 1.5], [1.5]])
    assert threat.distance(z, x).tolist() == pytest.approx([0.0, 0.75, 1.5])
    near = threat.project(torch.full((3, 1), 9.0), x, torch.tensor([0.3, 0.75, 1.5], dtype=torch.float64))
    assert threat.distance(near, x).tolist() == pytest.approx([0.3, 0.75, 1.5], rel=1e-5)


def test_a_patch_may_change_anything_in_whichever_box_it_is_put() -> None:
    wide = rb.Domain(0.0, 255.0)
    assert parse_threat("patch:2x2").within(wide).eps == parse_threat("patch:2x2", wide).eps == 255
    assert parse_threat("patch:2x2,eps=0.5").within(wide).eps == 0.5
    x = torch.rand(0, 1, 4, 4)
    assert parse_threat("patch:2x2").distance(x, x).shape == (0,)


def test_boxes_without_an_end_are_refused_in_a_line() -> None:
    endless = rb.Domain(-torch.inf, torch.inf)
    for text in ("fog:0.5", "rotation:10", "wasserstein:0.1", "patch:2x2"):
        said = parse_threat(text, endless).refuses((1, 6, 6))
        assert said is not None
        assert "finite width" in said
