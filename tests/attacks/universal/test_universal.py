"""One perturbation for all: closed forms on linear models, fitted on one split and judged on another."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import robustbench_lite as rb
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.attacks.universal.universal import Universal
from robustbench_lite.core.errors import InvalidParameter, Unsupported
from robustbench_lite.core.goal import parse_goal
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


def delta_of(spec: str, threat: str, goal: str = "untargeted", **how: int) -> Tensor:
    model = linear_model(2, (1, 4, 4))
    x, y = samples_of(model, 60)
    attack = get_attack(spec)
    assert isinstance(attack, Universal)
    samples = samples_for(x, y, torch.arange(60), model.scores(x))
    learnt = learnt_by(attack, model, parse_threat(threat), parse_goal(goal), samples, Search(**how))
    return learnt["delta"]


@pytest.mark.parametrize("method", ["sga", "sgd"])
def test_towards_one_class_a_linear_model_has_one_answer(method: str) -> None:
    model = linear_model(2, (1, 4, 4))
    way = (model.structure.weight[0] - model.structure.weight[1]).reshape(1, 1, 4, 4).float()
    spec = f"universal:method={method},clamp=100"
    assert torch.allclose(delta_of(spec, "linf:0.1", "class:0"), 0.1 * way.sign(), atol=1e-6)
    assert torch.allclose(delta_of(spec, "l2:0.5", "class:0"), 0.5 * way / way.norm(), atol=1e-4)


@pytest.mark.parametrize("method", ["sga", "sgd", "deepfool", "random"])
def test_it_stays_inside_and_depends_on_no_batch(method: str) -> None:
    for threat, norm, eps in (("linf:0.1", torch.inf, 0.1), ("l2:0.5", 2, 0.5)):
        spec = f"universal:method={method}"
        first, second = (delta_of(spec, threat, batch_size=size) for size in (7, 60))
        assert torch.equal(first, second)
        assert 0 < float(torch.linalg.vector_norm(first.flatten(), norm)) <= eps * (1 + 1e-6)


def test_fewer_images_are_fewer_images() -> None:
    """A single one is pushed over its own side of the line; many agree on the side of most."""
    for images, answers in ((1, 2), (60, 1)):
        found = [delta_of(f"universal:images={images},steps=20", "linf:0.1", seed=s) for s in range(6)]
        assert len({tuple(delta.sign().flatten().tolist()) for delta in found}) == answers


def test_on_digits_it_fools_what_it_has_not_seen_and_the_perturbation_is_kept(tmp_path: Path) -> None:
    data = rb.load_data("digits", samples=200)
    attacks = ["universal", "universal:method=sgd", "universal:method=random"]
    result = run_with(data, ["logistic"], attacks, ["linf:0.2"], out=tmp_path / "run")
    success = result.table().set_index("attack")["success"]
    assert success["universal"] > 0.35
    assert success["universal:method=sgd"] > 0.35
    assert success["universal:method=random"] < 0.2
    kept = sorted((tmp_path / "run" / "learnt").glob("*.npz"))
    assert len(kept) == 3
    with np.load(kept[0], allow_pickle=False) as held:
        assert held["delta"].shape == (1, 1, 8, 8)
        assert "logistic × universal" in str(held["title"])


def test_deepfools_way_crosses_a_line_with_the_first_image_it_needs() -> None:
    """Of a linear model every further image of the class is behind the line once the furthest is."""
    model = linear_model(2, (1, 4, 4))
    x, y = samples_of(model, 60)
    x, y = x[y == 0], y[y == 0]
    samples = samples_for(x, y, torch.arange(len(y)), model.scores(x))
    attack = Universal("deepfool")
    delta = learnt_by(attack, model, parse_threat("l2:100"), parse_goal("untargeted"), samples)["delta"]
    fooled = model.scores((x + delta).clamp(0, 1)).argmax(1) != y
    assert float(fooled.float().mean()) >= 0.8


def test_everything_becomes_one_class_but_its_own_samples() -> None:
    model = small_network()
    x, y = samples_of(model, 60)
    found = attack_with(model, x, y, "pgd", "linf:0.3", goal="class:1").records
    own = found["label"] == 1
    assert own.any()
    assert not found.loc[own, "success"].any()
    assert (found.loc[own, "forwards"] == 0).all()
    assert (found.loc[found["success"], "adversarial_prediction"] == 1).all()
    assert found.loc[~own, "success"].mean() > 0.5
    with pytest.raises(InvalidParameter, match="label = 7: must be a class below"):
        attack_with(model, x, y, "pgd", "linf:0.3", goal="class:7")


def test_it_needs_a_size() -> None:
    x, y = samples_of(linear_model(), 3)
    for threat, why in (("box", "threats of kind ball; not under box"), ("l2:min", "needs a fixed eps")):
        with pytest.raises(Unsupported, match=f"universal .*{why}"):
            attack_with(linear_model(), x, y, "universal", threat)
