"""Images of nothing, and patches: what they claim, and where they may lie."""

from pathlib import Path

import numpy as np
import pytest
import torch

import robustbench_lite as rb
from robustbench_lite.attacks.fooling.cppn import HIDDEN, INPUTS, Genomes
from robustbench_lite.attacks.fooling.fooling import Fooling
from robustbench_lite.attacks.fooling.map_elites import laplacian
from robustbench_lite.attacks.universal.patch import Patch
from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.random import Stream
from robustbench_lite.core.settings import Search
from robustbench_lite.threats.named import parse_threat
from tests.conftest import (
    attack_with,
    learnt_by,
    linear_model,
    run_with,
    samples_for,
    samples_of,
    small_network,
)


def learnt(model: Model, attack: Fooling, seed: int = 0) -> dict[str, torch.Tensor]:
    x, y = samples_of(model, 30)
    samples = samples_for(x, y, torch.arange(30), model.scores(x))
    goal, threat = parse_goal("untargeted"), parse_threat("box")
    return dict(learnt_by(attack, model, threat, goal, samples, Search(seed=seed)))


@pytest.mark.parametrize("method", ["gradient", "direct", "cppn"])
def test_every_class_of_a_small_model_is_fooled_and_the_archive_says_the_truth(method: str) -> None:
    model = linear_model(3, (1, 6, 6))
    found = learnt(model, Fooling(method, steps=400, confidence=0.99))
    scores = model.scores(found["images"])
    sure = scores.double().softmax(1)
    assert scores.argmax(1).tolist() == [0, 1, 2]
    assert torch.allclose(sure.amax(1), found["confidence"], atol=1e-6)
    assert bool((found["confidence"] >= 0.99).all())
    assert bool((found["reached_at"] >= 0).all())
    assert float(found["images"].min()) >= 0
    assert float(found["images"].max()) <= 1
    again, other = (
        learnt(model, Fooling(method, steps=400, confidence=0.99)),
        learnt(model, Fooling(method), 1),
    )
    assert torch.equal(again["images"], found["images"])
    assert not torch.equal(other["images"], found["images"])


def test_an_archive_never_loses_what_it_has() -> None:
    model = small_network(4, (1, 5, 5))
    short, long = (learnt(model, Fooling(steps=s, confidence=0.9999999)) for s in (5, 60))
    assert bool((long["confidence"] >= short["confidence"]).all())
    assert bool((long["confidence"] > short["confidence"]).any())
    assert int(short["queries"]) == 200 * 6


def test_a_model_without_a_scale_is_measured_by_the_margins_of_training_samples() -> None:
    data = rb.load_data("digits", samples=100)
    model = rb.load_model("svm", data)
    training = data.training()
    scores = model.scores(training.x)
    samples = samples_for(training.x, training.y, training.ids, scores)
    found = learnt_by(Fooling(steps=100), model, parse_threat("box"), parse_goal("untargeted"), samples)
    top = scores.double().topk(2, dim=1).values
    largest = (top[:, 0] - top[:, 1]).max()
    reached = found["reached_at"] >= 0
    assert bool(reached.any())
    assert torch.equal(reached, found["confidence"] >= largest - 1e-9)


def test_a_run_sends_every_sample_to_its_class(tmp_path: Path) -> None:
    data = rb.load_data("digits", samples=60)
    result = run_with(
        data, ["logistic"], ["fooling", "fooling:method=rubbish"], ["box"],
        goals=["random,confidence=0.99", "untargeted,confidence=0.5"], out=tmp_path / "r",
    )  # fmt: skip
    success = result.table().set_index(["attack", "goal"])["success"]
    assert success["fooling", "random,confidence=0.99"] == 1.0
    assert success["fooling", "untargeted,confidence=0.5"] == 1.0
    assert 0.3 < success["fooling:method=rubbish", "untargeted,confidence=0.5"] < 1.0
    kept = [np.load(f, allow_pickle=False) for f in (tmp_path / "r" / "learnt").glob("*.npz")]
    assert {k["images"].shape for k in kept if "images" in k} == {(10, 1, 8, 8)}


def test_fooling_has_no_ball_and_its_gradient_needs_one() -> None:
    model = linear_model()
    x, y = samples_of(model, 4)
    with pytest.raises(Unsupported, match="its threat is box; not linf"):
        attack_with(model, x, y, "fooling", "linf:0.1")
    decides = rb.ScoreFunction(lambda a: np.zeros((len(a), 3)), (1, 4, 4))
    with pytest.raises(Unsupported, match="needs gradient access"):
        attack_with(decides, x, torch.zeros(4, dtype=torch.int64), "fooling:method=gradient", "box")


