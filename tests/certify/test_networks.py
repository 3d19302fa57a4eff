"""Networks and kernels: bounds against brute force, against an integer programme, and against attacks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds as Sides
from scipy.optimize import LinearConstraint, milp
from sklearn.datasets import make_moons
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.certify import networks
from robustbench_lite.certify.certifier import Question
from robustbench_lite.certify.kernels import KernelBounds
from robustbench_lite.certify.lipschitz import LipschitzBounds, margin_stretch, step_norm
from robustbench_lite.certify.network_programmes import ProgrammedNetworks
from robustbench_lite.certify.networks import Inputs, NetworkBounds, Relaxed
from robustbench_lite.core.goal import Goal, parse_goal
from robustbench_lite.core.structure import Kernel, Layers, outcomes
from robustbench_lite.core.threat import Norm, norms

NORMS = ("linf", "l2", "l1", "l0")
PLAIN = rb.Domain(pixel_dim=None)


class Residual(nn.Module):
    """Every layer that bounds are propagated through, on 1 × 6 × 6 images."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1, stride=2), nn.BatchNorm2d(3), nn.LeakyReLU(0.1)
        )
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.pool, self.mean = nn.MaxPool2d(2, stride=1), nn.AvgPool2d(2)
        self.head = nn.Linear(3, 3)
        self.register_buffer("centre", torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.centre) / 0.5
        x = self.first(x)
        x = torch.relu(self.second(x) + x)
        x = self.mean(self.pool(x))
        scores: Tensor = self.head(x.view(x.size(0), -1))
        return scores


def built(make: object, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: nn.Module = make()  # type: ignore[operator]
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr, operator]
                part.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr, operator]
    return module.eval()


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 6), nn.LeakyReLU(0.2), nn.Linear(6, 3))


def nearest_on_a_grid(model: rb.Model, x: Tensor, y: Tensor, norm: str, side: int = 201) -> Tensor:
    axis = torch.linspace(0, 1, side)
    found = []
    for one, label in zip(x, y, strict=True):  # its own values are on the grid: l0 keeps them
        grid = torch.cartesian_prod(*(torch.cat([axis, value[None]]) for value in one))
        away = norms((grid - one).double(), PLAIN, Norm(norm))
        found.append(torch.where(model.prediction(model.scores(grid)) != label, away, torch.inf).amin())
    return torch.stack(found)


@pytest.mark.parametrize("norm", NORMS)
def test_no_point_of_a_fine_grid_is_nearer(norm: str) -> None:
    for seed in range(5):
        module = built(perceptron, seed)
        for part in module.parameters():
            part.data *= 2.5
        with torch.no_grad():  # every class somewhere
            module[4].bias -= module(torch.rand(500, 2)).mean(0)  # type: ignore[index]
        model = rb.TorchModel(module, (2,))
        x = torch.rand(8, 2, generator=torch.Generator().manual_seed(seed))
        y = model.prediction(model.scores(x))
        threat = rb.parse_threat(f"{norm}:min", PLAIN)
        found = NetworkBounds().bounds(Question(model, threat, Goal(), x, y))
        truth = nearest_on_a_grid(model, x, y, norm)
        assert (found.distance <= truth + 1e-6).all()
        assert not found.exact.any()
        finite = truth.isfinite()
        assert (found.distance[finite] > 0.2 * truth[finite]).float().mean() > 0.5  # and not useless


@pytest.mark.parametrize("norm", NORMS)
def test_linear_bounds_hold_at_random_points_of_the_ball_through_every_layer(norm: str) -> None:
    model = rb.TorchModel(built(Residual, 3), (1, 6, 6))
    held = model.structure
    assert isinstance(held, Layers)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 1, 6, 6, generator=generator)
    domain = rb.Domain(mask=torch.rand(1, 6, 6, generator=generator) > 0.3)
    asked = Question(model, rb.parse_threat(f"{norm}:min", domain), Goal(), x, torch.zeros(3).long())
    eps = torch.full((3,), 3.0 if norm == "l0" else 0.3)
    relaxed = Relaxed(held, Inputs.around(asked, eps, torch.float32))
    relaxed.bound_units()
    margins = torch.randn(3, 5, 3, generator=generator)
    least = relaxed.lower(margins, 0, torch.zeros(3, 1), torch.ones(3, 5, dtype=torch.bool))
    better = relaxed.lower(margins, 10, torch.full((3, 1), torch.inf), torch.ones(3, 5, dtype=torch.bool))
    assert (better >= least - 1e-6).all()
    assert (better > least + 1e-4).any()
    for _ in range(300):
        step = torch.randn(x.shape, generator=generator) * domain.mask
        if norm == "l0":  # three pixels, anywhere in the box
            chosen = torch.rand(3, 36, generator=generator).argsort(1)[:, :3]
            step = 9 * step * torch.zeros(3, 36).scatter(1, chosen, 1.0).reshape(x.shape)
        else:
            step = step / norms(step.double(), domain, Norm(norm)).float()[:, None, None, None].clamp_min(
                1e-9
            )
            step = 0.3 * torch.rand(3, 1, 1, 1, generator=generator) * step
        point = (x + step).clamp(0, 1)
        values = torch.einsum("nsk,nk->ns", margins, model.scores(point))
        assert (values >= better - 1e-5).all()


