"""Bounds: only registered certifiers claim them, and nothing may undercut them."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import GaussianNB
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.attacks.noise import Noise
from robustbench_lite.certify import polytope
from robustbench_lite.certify.certifier import Question, certify
from robustbench_lite.certify.linear import LinearBounds
from robustbench_lite.certify.polytope import smallest_step
from robustbench_lite.certify.single_changes import SingleChangeBounds
from robustbench_lite.certify.trees import nearest_in_boxes
from robustbench_lite.core.goal import Goal, parse_goal
from robustbench_lite.core.random import Stream
from robustbench_lite.core.structure import Boxes
from robustbench_lite.core.task import Classification
from robustbench_lite.core.threat import Norm
from robustbench_lite.judging.judge import BoundBroken
from robustbench_lite.models.own import Reading
from robustbench_lite.models.zoo.linear import LinearModel
from robustbench_lite.threats.named import parse_threat
from tests.conftest import attack_with, linear_model, run_with, samples_of

NORMS = [str(norm) for norm in Norm]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["logistic", "linear_svm", "tree"])
def test_the_bound_is_the_distance_that_exact_reaches(name: str, norm: str) -> None:
    result = run_with("digits", [name], ["exact"], [f"{norm}:min"], 100).records
    right = result["clean_prediction"] == result["label"]
    assert (result["bound_kind"] == "exact").all()
    won = result.loc[result["success"]]
    assert (won["lower_bound"] <= won["distance"] * (1 + 1e-9)).all()
    assert np.allclose(won["lower_bound"], won["distance"], rtol=3e-6)
    assert (result.loc[~right, "lower_bound"] == 0).all()


def test_bounds_are_recorded_at_every_eps_and_shown_as_an_interval() -> None:
    digits = rb.load_data("digits", samples=60)
    training = digits.training()
    bayes = GaussianNB(var_smoothing=1e-2).fit(training.x.flatten(1).numpy(), training.y.numpy())
    made = rb.lift(bayes, (1, 8, 8), training.x, name="bayes")
    result = rb.run(digits, ["logistic", made], ["fgsm", "exact"], ["linf:0.05"])
    known = result.records.loc[result.records["model"] == "logistic"]
    assert known["lower_bound"].notna().all()
    assert result.records.loc[result.records["model"] == "bayes", "lower_bound"].isna().all()
    table = result.table().set_index(["model", "attack"])
    assert table.loc[("logistic", "exact"), "proven"] == table.loc[("logistic", "exact"), "robust"]
    assert table.loc[("logistic", "fgsm"), "proven"] <= table.loc[("logistic", "fgsm"), "robust"]
    assert np.isnan(table.loc[("bayes", "fgsm"), "proven"])
    worst = result.table("worst_case").set_index("model")
    assert worst.loc["logistic", "proven"] == worst.loc["logistic", "robust"]


@dataclass(frozen=True)
class CallsItselfExact(Noise):
    """What it says of itself is nobody's business."""

    exact = True
    name = "calls_itself_exact"


def test_an_attack_is_not_believed_on_its_word() -> None:
    model = linear_model()
    x, y = samples_of(model, 30)
    liar = attack_with(model, x, y, CallsItselfExact(), "linf:0.5").records
    truth = attack_with(model, x, y, "exact", "linf:min").records
    assert liar["lower_bound"].tolist() == truth["lower_bound"].tolist()


def test_a_success_nearer_than_a_bound_fails_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = LinearBounds.bounds

    def boasting(self: LinearBounds, *others: object) -> object:
        found = plain(self, *others)  # type: ignore[arg-type]
        return replace(found, distance=found.distance * 2)

    monkeypatch.setattr(LinearBounds, "bounds", boasting)
    x, y = samples_of(linear_model(), 20)
    with pytest.raises(BoundBroken, match="none is nearer than"):
        attack_with(linear_model(), x, y, "exact", "l2:min")
    result = run_with("digits", ["logistic", "knn"], ["fgsm", "exact"], ["linf:0.1"], 40)
    assert any("BoundBroken" in told for told in result.failures.values())
    assert set(result.records["model"]) == {"knn"} or "exact" not in set(result.records["attack"])


def test_targets_have_bounds_too() -> None:
    model = linear_model(4)
    x, y = samples_of(model, 15)
    for norm in NORMS:
        records = attack_with(model, x, y, "exact", f"{norm}:min", goal="top:2").records
        won = records.loc[records["success"]]
        assert np.allclose(won["lower_bound"], won["distance"], rtol=1e-4), norm


def test_more_than_another_class_makes_a_bound_sound() -> None:
    model = linear_model()
    x, y = samples_of(model, 5)
    for text, kind in (("untargeted", "exact"), ("untargeted,margin=1", "sound")):
        found = certify(Question(model, parse_threat("l2:1"), parse_goal(text), x, y))
        assert found is not None
        assert set(found.kinds) == {kind}
    assert certify(Question(model, parse_threat("box"), Goal(), x, y)) is None