def test_pattern_networks_stay_whole_as_they_mutate() -> None:
    shape = (3, 5, 7)
    stream = Stream.of(0, torch.arange(50))
    genomes = Genomes.simplest(stream, shape)
    grew = False
    for generation in range(60):
        genomes = genomes.mutated(stream.fold(generation))
        images = genomes.images(shape)
        assert images.shape == (50, *shape)
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
        place = torch.arange(INPUTS + HIDDEN + 3)
        assert not bool((genomes.linked & (place[:, None] >= place)).any())
        dead = ~genomes.alive
        assert not bool((genomes.linked & (dead[:, :, None] | dead[:, None, :])).any())
        grew |= bool(genomes.alive[:, INPUTS:-3].any())
    assert grew
    assert float(images.flatten(1).std(0).mean()) > 0.05


def test_a_pattern_is_what_its_weights_say() -> None:
    genomes = Genomes.simplest(Stream.of(0, torch.arange(1)), (1, 3, 5))
    genomes.weight.zero_()
    genomes.weight[0, 0, -1] = 0.5  # half of how far across
    genomes.kind.fill_(3)
    assert torch.allclose(
        genomes.images((1, 3, 5))[0, 0], torch.tensor([[0.25, 0.375, 0.5, 0.625, 0.75]] * 3)
    )


def test_smoothing_flattens_a_peak() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    way = laplacian(x)
    assert float(way[0, 0, 2, 2]) == -4
    assert float(way[0, 0, 2, 1]) == 1
    assert float(laplacian(torch.full((1, 1, 4, 4), 0.3)).abs().max()) < 1e-6


def test_a_patch_covers_what_it_may_anywhere_and_beats_a_grey_one() -> None:
    data = rb.load_data("digits", samples=200)
    result = run_with(data, ["logistic"], ["patch"], ["l0:16"], goals=["untargeted", "class:3"])
    records = result.records
    assert records["valid"].all()
    assert (records["l0"] <= 16).all()
    success = result.table().set_index("goal")["success"]
    assert success["untargeted"] > 0.35
    assert success["class:3"] > 0.03
    model = rb.load_model("logistic", data)
    samples = samples_for(data.x, data.y, data.ids, model.scores(data.x))
    patch = learnt_by(Patch(), model, parse_threat("l0:17"), parse_goal("untargeted"), samples)["patch"]
    assert patch.shape == (1, 1, 4, 4)
    from robustbench_lite.attacks.universal.patch import _places, _put

    mask, where = torch.ones(4, 4, dtype=torch.bool), _places(Stream.of(0, data.ids), data.x, 4)
    grey = _put(data.x, torch.full_like(patch, 0.5), mask, where)
    assert float((model.scores(grey).argmax(1) != data.y).float().mean()) < success["untargeted"]
    corners = _places(Stream.of(0, torch.arange(1000)), data.x, 4)
    assert set(corners.flatten().tolist()) == set(range(5))


@pytest.mark.parametrize(("shape", "pixels"), [("square", 9), ("disc", 12)])
def test_a_patch_has_its_shape_and_its_place(shape: str, pixels: int) -> None:
    """Of at most 12 pixels: a square of 3, or a disc of 4 without its corners."""
    model = linear_model(3, (1, 8, 8))
    x, y = samples_of(model, 20)
    x = 0.25 + x / 2  # no pixel is black or white already
    found = attack_with(model, x, y, f"patch:shape={shape},place=middle,steps=20", "l0:12")
    changed = (found.adversarial != x).any(0)[0]
    assert int(changed.sum()) == pixels
    assert bool(changed[3:5, 3:5].all())
    assert not bool(changed[[0, 0, 1, 6, 7], [0, 7, 1, 6, 7]].any())


def test_a_patch_of_a_linear_model_is_the_best_colour_of_every_pixel() -> None:
    """One pixel that may lie anywhere: its best value is black or white, as most places' weights have it."""
    model = linear_model(2, (1, 4, 4))
    x, y = samples_of(model, 50)
    samples = samples_for(x, y, torch.arange(50), model.scores(x))
    goal, threat = parse_goal("class:1"), parse_threat("l0:1")
    patch = learnt_by(Patch(loss="margin"), model, threat, goal, samples)["patch"]
    assert model.structure is not None
    towards = (model.structure.weight[1] - model.structure.weight[0]).sum()
    assert float(patch) == float(towards > 0)


def test_a_patch_needs_an_image_and_a_pixel() -> None:
    x, y = samples_of(linear_model(3, (5,)), 4)
    with pytest.raises(Unsupported, match="images"):
        attack_with(linear_model(3, (5,)), x, y, "patch", "l0:1")
    x, y = samples_of(linear_model(), 4)
    with pytest.raises(Unsupported, match="a pixel at least"):
        attack_with(linear_model(), x, y, "patch", "l0:0")