def test_pixels_are_counted_over_their_channels_and_all_of_them_prove_everything() -> None:
    """Two channels: a unit that sums up a pixel's is moved by both for the price of one."""
    layer, last = nn.Conv2d(2, 1, 1, bias=False), nn.Linear(4, 2)
    for bias, distance in ((3.0, 2.0), (9.0, torch.inf)):
        with torch.no_grad():  # scores part where the sum over all is the bias; a pixel's two channels give 2
            layer.weight.fill_(1.0)
            last.weight.copy_(torch.tensor([[-1.0] * 4, [1.0] * 4]))
            last.bias.copy_(torch.tensor([bias, -bias]))
        model = rb.TorchModel(nn.Sequential(layer, nn.ReLU(), nn.Flatten(), last).eval(), (2, 2, 2))
        x = torch.zeros(1, 2, 2, 2)
        y = model.prediction(model.scores(x))
        found = NetworkBounds().bounds(Question(model, rb.parse_threat("l0:min"), Goal(), x, y))
        assert found.distance.tolist() == [distance]


@pytest.mark.parametrize("norm", ["l2", "l1", "linf"])
def test_no_step_changes_a_margin_by_more_than_its_lipschitz_constant(norm: str) -> None:
    for make, shape in ((Residual, (1, 6, 6)), (perceptron, (2,))):
        model = rb.TorchModel(built(make, 3), shape)
        held = model.structure
        assert isinstance(held, Layers)
        stretch = margin_stretch(held)
        generator = torch.Generator().manual_seed(0)
        x, other = torch.rand(2, 200, *shape, generator=generator)
        far = (x - other).flatten(1).double().norm(dim=1)
        changed = (model.scores(x) - model.scores(other)).double()
        margins = (changed[:, :, None] - changed[:, None]).abs()
        assert (margins <= stretch * far[:, None, None] + 1e-5).all()
        asked = Question(
            model, rb.parse_threat(f"{norm}:min", PLAIN), Goal(), x, model.prediction(model.scores(x))
        )
        found = LipschitzBounds().bounds(asked)
        size = norms((x - other).double(), PLAIN, Norm(norm))
        broken = model.prediction(model.scores(other)) != asked.y
        assert broken.any()
        assert (found.distance <= size)[broken].all()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(36, 5), nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, stride=2, bias=False),
        nn.Conv2d(1, 3, 3, padding=2, dilation=2), nn.AvgPool2d(2), nn.BatchNorm2d(1),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_step_stretches_by_is_no_less_than_the_norm_of_its_matrix(layer: nn.Module) -> None:
    flat = [nn.Flatten()] if isinstance(layer, nn.Linear) else []
    module = nn.Sequential(*flat, layer, nn.Flatten()).eval()
    width = module(torch.zeros(1, 1, 6, 6)).shape[1]
    held = rb.TorchModel(nn.Sequential(module, nn.Linear(width, 3)).eval(), (1, 6, 6)).structure
    assert isinstance(held, Layers)
    values = outcomes(held, torch.zeros(1, 1, 6, 6))
    shapes = [tuple(value.shape[1:]) for value in values]
    number = next(i for i, step in enumerate(held.steps) if type(step.affine) is type(layer))
    unit = torch.eye(36).reshape(36, *shapes[held.steps[number].inputs[0]])
    with torch.no_grad():
        matrix = (layer(unit) - layer(0 * unit)).flatten(1).double()
    truth = float(torch.linalg.matrix_norm(matrix, 2))
    found = step_norm(held.steps[number], shapes, held)
    assert truth * (1 - 1e-6) <= found <= truth * 2.2  # of a torus, and without strides


