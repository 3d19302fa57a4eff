"""Attributions: closed forms on linear models, completeness, Captum's answers, and the command."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import robustbench_lite as rb
from robustbench_lite.attribution import maps, networks
from robustbench_lite.cli.main import main
from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.models.torch.embedding import embedding
from robustbench_lite.models.torch.module import TorchModel
from tests.conftest import linear_model, run_with, samples_of, small_network


def smooth_network(rectified: bool = False) -> TorchModel:
    """Two convolutions and a linear layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unit = nn.ReLU if rectified else nn.Tanh
        module = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), unit(), nn.Conv2d(4, 5, 3), unit(), nn.Flatten(), nn.Linear(80, 4)
        )
    return TorchModel(module, (3, 6, 6))


def test_on_a_linear_model_every_gradient_is_its_weight() -> None:
    model = linear_model(3, (3, 4, 4))
    x, y = samples_of(model, 5)
    weight = model.structure.weight.float().view(3, 3, 4, 4)  # type: ignore[union-attr]
    oracle = Oracle(model)
    assert torch.allclose(maps.saliency(oracle, x, y), weight[y].abs().amax(1), atol=1e-5)
    assert torch.allclose(maps.smooth_gradient(oracle, x, y), weight[y].abs().amax(1), atol=1e-5)
    assert torch.allclose(maps.integrated_gradients(oracle, x, y), weight[y] * x, atol=1e-5)


def test_integrated_gradients_are_complete() -> None:
    model = smooth_network()
    x, y = samples_of(model, 6)
    parts = maps.integrated_gradients(Oracle(model), x, y).flatten(1).sum(1)
    scores, black = model.scores(x), model.scores(torch.zeros_like(x))
    difference = (scores - black).gather(1, y[:, None])[:, 0]
    assert torch.allclose(parts, difference, atol=1e-4)


def test_occlusion_is_what_the_margin_loses() -> None:
    model = small_network(3, (1, 8, 8))
    x, y = samples_of(model, 3)
    found = maps.occlusion(Oracle(model), x)
    covered = x.clone()
    covered[:, :, 2, 5] = 0.5
    before, after = (model.task.margin(model.scores(one), y, None, False) for one in (x, covered))
    assert torch.allclose(found[:, 2, 5], after - before, atol=1e-5)


def test_an_embedding_is_what_the_last_layer_takes_and_can_be_inverted() -> None:
    model = smooth_network()
    x, _ = samples_of(model, 4)
    features = embedding(model, x)
    last = model.module[-1]  # type: ignore[index]
    assert torch.allclose(last(features), model.scores(x), atol=1e-6)
    again = networks.inverted(model, x)
    grey = embedding(model, torch.full_like(x, 0.5))
    off, first = ((embedding(model, again) - features).norm(), (grey - features).norm())
    assert off < 0.5 * first
    assert 0 <= float(again.min()) <= float(again.max()) <= 1
    assert embedding(small_network(3, (1, 4, 4)), torch.rand(2, 1, 4, 4)).shape == (2, 16)


def test_images_please_their_class() -> None:
    data = rb.load_data("digits", samples=20)
    model = rb.load_model("cnn", data)
    assert isinstance(model, TorchModel)
    made = networks.class_images(model, torch.arange(10))
    scores = model.scores(made)
    assert torch.equal(scores.argmax(1), torch.arange(10))
    assert float(scores.softmax(1).amax(1).min()) > 0.9


def test_maps_are_those_of_captum() -> None:
    captum = pytest.importorskip("captum.attr", reason="Captum is not installed")
    model = smooth_network(rectified=True)
    x, y = samples_of(model, 5)
    oracle = Oracle(model)
    theirs = captum.Saliency(model.gradient_scores).attribute(x.clone().requires_grad_(), target=y)
    assert torch.allclose(maps.saliency(oracle, x, y), theirs.amax(1), atol=1e-6)
    theirs = captum.IntegratedGradients(model.gradient_scores).attribute(x.clone(), target=y, n_steps=50)
    assert torch.allclose(maps.integrated_gradients(oracle, x, y), theirs.float(), atol=1e-5)
    convolution = model.module[2]  # type: ignore[index]
    active = convolution(model.module[:2](x)).requires_grad_()  # type: ignore[index]
    score = model.module[3:](active).gather(1, y[:, None]).sum()  # type: ignore[index]
    (slope,) = torch.autograd.grad(score, active)
    cam = (slope.mean((2, 3), keepdim=True) * active).sum(1, keepdim=True).relu()
    wanted = nn.functional.interpolate(cam, (6, 6), mode="bilinear")[:, 0]
    assert torch.allclose(networks.grad_cam(model, x, y), wanted, atol=1e-5)
    guided = networks.guided_gradient(model, x, y)
    assert guided.shape == (5, 6, 6)
    assert not torch.allclose(guided, maps.saliency(oracle, x, y), atol=1e-4), "rectified on the way back too"
    with pytest.raises(Unsupported, match="no convolution"):
        networks.grad_cam(small_network(4, (3, 6, 6)), x, y)
    with pytest.raises(Unsupported, match="rectified"):
        networks.guided_gradient(smooth_network(), x, y)


def test_the_command_draws_every_job_that_broke_the_sample(tmp_path: Path) -> None:
    models = ["logistic", "tree", "conv_small"]
    result = run_with("digits", models, ["pgd:steps=20"], ["linf:0.1"], 40, out=tmp_path)
    broken = result.records.loc[result.records["success"].astype(bool)]
    sample = int(broken.groupby("sample_id")["model"].nunique().idxmax())
    count = int((broken["sample_id"] == sample).sum())
    said = CliRunner().invoke(main, ["explain", str(tmp_path), "--sample", str(sample)])
    assert said.exit_code == 0, said.output
    drawn = {file.name for file in (tmp_path / "explained").iterdir()}
    jobs = {f"sample-{sample}-{number}.png" for number in range(count)}
    assert count >= 2
    assert drawn == {*jobs, f"sample-{sample}-embedding-0.png", "classes-0.png"}
    assert "->" in said.output
    held = result.records.groupby("sample_id")["success"].any().idxmin()
    for wrong, why in (("99999", "not among the run's"), (str(held), "no attack of the run broke")):
        said = CliRunner().invoke(main, ["explain", str(tmp_path), "--sample", wrong, "--embedding", "none"])
        assert said.exit_code == 2
        assert why in said.output


def test_a_run_of_few_samples_has_maps_and_no_plane(tmp_path: Path) -> None:
    result = run_with("digits", ["conv_small"], ["pgd:steps=20"], ["linf:0.5"], 2, out=tmp_path)
    sample = int(result.records.loc[result.records["success"].astype(bool), "sample_id"].iloc[0])
    for how in ("pca", "tsne"):
        said = CliRunner().invoke(
            main, ["explain", str(tmp_path), "--sample", str(sample), "--embedding", how]
        )
        assert said.exit_code == 0, said.output
        assert "embedding-0" not in said.output