def test_proven_samples_may_be_left_out_but_for_a_twentieth() -> None:
    data = rb.load_data("digits")
    options = {"threats": ["linf:0.05"], "samples": None}
    plain = run_with("digits", ["logistic"], ["pgd:steps=5"], **options).records  # type: ignore[arg-type]
    spared = run_with("digits", ["logistic"], ["pgd:steps=5"], skip_proven=True, **options).records  # type: ignore[arg-type]
    proven = (plain["lower_bound"] > 0.05).to_numpy()
    assert 0.3 < proven.mean() < 1
    searched = (spared["forwards"] > 0).to_numpy()
    expected = Stream.of(0, data.ids).fold("proven").uniform(()) < 0.05
    assert searched[proven].tolist() == expected[torch.from_numpy(proven)].tolist()
    assert 0 < searched[proven].mean() < 0.12
    assert spared["success"].tolist() == plain["success"].tolist()


def grid_of(x0: Tensor, spacing: Tensor, low: float, high: float) -> Tensor:
    """Every point of a domain whose features all take steps."""
    axes = []
    for value, step in zip(x0.tolist(), spacing.tolist(), strict=True):
        k = np.arange(np.ceil((low - value) / step - 1e-6), np.floor((high - value) / step + 1e-6) + 1)
        axes.append(value + k * step)
    return torch.tensor(list(itertools.product(*axes)), dtype=torch.float64)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("structure", ["linear", "tree"])
def test_exact_equals_brute_force_over_steps(norm: str, structure: str) -> None:
    generator = torch.Generator().manual_seed(5)
    spacing = torch.tensor([0.25, 0.1, 0.19])
    x = torch.tensor([0.1, 0.05, 0.02]) + spacing * torch.randint(0, 4, (25, 3), generator=generator)
    if structure == "linear":
        model: rb.Model = LinearModel(
            torch.randn(3, 3, generator=generator), torch.zeros(3), (3,), scaled=True
        )
    else:
        from sklearn.tree import DecisionTreeClassifier

        points = torch.rand(300, 3, generator=generator).numpy()
        label = (points[:, 0] * 3 + points[:, 1] > 1.7).astype(int) + (points[:, 2] > 0.6)
        model = rb.lift(DecisionTreeClassifier(max_depth=6, random_state=0).fit(points, label), (3,))
    y = model.prediction(model.scores(x))
    domain = rb.Domain(spacing=spacing.double(), pixel_dim=None)
    records = attack_with(model, x, y, "exact", f"{norm}:min", domain=domain).records
    for i in range(len(x)):
        grid = grid_of(x[i].double(), spacing.double(), 0.0, 1.0)
        says = model.prediction(model.scores(grid.float()))
        delta = (grid - x[i].double())[says != y[i]]
        if not len(delta):
            assert not records["success"][i]
            continue
        sizes = {
            "linf": delta.abs().amax(1), "l2": delta.square().sum(1).sqrt(), "l1": delta.abs().sum(1),
            "l0": (delta.abs() > 1e-9).sum(1).double(),
        }  # fmt: skip
        assert records["success"][i], (i, float(sizes[norm].min()))
        assert records["distance"][i] == pytest.approx(float(sizes[norm].min()), abs=2e-6)
        assert records["lower_bound"][i] <= records["distance"][i] * (1 + 1e-6)


@pytest.mark.parametrize(
    "attack", ["fgsm", "pgd", "apgd", "square:steps=200", "spsa:steps=20", "simba", "noise"]
)
def test_steps_lose_nothing_that_snapping_would_keep(attack: str) -> None:
    """An attack on stepped features does at least as well as its own point without steps, put on the grid."""
    generator = torch.Generator().manual_seed(2)
    model = LinearModel(torch.randn(3, 8, generator=generator), torch.zeros(3), (8,), scaled=True)
    spacing = torch.full((8,), 0.1, dtype=torch.float64)
    x = (torch.randint(0, 10, (80, 8), generator=generator) / 10 + 0.03).clamp(0, 0.93)
    y = model.prediction(model.scores(x))
    free, stepped = rb.Domain(pixel_dim=None), rb.Domain(spacing=spacing, pixel_dim=None)
    within = parse_threat("linf:0.25", stepped)
    plain = attack_with(model, x, y, attack, "linf:0.25", domain=free)
    eps = torch.full((80,), 0.25, dtype=torch.float64)
    nearest = stepped.snap(plain.adversarial, x, inward=False)
    inside = within.contains(nearest, x, eps)[:, None]
    snapped = torch.where(inside, nearest, stepped.snap(plain.adversarial, x, inward=True))
    kept = (model.prediction(model.scores(snapped)) != y).sum()
    mine = attack_with(model, x, y, attack, "linf:0.25", domain=stepped).records
    assert mine["valid"].all()
    assert mine["success"].sum() >= int(kept) > 0