def test_what_the_steps_compute_is_what_the_module_computes() -> None:
    for make, shape in ((Residual, (1, 6, 6)), (perceptron, (2,))):
        model = rb.TorchModel(built(make), shape)
        held = model.structure
        assert isinstance(held, Layers)
        x = torch.rand(4, *shape)
        asked = Question(model, rb.parse_threat("linf:0.1", PLAIN), Goal(), x, torch.zeros(4).long())
        relaxed = Relaxed(held, Inputs.around(asked, torch.zeros(4), torch.float32))
        relaxed.bound_units()
        assert torch.allclose(relaxed.scores, model.scores(x), atol=1e-5)
        every = torch.eye(3)[None].expand(4, 3, 3)
        exact = relaxed.lower(every, 0, torch.zeros(4, 1), torch.ones(4, 3, dtype=torch.bool))
        assert torch.allclose(exact, model.scores(x), atol=1e-3)  # a ball of one point


def test_bounds_are_below_an_integer_programme_of_a_network_with_two_layers() -> None:
    """The least margin in a box by HiGHS (Tjeng, Xiao & Tedrake 2019) against the linear bound."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 2)).eval()
    model = rb.TorchModel(module, (4,))
    held = model.structure
    assert isinstance(held, Layers)
    first, last = module[0], module[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    parts = (first.weight, first.bias, last.weight, last.bias)
    w, b, v, c = (part.detach().double().numpy() for part in parts)
    for x, eps in itertools.product(torch.rand(4, 4), (0.05, 0.2)):
        low, high = np.maximum(x.numpy() - eps, 0.0), np.minimum(x.numpy() + eps, 1.0)
        middle, far = w @ (low + high) / 2 + b, np.abs(w) @ (high - low) / 2
        least, most = middle - far, middle + far
        # Variables: x (4), hidden (10), on or off (10).
        rows, below = [], []
        for k in range(10):
            unit = np.eye(10)[k]
            rows += [
                np.concatenate([w[k], -unit, 0 * unit]),  # hidden >= w x + b
                np.concatenate([-w[k], unit, -least[k] * unit]),  # hidden <= w x + b - least (1 - on)
                np.concatenate([0 * w[k], unit, -max(most[k], 0.0) * unit]),  # hidden <= most · on
            ]
            below += [-b[k], b[k] - least[k], 0.0]
        cost = np.concatenate([np.zeros(4), v[0] - v[1], np.zeros(10)])
        sides = Sides(
            np.concatenate([low, np.zeros(20)]), np.concatenate([high, np.full(10, np.inf), np.ones(10)])
        )
        whole = np.concatenate([np.zeros(14), np.ones(10)]).astype(int)
        solved = milp(
            cost, constraints=LinearConstraint(np.array(rows), -np.inf, np.array(below)), bounds=sides,
            integrality=whole,
        )  # fmt: skip
        truth = solved.fun + c[0] - c[1]
        asked = Question(model, rb.parse_threat("linf:0.1", PLAIN), Goal(), x[None], torch.zeros(1).long())
        relaxed = Relaxed(held, Inputs.around(asked, torch.tensor([eps]), torch.float32))
        relaxed.bound_units()
        margin = torch.tensor([[[1.0, -1.0]]])
        found = relaxed.lower(margin, 20, torch.tensor([[torch.inf]]), torch.ones(1, 1, dtype=torch.bool))
        assert float(found) <= truth + 1e-5
        assert float(found) >= truth - 1.0
        # On either side of every open unit the network is linear: with the best multipliers nothing is lost.
        cases, signs = relaxed.in_cases(margin, 10)
        n = len(signs)
        assert n == 2**10
        every = torch.ones(n, 1, dtype=torch.bool)
        enough = torch.full((n, 1), torch.inf)
        whole_of_it = cases.lower(margin.expand(n, 1, 2), 150, enough, every, signs).amin()
        assert float(found) - 1e-5 <= float(whole_of_it) <= truth + 1e-5
        assert float(whole_of_it) >= truth - 0.02


class Around(nn.Module):
    """A residual block between two matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(2, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        scores: Tensor = self.last(torch.relu(self.inner(h) + h))
        return scores


@pytest.mark.parametrize("make", [perceptron, Around])
@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_a_programme_of_whole_numbers_is_exact_where_it_is_asked_for(norm: str, make: object) -> None:
    for seed, goal, mask in ((0, "untargeted", None), (1, "given", None), (2, "untargeted", [True, False])):
        module = built(make, seed)
        for part in module.parameters():
            part.data *= 2.0
        last = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
        with torch.no_grad():  # every class somewhere
            last.bias -= module(torch.rand(500, 2, generator=torch.Generator().manual_seed(0))).mean(0)
        model = rb.TorchModel(module, (2,))
        x = torch.rand(6, 2, generator=torch.Generator().manual_seed(seed))
        y = model.prediction(model.scores(x))
        target = None if goal == "untargeted" else ((y + 1) % 3)[:, None]
        domain = PLAIN if mask is None else rb.Domain(pixel_dim=None, mask=torch.tensor(mask))
        threat = rb.parse_threat(f"{norm}:min", domain)
        asked = Question(model, threat, parse_goal(goal), x, y, target, effort=2.0)
        found = ProgrammedNetworks().bounds(asked)
        assert found.nearest is not None
        reached = threat.distance(found.nearest, x)
        assert (reached <= found.distance * (1 + 1e-4))[found.exact & found.distance.isfinite()].all()
        for i, (one, least) in enumerate(zip(x, found.distance.tolist(), strict=True)):
            axes = [torch.cat([torch.linspace(0, 1, 201), value[None]]) for value in one]
            axes = axes if mask is None else [axes[0], one[1:]]
            grid = torch.cartesian_prod(*axes)
            there = asked.sought[i][model.prediction(model.scores(grid))]
            away = torch.where(there, norms((grid - one).double(), domain, Norm(norm)), torch.inf)
            assert least <= float(away.min()) + 1e-6
            if np.isfinite(least):
                assert least <= float(reached[i]) <= least + 1e-3  # what scores may be rounded by
                assert asked.sought[i, int(model.prediction(model.scores(found.nearest[i : i + 1])))]
            else:
                assert not there.any()
        assert ProgrammedNetworks().bounds(replace(asked, effort=1.0)).distance.isnan().all()


def test_units_on_either_side_prove_more_and_never_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    distances = []
    for split in (0, 6):
        monkeypatch.setattr(networks, "SPLIT", split)
        module = built(perceptron, 1)
        for part in module.parameters():
            part.data *= 2.5
        with torch.no_grad():
            module[4].bias -= module(torch.rand(500, 2, generator=torch.Generator().manual_seed(0))).mean(0)  # type: ignore[index]
        model = rb.TorchModel(module, (2,))
        x = torch.rand(20, 2, generator=torch.Generator().manual_seed(1))
        y = model.prediction(model.scores(x))
        found = NetworkBounds().bounds(Question(model, rb.parse_threat("linf:min", PLAIN), Goal(), x, y))
        distances.append(found.distance)
        assert (found.distance <= nearest_on_a_grid(model, x, y, "linf") + 1e-6).all()
    without, cases = distances
    finite = without.isfinite()
    assert (cases >= without).all()
    assert float((cases - without)[finite].mean()) > 0.01 * float(without[finite].mean())


def test_layers_that_are_not_known_leave_no_structure() -> None:
    for layer in (nn.Tanh(), nn.Sigmoid(), nn.GroupNorm(1, 8), nn.Softmax(1)):
        module = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), layer, nn.Flatten(), nn.Linear(8, 2)).eval()
        model = rb.TorchModel(module, (4,))
        assert model.structure is None
        why = NetworkBounds().refuses(model, rb.parse_threat("linf:0.1"), Goal())
        assert why is not None
        assert type(layer).__name__ in model.unread
    run = rb.run((torch.rand(20, 4), torch.arange(20) % 2), [model], ["fgsm"], ["linf:0.1"])
    assert any("no linear bounds" in note and "Softmax is no layer" in note for note in run.notes)
    large = rb.TorchModel(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 9000), nn.ReLU(), nn.Linear(9000, 2)), (4,)
    )
    said = NetworkBounds().refuses(large, rb.parse_threat("linf:0.1"), Goal())
    assert said is not None
    assert "9000 rectified units" in said


