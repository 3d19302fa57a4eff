"""One pixel: what was wrong once."""

import torch
from torch import nn

from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.settings import Search
from robustbench_lite.core.task import margin
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.search.driver import search
from robustbench_lite.threats.named import parse_threat
from tests.conftest import (
    samples_for,
    samples_of,
)


def test_one_pixel_returns_its_fittest_where_nothing_succeeds() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3))
    model = TorchModel(net, (1, 6, 6))
    x, y = samples_of(model, 20)
    samples = samples_for(x, y, torch.arange(20), model.scores(x))
    how = Search(precision="bfloat16")
    attack = get_attack("one_pixel:steps=9,population=20")
    found = search(attack, model, parse_threat("l0:1"), parse_goal("untargeted"), samples, how)
    held = found.queries_at_success < 0
    assert int(held.sum()) > 5
    before, after = (margin(model.scores(points), y)[held] for points in (x, found.z))
    assert float((after > before).float().mean()) > 0.8  # fitness is cross-entropy, in eight bits