@pytest.mark.parametrize("steps", [10, 16, 255])
def test_a_step_as_float32_writes_it_is_never_the_wrong_side_of_a_threshold(steps: int) -> None:
    """Thresholds a hair beside the grid's points: the nearest grid point of a box, against all of them."""
    spacing = torch.full((1,), 1 / steps)
    domain = rb.Domain(spacing=spacing, pixel_dim=None)
    x = (torch.randint(0, steps + 1, (40, 1), generator=torch.Generator().manual_seed(0)).float()) * spacing
    places = torch.arange(-steps, steps + 1).double() * float(spacing)
    reach = (x.double() + places).float()  # (n, points), as the domain writes them
    reach = torch.where((reach >= 0) & (reach <= 1), reach, torch.nan)
    for at in range(steps):
        cut = torch.tensor(at / steps + 0.0, dtype=torch.float32)
        for threshold in (cut, torch.nextafter(cut, cut + 1), torch.nextafter(cut, cut - 1)):
            low, high = torch.tensor([[-torch.inf], [0.0]]), torch.tensor([[0.0], [torch.inf]])
            low[1], high[0] = threshold, threshold
            boxes = Boxes(low, high, torch.tensor([0, 1]))
            beyond = x[:, 0] > threshold
            sought = torch.stack([beyond, ~beyond], 1)
            point = nearest_in_boxes(x, boxes, sought, Norm.LINF, domain)
            other = (reach > threshold) != beyond[:, None]
            size = torch.where(other & ~reach.isnan(), (reach - x).abs(), torch.inf).amin(1)
            found = torch.where((point[:, 0] > threshold) != beyond, (point - x).abs()[:, 0], torch.inf)
            assert torch.allclose(found, size, atol=1e-6), (at, threshold)


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_over_many_whole_steps_equal_a_table_of_all_costs(seed: int) -> None:
    """Sixty-four features in equal steps: the most gained at each sum of squares, feature by feature."""
    random = np.random.default_rng(seed)
    d, most = 64, 6
    normal, need = random.normal(size=d), 9.0
    gain = np.full(200, -np.inf)
    gain[0] = 0.0
    for weight in np.abs(normal):
        taken = [
            np.concatenate([np.full(k * k, -np.inf), gain[: len(gain) - k * k] + k * weight])
            for k in range(most + 1)
        ]
        gain = np.max(taken, axis=0)
    cost = int((gain >= need).argmax())
    assert 0 < cost < 199
    side, pixel = np.full(d, most / 16), np.arange(d)
    step = smallest_step(16 * normal[None], np.array([need]), -side, side, Norm.L2, pixel, np.full(d, 1 / 16))
    assert step is not None
    assert np.square(16 * step).sum() == pytest.approx(cost)
    assert 16 * normal @ step >= need - 1e-6


def test_a_programme_that_is_left_early_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    d = 40
    normals, side, unit = random.normal(size=(2, d)), np.full(d, 3.0), random.uniform(0.05, 0.2, d)
    problem = (normals, np.array([7.1234, 3.21]), -side, side, Norm.L1, np.arange(d), unit)
    best = smallest_step(*problem)
    monkeypatch.setattr(polytope, "NODES", 1)
    with pytest.warns(UserWarning, match="not proven to be the nearest"):
        step = smallest_step(*problem)
    assert best is not None
    assert step is not None
    assert np.abs(best).sum() <= np.abs(step).sum()


def test_little_effort_shares_bounds_among_goals_only_where_answers_are_not_exact() -> None:
    run = run_with("digits", ["logistic", "svm"], ["fgsm"], ["linf:0.05"], 20, goals=["random"])
    kinds = run.records.groupby("model", observed=True)["bound_kind"].unique()
    assert kinds["logistic"].tolist() == ["exact"]
    assert kinds["svm"].tolist() == ["sound"]


