"""What people already have: torchvision's networks, weights in files, several models as one."""

import sys
import types
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidModel, InvalidParameter, UnknownName
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.names import parse_name
from robustbench_lite.core.task import margin
from robustbench_lite.models.ensemble import Ensemble
from robustbench_lite.models.zoo.linear import LinearModel
from tests.conftest import attack_with, linear_model, run_with, samples_of, small_network


@pytest.fixture
def images(tmp_path: Path) -> rb.Data:
    generator = np.random.default_rng(0)
    file = tmp_path / "images.npz"
    np.savez(file, x=generator.random((12, 3, 32, 32), dtype=np.float32), y=np.arange(12) % 3)
    return rb.load_data(f"npz:{file}")


def test_a_torchvision_network_with_random_weights(images: rb.Data) -> None:
    one, again = (rb.load_model("torchvision:resnet18,weights=none", images) for _ in range(2))
    assert (one.num_classes, one.input_shape, one.name) == (3, (3, 32, 32), "resnet18")
    assert one.fingerprint() == again.fingerprint()
    records = attack_with(one, images.x[:4], one.scores(images.x[:4]).argmax(1), "fgsm", "linf:0.1").records
    assert records["valid"].all()
    with pytest.raises(UnknownName, match="did you mean resnet"):
        rb.load_model("torchvision:resnet81", images)
    with pytest.raises(InvalidParameter, match="DEFAULT"):
        rb.load_model("torchvision:resnet18,weights=BEST", images)


def test_published_weights_bring_their_normalisation(
    images: rb.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download is replaced; everything after it is the same code."""
    from torchvision import models

    def fetched(name: str, weights: object = None, **options: int) -> nn.Module:
        torch.manual_seed(0)
        return models.resnet18(num_classes=3)

    monkeypatch.setattr(models, "get_model", fetched)
    model = rb.load_model("torchvision:resnet18", images)
    module = fetched("resnet18").eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    by_hand = module((images.x - mean[:, None, None]) / std[:, None, None])
    assert torch.allclose(model.scores(images.x), by_hand, atol=1e-4)

    def offline(name: str, weights: object = None) -> nn.Module:
        raise URLError("no route")

    monkeypatch.setattr(models, "get_model", offline)
    with pytest.raises(InvalidModel, match=r"could not be fetched from https://.*take weights=none"):
        rb.load_model("torchvision:resnet18", images)


def build() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "nested.pt"])
def test_weights_of_a_file_for_a_network_of_ones_own(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = types.ModuleType("mine")
    mine.build = build  # type: ignore[attr-defined]
    mine.wide = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 11))  # type: ignore[attr-defined]
    mine.other = lambda: nn.Linear(64, 10)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", mine)
    network, file = build(), tmp_path / f"trained.{suffix}"
    if suffix == "safetensors":
        save_file(network.state_dict(), file)
    else:
        torch.save({"state_dict": network.state_dict()} if "nested" in suffix else network.state_dict(), file)
    data = rb.load_data("digits", samples=20)
    model = rb.load_model(f"weights:{file},network=mine:build", data)
    assert torch.allclose(model.scores(data.x).float(), network(data.x), atol=1e-6)
    with pytest.raises(InvalidModel, match="size mismatch"):
        rb.load_model(f"weights:{file},network=mine:wide", data)
    with pytest.raises(InvalidModel, match=r"lacks weight, bias of mine:other"):
        rb.load_model(f"weights:{file},network=mine:other", data)
    file.write_bytes(b"<html>")
    with pytest.raises(InvalidModel, match="cannot be read as weights"):
        rb.load_model(f"weights:{file},network=mine:build", data)


def test_a_file_of_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path(tmp_path / "harm").write_text, ("done",))

    mine = types.ModuleType("mine")
    mine.build = build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", mine)
    torch.save(Harmful(), tmp_path / "bad.pt")
    with pytest.raises(InvalidModel, match="cannot be read as weights"):
        rb.load_model(f"weights:{tmp_path / 'bad.pt'},network=mine:build", rb.load_data("digits", samples=5))
    assert not (tmp_path / "harm").exists()


def test_names_of_members_are_told_apart() -> None:
    name = parse_name("ensemble(cnn, svm:most=100,seed=1,ensemble(a,b:c=1,d=2))")
    assert [one.text for one in name.inner] == [
        "cnn",
        "svm:most=100,seed=1",
        "ensemble(a,b:c=1,d=2)",
    ]


def test_an_ensemble_averages_probabilities_and_votes() -> None:
    one, two, votes = small_network(3), small_network(3, seed=4), linear_model(3)
    votes.confidence = lambda scores: None  # type: ignore[method-assign]
    x, _ = samples_of(one, 30)
    both = Ensemble([one, two])
    by_hand = (one.scores(x).double().softmax(1) + two.scores(x).double().softmax(1)) / 2
    assert torch.allclose(both.scores(x).exp(), by_hand)
    assert both.gradient_is_truth
    mixed = Ensemble([one, votes])
    one_hot = nn.functional.one_hot(votes.scores(x).argmax(1), 3)
    expected = (one.scores(x).double().softmax(1) + one_hot) / 2
    assert torch.allclose(mixed.scores(x).exp(), expected)
    assert not mixed.gradient_is_truth
    y = mixed.scores(x).argmax(1)
    records = attack_with(mixed, x, y, "iterative", "linf:0.3").records
    assert records["success"].any()
    assert records["surrogate"].all()
    with pytest.raises(InvalidModel, match="knows 4 classes"):
        Ensemble([one, small_network(4)])


def test_an_ensemble_of_very_sure_members_keeps_its_slope() -> None:
    """Beyond a gap of 700 a rival's probability is 0 in float64; its logarithm still has a gradient."""
    model = linear_model(3)
    steep = LinearModel(model.structure.weight * 300, model.structure.bias, model.input_shape, scaled=True)
    x, y = samples_of(steep, 40)
    leaf = x.requires_grad_()
    scores = Ensemble([steep, steep]).gradient_scores(leaf)
    assert float(scores.max(1).values.sub(scores.min(1).values).max()) > 700
    (gradient,) = torch.autograd.grad(margin(scores, y).sum(), leaf)
    assert bool((gradient != 0).flatten(1).any(1).all())


def test_an_ensemble_by_name_falls_with_its_members() -> None:
    data = rb.load_data("digits", samples=100)
    model: Model = rb.load_model("ensemble(logistic,svm,tree)", data)
    assert model.access is Access.GRADIENT
    assert float((model.scores(data.x).argmax(1) == data.y).float().mean()) > 0.95
    assert model.name == "ensemble(logistic,svm,tree)"
    result = run_with(data, ["ensemble(logistic,svm,tree)"], ["noise", "iterative"], ["linf:0.15"])
    broken = result.table("summary").set_index("attack")["success"]
    assert broken["iterative"] > 0.4 > 2 * broken["noise"]