@pytest.mark.parametrize("name", ["mlp", "cnn", "svm"])
def test_no_attack_breaks_a_bound_on_digits_and_the_table_shows_it(name: str) -> None:
    digits, little = rb.load_data("digits", samples=12), rb.Search(certify=0.3)
    run = rb.run(digits, [name], ["pgd:steps=20", "fmn:steps=30"], ["linf:0.004", "linf:min"], search=little)
    assert not run.failures
    table = run.table("worst_case")
    assert 0 < float(table["proven"].iloc[0]) <= float(table["robust"].iloc[0])
    assert (run.records["bound_kind"] == "sound").all()
    assert run.records["bound_by"].str.contains("linear relaxation").all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 3])
def test_kernels_are_bounded_below_any_point_of_a_fine_grid(norm: str, classes: int) -> None:
    points, label = make_moons(120, noise=0.15, random_state=0)
    label = label + (points[:, 0] > 1.2) if classes == 3 else label
    points = (points - points.min(0)) / (points.max(0) - points.min(0))
    made = make_pipeline(StandardScaler(), SVC(C=5.0)).fit(points, label)
    model = rb.lift(made, (2,), points)
    assert isinstance(model.structure, Kernel)
    x = torch.from_numpy(points[:30]).float()
    y = model.prediction(model.scores(x))
    found = KernelBounds().bounds(Question(model, rb.parse_threat(f"{norm}:min", PLAIN), Goal(), x, y))
    truth = nearest_on_a_grid(model, x, y, norm)
    assert (found.distance <= truth + 1e-6).all()
    assert (found.distance / truth).median() > 0.4


