"""The basic iterative method by its two names."""

import math

import pytest
import torch

from robustbench_lite.attacks.fixed_budget.bim import BIM
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.testing.subjects import linear_model
from robustbench_lite.threats.named import parse_threat
from tests.conftest import attack_with, samples_of


@pytest.mark.parametrize("eps", [1 / 255, 4 / 255, 8 / 255, 16 / 255, 0.1, 0.3])
def test_bim_takes_the_papers_steps_and_crosses_eps(eps: float) -> None:
    levels = 255 * eps
    steps = BIM().schedule(linear_model(), parse_threat(f"linf:{eps}")).steps
    assert steps == max(math.ceil(min(levels + 4, 1.25 * levels) - 1e-6), math.ceil(levels - 1e-6))
    x, y = samples_of(linear_model(), 40)
    inner = (0.5 + 0.2 * (x - 0.5)).clamp(0, 1)
    y = linear_model().scores(inner).argmax(1)
    # Where nothing is broken on the way, the end of the path lies eps away.
    found = attack_with(linear_model(), inner, y, "bim", f"linf:{eps}", goal="untargeted,margin=1e9")
    moved = (found.adversarial - inner).abs().flatten(1).amax(1)
    assert torch.allclose(moved, torch.full_like(moved, eps), atol=1e-5)


def test_at_eight_grey_levels_they_are_ten() -> None:
    assert get_attack("bim").schedule(linear_model(), parse_threat("linf:8/255")).steps == 10
    assert get_attack("bim:steps=3").schedule(linear_model(), parse_threat("linf:8/255")).steps == 3
