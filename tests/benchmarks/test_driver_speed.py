"""What the driver costs beside a bare loop, memory against samples, and the start of the command.

Ratios are of medians of interleaved runs in one process; they are printed and kept in `extra_info`.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.nn import functional

import robustbench_lite as rb
from robustbench_lite.attacks.fixed_budget.bim import Iterative
from robustbench_lite.attacks.fixed_budget.fgsm import FGSM
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.settings import Search
from robustbench_lite.search.attack import Attack
from robustbench_lite.search.driver import search
from robustbench_lite.threats.named import parse_threat
from tests.benchmarks.timing import interleaved
from tests.conftest import samples_for

pytestmark = pytest.mark.benchmark
STEPS = 40


def bare(model: rb.Model, x: Tensor, y: Tensor, steps: int) -> Callable[[], None]:
    """One forward pass and one gradient of the same batch, `steps` times."""

    def run() -> None:
        for _ in range(steps):
            leaf = x.detach().requires_grad_()
            loss = functional.cross_entropy(model.scores(leaf), y, reduction="sum")
            torch.autograd.grad(loss, leaf)

    return run


@pytest.mark.parametrize(
    ("attack", "steps", "goal"),
    [
        (FGSM(), 1, "untargeted,stop=never"),
        (Iterative(steps=STEPS), STEPS, "untargeted,stop=never"),
        (Iterative(steps=STEPS), STEPS, "untargeted"),
    ],
    ids=["fgsm", "nothing leaves", "broken leave"],
)
def test_driver_over_a_bare_loop(benchmark: BenchmarkFixture, attack: Attack, steps: int, goal: str) -> None:
    data = rb.load_data("digits", samples=500)
    model = rb.load_model("cnn", data)
    samples = samples_for(data.x, data.y, data.ids, model.scores(data.x))
    how, threat, aim = Search(batch_size=500), parse_threat("linf:0.1"), parse_goal(goal)

    def ours() -> None:
        search(attack, model, threat, aim, samples, how)

    ratio = interleaved(ours, bare(model, data.x, data.y, steps))
    benchmark.extra_info["over the bare loop"] = ratio
    benchmark.pedantic(ours, rounds=3)
    print(f"{attack.name}, {goal}: {ratio:.3f} of {steps} bare steps")


MEMORY = """
import resource, sys, torch
import robustbench_lite as rb
from robustbench_lite.search.driver import search
from robustbench_lite.attacks.fixed_budget.bim import Iterative
from robustbench_lite.core.goal import Goal
from robustbench_lite.threats.named import parse_threat
from tests.benchmarks.timing import interleaved
data = rb.load_data("digits", samples=20)
torch.manual_seed(0)
nn = torch.nn
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 10))
model = rb.TorchModel(net, (3, 32, 32))
n = int(sys.argv[1])
x = torch.rand(n, 3, 32, 32)
scores = torch.cat([model.scores(part) for part in x.split(500)]).detach()
samples = samples_for(x, scores.argmax(1), torch.arange(n), scores)
search(Iterative(steps=2), model, parse_threat("linf:0.01"), Goal(), samples, Search(batch_size=100))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_memory_grows_by_the_data_and_one_copy(benchmark: BenchmarkFixture) -> None:
    def peak(n: int) -> int:
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(n)], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    few, many = 2_000, 22_000
    grown = benchmark.pedantic(lambda: peak(many) - peak(few), rounds=1)
    copies = grown / ((many - few) * 3 * 32 * 32 * 4)
    benchmark.extra_info["copies of the data, itself included"] = copies
    print(f"peak memory grows by {copies:.2f} times the data (2 = the data and one copy)")


def test_help_starts_at_once(benchmark: BenchmarkFixture) -> None:
    robust = Path(sys.executable).with_name("robust")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}

    def run() -> None:
        subprocess.run([robust, "--help"], check=True, capture_output=True, env=environment)

    benchmark(run)
    print(f"robust --help: {statistics.median(benchmark.stats.stats.data):.3f} s")
