"""What fitted attacks learn."""

import pytest
import torch
from torch import Tensor

from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.random import Stream
from robustbench_lite.core.settings import Search
from robustbench_lite.models.transformed import Transformed
from robustbench_lite.threats.named import parse_threat
from tests.conftest import (
    learnt_by,
    linear_model,
    samples_for,
    samples_of,
)


def learnt(model: Model, spec: str, threat: str, goal: str = "untargeted", eot: int = 1) -> dict[str, Tensor]:
    x, y = samples_of(model.model if isinstance(model, Transformed) else model, 40)
    samples = samples_for(
        x, y, torch.arange(40), Oracle(model).truth(x, Stream.of(0, torch.arange(40))).mean(0)
    )
    attack = get_attack(spec)
    return dict(learnt_by(attack, model, parse_threat(threat), parse_goal(goal), samples, Search(eot=eot)))  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["patch:steps=6", "universal:method=sgd,steps=6"])
def test_what_is_fitted_meets_new_draws_in_every_step(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    met: set[int] = set()
    plain = Transformed.draw

    def watched(self: Transformed, stream: Stream) -> Model:
        met.update(stream.key.tolist())
        return plain(self, stream)

    monkeypatch.setattr(Transformed, "draw", watched)
    model = Transformed(linear_model(3, (1, 6, 6)), rotation=20)
    learnt(model, spec, "l0:4" if "patch" in spec else "linf:0.1")
    assert len(met) >= 6 * 40


@pytest.mark.parametrize("method", ["direct", "gradient"])
def test_fooling_averages_over_draws_and_counts_them(method: str) -> None:
    model = Transformed(linear_model(3, (1, 6, 6)), rotation=60, shift=0.2)
    one, many = (
        learnt(model, f"fooling:method={method},steps=20,confidence=0.9999999", "box", eot=eot)
        for eot in (1, 8)
    )
    assert int(many["queries"]) == 8 * int(one["queries"])
    assert not torch.equal(one["images"], many["images"])


def test_deepfools_universal_goes_for_the_class_that_is_asked_for() -> None:
    model = linear_model(3, (1, 4, 4))
    x, y = samples_of(model, 40)
    delta = learnt(model, "universal:method=deepfool", "l2:3", "class:1")["delta"]
    others = y != 1
    became = model.scores((x + delta).clamp(0, 1)).argmax(1)[others]
    assert float((became == 1).float().mean()) >= 0.8
