"""Few pixels: against brute force, and against SciPy's differential evolution."""

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor, nn

from robustbench_lite.attacks.sparse.one_pixel import OnePixel, OnePixelState
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.random import Stream
from robustbench_lite.core.settings import Search
from robustbench_lite.core.task import margin
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.search.driver import search
from robustbench_lite.threats.named import parse_threat
from tests.conftest import attack_with, linear_model, samples_for, samples_of, small_network

NEVER = "untargeted,stop=never"


def every_point(x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """x (C, H, W) with each pixel in each colour (m, C)."""
    _, height, width = x.shape
    points = []
    for row, column, value in itertools.product(range(height), range(width), values):
        point = x.clone()
        point[:, row, column] = value
        points.append(point)
    return torch.stack(points)


def best_margin(model: Model, points: torch.Tensor, y: torch.Tensor) -> float:
    return float(margin(model.scores(points), y.expand(len(points))).max())


def test_exhaustive_is_the_best_of_every_pixel_and_level() -> None:
    model = small_network(3, (1, 4, 4))
    x, y = samples_of(model, 12)
    found = attack_with(model, x, y, "one_pixel:method=exhaustive,levels=9,population=32", "l0:1", goal=NEVER)
    ours = margin(model.scores(found.z), y)
    for row in range(len(x)):
        brute = best_margin(model, every_point(x[row], torch.linspace(0, 1, 9)[:, None]), y[row])
        assert float(ours[row]) == pytest.approx(brute, abs=1e-5)
    assert (found.records["forwards"] >= 16 * 9).all()


def test_in_colour_no_corner_of_any_pixel_is_better() -> None:
    model = small_network(3, (3, 3, 3))
    x, y = samples_of(model, 8)
    colour = Domain(pixel_dim=0)  # of (3, 3, 3) either end may be
    found = attack_with(
        model, x, y, "one_pixel:method=exhaustive,population=40", "l0:1", goal=NEVER, domain=colour
    )
    ours = margin(model.scores(found.z), y)
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)))
    inner = torch.tensor(list(itertools.product((0.0, 0.5, 1.0), repeat=3)))
    for row in range(len(x)):
        assert float(ours[row]) >= best_margin(model, every_point(x[row], corners), y[row]) - 1e-5
        assert float(ours[row]) >= best_margin(model, every_point(x[row], inner), y[row]) - 0.2


def test_evolution_finds_nearly_all_of_what_there_is() -> None:
    model = small_network(3, (1, 8, 8))
    x, y = samples_of(model, 60)
    evolved, all_there_is = (
        attack_with(model, x, y, f"one_pixel:{how}", "l0:1").success
        for how in ("steps=30,population=60", "method=exhaustive,levels=65")
    )
    assert 3 < int(all_there_is.sum()) < 57
    assert int(evolved.sum()) >= 0.97 * int(all_there_is.sum())
    assert not bool((evolved & ~all_there_is).any())  # the network is all but monotone in one pixel


def test_evolution_does_what_scipys_does() -> None:
    """The same objective, population and generations: the same success within sampling error."""
    model = small_network(3, (1, 6, 6))
    x, y = samples_of(model, 40)
    theirs = []
    for image, label in zip(x, y, strict=True):

        def worst(genes: np.ndarray, image: Tensor = image, label: Tensor = label) -> np.ndarray:
            row, column = (torch.from_numpy(np.round(genes[k]).astype(int)) for k in (0, 1))
            points = image.expand(genes.shape[1], -1, -1, -1).clone()
            points[torch.arange(len(row)), 0, row, column] = torch.from_numpy(genes[2]).float()
            return (-margin(model.scores(points), label.expand(len(points)))).numpy()

        best = scipy.optimize.differential_evolution(
            worst, [(0, 5), (0, 5), (0, 1)], strategy="rand1bin", maxiter=20, popsize=10, mutation=0.5,
            recombination=1.0, polish=False, vectorized=True, updating="deferred", seed=0, tol=0,
        )  # fmt: skip
        theirs.append(best.fun < 0)
    ours = attack_with(model, x, y, "one_pixel:steps=20,population=30,loss=margin", "l0:1").success
    assert sum(theirs) > 3
    assert abs(int(ours.sum()) - sum(theirs)) <= 2


def test_more_pixels_break_more_and_change_no_more_than_allowed() -> None:
    model = small_network(3, (1, 6, 6))
    x, y = samples_of(model, 40)
    results = [attack_with(model, x, y, "one_pixel:steps=15,population=40", f"l0:{k}") for k in (1, 3, 5)]
    counts = [int(r.success.sum()) for r in results]
    assert counts[0] < counts[1] <= counts[2]
    for k, result in zip((1, 3, 5), results, strict=True):
        assert (result.records["l0"] <= k).all()
        assert result.records["valid"].all()


def test_parents_are_three_others() -> None:
    attack = OnePixel(population=5)
    seen: list[torch.Tensor] = []
    rows = 200

    class Grid:
        height, width = 1, 10**6

        def rows_and_columns(self, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return where // self.width, where % self.width

        def clamped(self, colour: torch.Tensor) -> torch.Tensor:
            seen.append(colour)
            return colour

    class Asked:
        def random(self, tag: str) -> Stream:
            return Stream.of(0, torch.arange(rows)).fold(tag)

        def __len__(self) -> int:
            return rows

    # Candidate j's only gene is 10^j, so that the child tells which three it was made of.
    gene = (10.0 ** torch.arange(5)).expand(rows, -1)[:, :, None, None].double()
    state = OnePixelState(z=gene, where=gene[..., 0].long(), colour=gene, fitness=gene[..., 0, 0])
    attack._children(Asked(), state, Grid())  # type: ignore[arg-type]
    child = seen[0][..., 0, 0] * 2  # 2a + b - c
    legal = {
        own: {2.0 * 10**a + 10**b - 10**c for a, b, c in itertools.permutations(set(range(5)) - {own}, 3)}
        for own in range(5)
    }
    for own in range(5):
        values = set(child[:, own].tolist())
        assert values <= legal[own]
        assert len(values) > 20  # of 24


def test_a_stand_still_population_of_a_linear_model_is_solved() -> None:
    model = linear_model(2, (1, 3, 3))
    x, y = samples_of(model, 30)
    evolved = attack_with(model, x, y, "one_pixel:steps=40,population=50", "l0:1").success
    exact = attack_with(model, x, y, "exact", "l0:1").success
    assert torch.equal(evolved, exact)
    assert bool(exact.any())


def test_exhaustive_is_for_single_pixels() -> None:
    model = small_network()
    x, y = samples_of(model, 3)
    with pytest.raises(Unsupported, match="single pixels, l0:1; not l0:2"):
        attack_with(model, x, y, "one_pixel:method=exhaustive", "l0:2")


def test_the_batch_holds_a_population_for_each_sample() -> None:
    """A fast search copy is used for scores too, and what it claims is confirmed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3))
    model = TorchModel(net, (1, 6, 6))
    x, y = samples_of(model, 20)
    samples = samples_for(x, y, torch.arange(20), model.scores(x))
    attack = OnePixel(steps=12, population=30)
    plain, fast = (
        search(attack, model, parse_threat("l0:1"), parse_goal("untargeted"), samples, Search(precision=p))
        for p in ("float32", "bfloat16")
    )
    assert fast.precision == "bfloat16"
    broken = model.scores(fast.z).argmax(1) != y
    assert torch.equal(broken, fast.queries_at_success >= 0)
    assert abs(int(broken.sum()) - int((plain.queries_at_success >= 0).sum())) <= 1