@pytest.mark.parametrize("goal", ["untargeted", "given"])
def test_every_single_change_of_steps_and_choices_is_tried_whatever_the_model(goal: str) -> None:
    """Against all points of the domain: whole numbers, a choice of three, a feature that may not change."""
    spacing = torch.tensor([0.25, 0.5, 1.0, 1.0, 1.0, 0.5])
    groups = torch.tensor([-1, -1, 0, 0, 0, -1])
    mask = torch.tensor([True] * 5 + [False])
    domain = rb.Domain(spacing=spacing.double(), groups=groups, mask=mask, pixel_dim=None)
    generator = torch.Generator().manual_seed(0)
    numbers = torch.cartesian_prod(
        torch.arange(5) / 4, torch.arange(3) / 2, torch.arange(3.0), torch.arange(3) / 2
    )
    every = torch.cat([numbers[:, :2], torch.eye(3)[numbers[:, 2].long()], numbers[:, 3:]], 1)
    label = torch.randint(0, 3, (len(every),), generator=generator)
    bayes = GaussianNB().fit(
        every.numpy() + 0.3 * torch.randn(every.shape, generator=generator).numpy(), label
    )
    model = rb.lift(bayes, (6,))
    x = every[torch.randperm(len(every), generator=generator)[:40]]
    y = model.prediction(model.scores(x))
    target = None if goal == "untargeted" else ((y + 1) % 3)[:, None]
    question = Question(model, parse_threat("l0:min", domain), parse_goal(goal), x, y, target)
    assert SingleChangeBounds().refuses(model, question.threat, question.goal) is None
    found = SingleChangeBounds().bounds(question)
    says = model.prediction(model.scores(every))
    for i in range(len(x)):
        admitted = domain.admits(every, x[i].expand_as(every))
        far = torch.where(
            admitted, parse_threat("l0:min", domain).distance(every, x[i].expand_as(every)), torch.inf
        )
        nearest = float(torch.where(question.sought[i][says], far, torch.inf).min())
        assert float(found.distance[i]) == min(nearest, 2.0)
        assert bool(found.exact[i]) == (nearest == 1)
    free = replace(domain, spacing=spacing.double() * torch.tensor([1, 0, 1, 1, 1, 1]))
    assert SingleChangeBounds().refuses(model, parse_threat("l0:min", free), Goal()) is not None


def test_bounds_know_every_answer_that_will_do() -> None:
    """A refusal and an answer of NaN, where the goal says so: no attack may come nearer than is claimed."""
    module = nn.Sequential(nn.Linear(2, 3)).eval()
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
        module[0].bias.copy_(torch.tensor([0.0, 0.0, -0.4]))
    x = torch.tensor([[0.6, 0.5], [0.7, 0.6]])
    data = rb.Data(
        "own", x, torch.zeros(2).long(), torch.arange(2), ("0", "1", "2"), task=Classification(reject=2)
    )
    model = rb.load_model(module, data, reading=Reading(reject=2))
    y = model.prediction(model.scores(x))
    threat = parse_threat("linf:0.5", rb.Domain(pixel_dim=None))
    question = Question(model, threat, parse_goal("class:1,rejection=success"), x, y, torch.ones(2, 1).long())
    refused = certify(question)
    assert refused is not None
    assert torch.allclose(refused.distance, (x[:, 0] - x[:, 1] + 0.4).double() / 2, rtol=1e-4)

    def nan_at(z: np.ndarray) -> np.ndarray:
        scores = np.stack([1 - 0 * z[:, 0], 0 * z[:, 0]], 1)
        scores[np.isclose(z[:, 0], 0.75)] = np.nan
        return scores

    stepped = rb.Domain(spacing=torch.tensor([0.25, 0.25]).double(), pixel_dim=None)
    function = rb.ScoreFunction(nan_at, (2,))
    x, y = torch.zeros(3, 2), torch.zeros(3).long()
    for goal, known in (("untargeted", True), ("untargeted,nan=success", False)):
        found = certify(Question(function, parse_threat("l0:1", stepped), parse_goal(goal), x, y))
        assert (found is not None) == known


def test_what_has_no_end_or_too_many_values_is_not_enumerated() -> None:
    step = torch.tensor([1.0, 1.0]).double()
    open_ended = rb.Domain(
        torch.tensor([0.0, 0.0]), torch.tensor([torch.inf, 5.0]), spacing=step, pixel_dim=None
    )
    function = rb.ScoreFunction(lambda z: np.stack([3 - z[:, 0], z[:, 0] - 3], 1), (2,))
    assert SingleChangeBounds().refuses(function, parse_threat("l0:1", open_ended), Goal()) is not None
    fine = rb.Domain(0.0, 5.0, spacing=torch.tensor([1e-4, 1.0]).double(), pixel_dim=None)
    question = Question(function, parse_threat("l0:1", fine), Goal(), torch.ones(2, 2), torch.zeros(2).long())
    assert SingleChangeBounds().bounds(question).distance.isnan().all()
    assert SingleChangeBounds().bounds(replace(question, effort=10.0)).distance.tolist() == [1.0, 1.0]


def test_nothing_is_proven_in_a_short_type_of_number(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def looked(self: LinearBounds, question: Question) -> object:
        seen.append(torch.backends.cudnn.allow_tf32)
        return plain(self, question)

    plain = LinearBounds.bounds
    monkeypatch.setattr(LinearBounds, "bounds", looked)
    x, y = samples_of(linear_model(), 3)
    certify(Question(linear_model(), parse_threat("l2:min"), Goal(), x, y))
    assert seen == [False]
