"""Threats with parameters: PGD as it is turns and moves images; the judge renders again."""

import numpy as np
import pytest
import torch

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidParameter, Unsupported
from robustbench_lite.threats.affine import Affine
from robustbench_lite.threats.named import parse_threat
from tests.conftest import attack_with, linear_model, run_with, samples_of


def test_a_quarter_turn_and_a_shift_of_whole_pixels() -> None:
    x = torch.rand(3, 2, 6, 6)
    quarter = Affine(90.0).render(torch.tensor([[90.0, 0, 0]]).expand(3, -1), x)
    assert torch.allclose(quarter, torch.rot90(x, -1, (2, 3)), atol=1e-5) or torch.allclose(
        quarter, torch.rot90(x, 1, (2, 3)), atol=1e-5
    )
    moved = Affine(10.0, 1 / 6).render(torch.tensor([[0.0, 10.0, 0]]).expand(3, -1), x)
    assert torch.allclose(moved[:, :, :, 1:], x[:, :, :, :-1], atol=1e-5)
    assert torch.allclose(Affine(10.0).render(torch.zeros(3, 3), x), x, atol=1e-6)


def test_points_are_projected_into_the_limits() -> None:
    threat = Affine(15.0, 0.1)
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
        assert (records["threat_kind"] == "rotation").all()
        assert records["norm"].isna().all()
        again = parse_threat("rotation:40,shift=0.15").render(found.z, data.x)
        assert torch.equal(again, found.adversarial)
        rate[attack] = records["success"].mean()
    assert rate["pgd:steps=20"] > rate["noise:steps=0"] > 0


def test_a_run_keeps_the_parameters_beside_the_images(tmp_path: object) -> None:
    result = run_with("digits", ["cnn"], ["pgd:steps=10", "fgsm"], ["rotation:40"], 40, out=tmp_path)
    assert list(result.refused) == ["cnn × fgsm × rotation:40"]
    stored = np.load(next((result.path / "adversarial").iterdir()))  # type: ignore[operator]
    won = result.records.loc[result.records["success"].astype(bool)]
    assert stored["z"].shape == (len(won), 3)
    assert stored["adversarial"].shape == (len(won), 1, 8, 8)
    assert np.abs(stored["z"]).max(1) == pytest.approx(won["distance"].to_numpy(float))
    assert (result.path / "report.html").is_file()  # type: ignore[operator]


def test_bad_limits_and_what_is_no_image() -> None:
    for text in ("rotation:0", "rotation:181", "rotation:10,shift=2", "rotation:x"):
        with pytest.raises(InvalidParameter):
            parse_threat(text)
    model = linear_model(3, (5,))
    x, y = samples_of(model, 3)
    with pytest.raises(Unsupported, match="images"):
        attack_with(model, x, y, "pgd", "rotation:10")


def test_a_threat_prints_as_it_was_written() -> None:
    for text in ("linf:8/255", "l2:0.50", "l0:3", "l2:min", "box", "rotation:15,shift=0.1"):
        assert str(parse_threat(text)) == text
    assert parse_threat("linf:0.1") == parse_threat("linf:1/10")