class Mutating(nn.Module):
    """One of several ways to compute something else than the layers read one by one."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.last, self.how = nn.Linear(4, 6), nn.Linear(6, 3), how

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.how == "in place":
            h = nn.functional.relu(h, inplace=True) + h
        elif self.how == "alpha":
            h = torch.relu(torch.add(h, self.first(1 - x), alpha=-3))
        elif self.how == "floor":
            h = torch.relu(torch.div(h, 0.5, rounding_mode="floor"))
        elif self.how == "slope":
            h = nn.functional.leaky_relu(h, 2.0)
        scores: Tensor = self.last(h)
        return scores


@pytest.mark.parametrize("how", ["in place", "alpha", "floor", "slope"])
def test_what_layers_do_not_tell_leaves_no_structure(how: str) -> None:
    model = rb.TorchModel(Mutating(how).eval(), (4,))
    assert model.structure is None


def test_layers_whose_weights_are_made_or_padded_unevenly_leave_no_structure() -> None:
    made = nn.utils.parametrizations.weight_norm
    odd = nn.Sequential(nn.Conv2d(1, 2, 2, padding="same"), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    ceil = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(8, 3))
    normed = nn.Sequential(nn.Flatten(), made(nn.Linear(16, 8)), nn.ReLU(), made(nn.Linear(8, 3)))
    for module, shape in ((odd, (1, 4, 4)), (ceil, (1, 5, 5)), (normed, (1, 4, 4))):
        model = rb.TorchModel(module.eval(), shape)
        assert model.structure is None
        records = rb.attack(model, torch.rand(3, *shape), torch.zeros(3).long(), "fgsm", "linf:0.1").records
        assert records["bound_kind"].isna().all()


def test_bounds_end_where_the_box_does() -> None:
    """Nothing beyond the box is proven by growing for ever, nor by taking a corner of it for its end."""
    first, last = nn.Linear(16, 1), nn.Linear(1, 2)
    with torch.no_grad():
        first.weight.fill_(1.0)
        first.bias.zero_()
        last.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        last.bias.copy_(torch.tensor([6.0, -6.0]))
    model = rb.TorchModel(nn.Sequential(first, nn.ReLU(), last).eval(), (16,))
    x = torch.full((1, 16), 0.01)
    y = model.prediction(model.scores(x))
    found = NetworkBounds().bounds(Question(model, rb.parse_threat("l1:min", PLAIN), Goal(), x, y))
    assert 5 < float(found.distance[0]) <= 5.84 + 1e-3
    for seed in (9, 57):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
        module[4].bias.data += torch.tensor([0.15, -0.15])  # type: ignore[operator]
        model = rb.TorchModel(module.eval(), (2,))
        x = torch.rand(6, 2)
        y = model.prediction(model.scores(x))
        found = NetworkBounds().bounds(Question(model, rb.parse_threat("linf:min", PLAIN), Goal(), x, y))
        assert (found.distance > 0).all()
