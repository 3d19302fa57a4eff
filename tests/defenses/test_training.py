"""Trainings: the adversary inside, losses by hand, bounds by brute force, going on after a kill."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.core.errors import RobustError, Unsupported
from robustbench_lite.core.random import Stream
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.training.adversarial import (
    MART,
    TRADES,
    PGDTraining,
    UniversalTraining,
    _Universal,
    _Within,
)
from robustbench_lite.defenses.training.bounds import layers_of, linear_worst_scores, worst_scores
from robustbench_lite.defenses.training.inner import Ball, ascent
from robustbench_lite.defenses.training.regularised import Cutout, Mixup
from robustbench_lite.models.zoo import training as zoo
from robustbench_lite.models.zoo.training import Average, Batch, Objective, Schedule, fit_network
from tests.conftest import attack_with

NOTHING, ALL = torch.tensor(0.0), torch.tensor(1.0)


def batch_of(x: Tensor, y: Tensor, done: float = 1.0) -> Batch:
    rows = torch.arange(len(x))
    return Batch(x, y, rows, Stream.of(0, rows), done)


def network(seed: int = 0, width: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(width, 6), nn.ReLU(), nn.Linear(6, 3))


@given(st.sampled_from(["linf", "l2"]), st.floats(0.01, 0.7), st.integers(0, 10))
def test_the_adversary_stays_in_its_ball_and_box(norm: str, eps: float, seed: int) -> None:
    x = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    ball = Ball(norm, eps, NOTHING, ALL)  # type: ignore[arg-type]
    far = x + 10 * (torch.rand(x.shape, generator=torch.Generator().manual_seed(seed + 1)) - 0.5)
    for z in (ball.inside(far, x), ball.random(x, Stream.of(seed, torch.arange(5)))):
        away = (z - x).flatten(1)
        size = away.abs().amax(1) if norm == "linf" else away.norm(dim=1)
        assert bool((size <= eps * (1 + 1e-5)).all())
        assert 0 <= float(z.min()) <= float(z.max()) <= 1
    step = ball.step(far, 0.3).flatten(1)
    assert torch.allclose(step.abs().amax(1) if norm == "linf" else step.norm(dim=1), torch.tensor(0.3))


def test_ascent_on_a_linear_network_is_the_closed_form() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    x = 0.5 + 0 * torch.rand(3, 1, 2, 2)
    y = torch.tensor([0, 1, 0])
    ball = Ball("linf", 0.2, NOTHING, ALL)
    rise = lambda scores, y: nn.functional.cross_entropy(scores, y, reduction="sum")  # noqa: E731
    module.train()
    found = ascent(module, x, y, x, ball, 3, 0.1, rise)
    assert module.training
    assert all(p.grad is None for p in module.parameters())
    against = module[1].weight[1 - y] - module[1].weight[y]
    assert torch.allclose(found.flatten(1), x.flatten(1) + 0.2 * against.sign())


def test_trades_and_mart_by_hand() -> None:
    module = network()
    x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
    plain = nn.functional.cross_entropy(module(x), y)
    assert torch.allclose(TRADES().loss(module, batch_of(x, y), x), plain)  # nothing moved, nothing to pay
    moved = (x + 0.1).clamp(0, 1)
    p, q = module(x).softmax(1), module(moved).softmax(1)
    apart = (p * (p.log() - q.log())).sum(1)
    assert torch.allclose(TRADES(beta=2.0).loss(module, batch_of(x, y), moved), plain + 2 * apart.mean())
    own, wrong = q.gather(1, y[:, None])[:, 0], q.scatter(1, y[:, None], 0.0).amax(1)
    boosted = -own.log() - (1 - wrong).log()
    expected = (boosted + 5 * apart * (1 - p.gather(1, y[:, None])[:, 0])).mean()
    assert torch.allclose(MART().loss(module, batch_of(x, y), moved), expected, atol=1e-2)


def test_weights_that_are_changed_for_the_worse_come_back() -> None:
    module = network()
    before = [p.detach().clone() for p in module.parameters()]
    x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    training = PGDTraining(awp=0.1)
    objective = _Within(training, Ball("linf", 0.1, NOTHING, ALL), 0.1)
    worse = objective.loss(module, batch_of(x, y))
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    plain = _Within(PGDTraining(), Ball("linf", 0.1, NOTHING, ALL), 0.0)
    objective.before_step(module)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(before, module.parameters(), strict=True))
    assert worse.item() > plain.loss(module, batch_of(x, y)).item()


def test_worst_scores_of_one_layer_are_exact_and_of_two_sound() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(5, 1, 2, 2, generator=generator), torch.tensor([0, 1, 2, 0, 1])
    eps = 0.3
    corners = torch.tensor(list(itertools.product([-eps, eps], repeat=4))).view(-1, 1, 1, 2, 2)
    reach = (x[None] + corners).clamp(0, 1)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    scores = linear(reach.flatten(0, 1)).view(len(corners), 5, 3)
    lead = (scores - scores.gather(2, y.expand(len(corners), 5)[..., None])).amax(0)
    assert torch.allclose(worst_scores(layers_of(linear), x, y, eps, NOTHING, ALL), lead, atol=1e-5)
    module = network()
    worst = worst_scores(layers_of(module), x, y, eps, NOTHING, ALL)
    points = (x[None] + eps * (2 * torch.rand(500, *x.shape, generator=generator) - 1)).clamp(0, 1)
    scores = module(torch.cat([points, reach]).flatten(0, 1)).view(-1, 5, 3)
    lead = (scores - scores.gather(2, y.expand(len(scores), 5)[..., None])).amax(0)
    assert bool((lead <= worst + 1e-5).all())
    assert torch.allclose(worst.gather(1, y[:, None]), torch.zeros(5, 1), atol=1e-6)


def test_linear_bounds_are_sound_and_nearer_than_intervals() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 8), nn.ReLU(),
            nn.Linear(8, 3),
        )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    x, y, eps = torch.rand(6, 1, 4, 4, generator=generator), torch.arange(6) % 3, 0.1
    told = layers_of(module), x, y, eps, NOTHING, ALL
    linear, intervals = linear_worst_scores(*told), worst_scores(*told)
    points = (x[None] + eps * (2 * torch.rand(800, *x.shape, generator=generator) - 1).sign()).clamp(0, 1)
    scores = module(points.flatten(0, 1)).view(800, 6, 3)
    lead = (scores - scores.gather(2, y.expand(800, 6)[..., None])).amax(0)
    assert bool((lead <= linear + 1e-5).all())
    assert float((intervals - linear).mean()) > 0
    at_once = linear_worst_scores(layers_of(module), x, y, 0.0, NOTHING, ALL)
    plain = module(x)
    assert torch.allclose(at_once, plain - plain.gather(1, y[:, None]), atol=1e-5)
    linear.sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())
    with pytest.raises(Unsupported, match="no bounds through AvgPool2d"):
        rb.load_model("bound_training(lenet,epochs=1,crown=true)")


def test_bounds_are_refused_where_they_do_not_pass() -> None:
    with pytest.raises(Unsupported, match="plain sequences"):
        rb.load_model("bound_training(cnn,epochs=1)")
    with pytest.raises(Unsupported, match="BatchNorm2d"):
        layers_of(nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1)))


def test_mixup_weights_have_their_distribution_and_cutout_its_size() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros(len(x), 2, requires_grad=True)

    n = 4000
    x = torch.zeros(n, 1, 10, 10)
    x[::2] = 1.0  # each sample is mixed with one that is its opposite
    y = torch.zeros(n, dtype=torch.int64)
    data = rb.load_data("digits")
    for alpha in (1.0, 0.4, 6.0):
        Mixup(alpha=alpha).objective(None, data).loss(Spy(), batch_of(x, y))  # type: ignore[arg-type]
        share = seen[-1][::2, 0, 0, 0]
        assert float(share.mean()) == pytest.approx(0.5, abs=0.03)
        assert float(share.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)
    Cutout(size=0.4).objective(None, data).loss(Spy(), batch_of(x + 1, y))  # type: ignore[arg-type]
    black = (seen[-1] == 0).float().mean((1, 2, 3))
    assert 0.15 < float(black.max()) <= 0.25
    assert bool((black > 0).all())


def test_a_training_that_was_killed_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "KEPT_EVERY", 0.0)
    data = rb.load_data("digits", samples=200)
    schedule = Schedule(4, batch=50, average=0.9)

    def trained(partial: Path | None, stop: float = 2.0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.2), nn.Linear(16, 10))
            values = iter(range(100))

            def report(done: float) -> None:
                if done > stop:
                    raise KeyboardInterrupt

            fit_network(module, data, schedule, 0, report, None, lambda _: next(values), partial)
        return module

    whole = trained(None)
    file = tmp_path / "training.part"
    with pytest.raises(KeyboardInterrupt):
        trained(file, stop=0.6)
    assert file.exists()
    again = trained(file)
    for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert not file.exists()
    file.write_bytes(b"cut off")
    assert torch.equal(trained(file)[1].weight, whole[1].weight)  # type: ignore[index]


def test_what_an_objective_carries_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "KEPT_EVERY", 0.0)
    data = rb.load_data("digits", samples=200)

    def trained(partial: Path | None, stop: float = 2.0) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def report(done: float) -> None:
            if done > stop:
                raise KeyboardInterrupt

        objective = _Universal(UniversalTraining(eps=0.3), Ball("linf", 0.3, NOTHING, ALL))
        fit_network(module, data, Schedule(4, batch=50), 0, report, objective, None, partial)
        return module[1].weight.detach()  # type: ignore[index, no-any-return]

    whole, file = trained(None), tmp_path / "training.part"
    with pytest.raises(KeyboardInterrupt):
        trained(file, stop=0.6)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert torch.equal(trained(file), whole)
    assert torch.equal(before, torch.get_rng_state())
    torch.save({"module": nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).state_dict()}, file)
    assert torch.equal(trained(file), whole)  # what is half there is not half taken


def test_a_training_that_diverges_says_so() -> None:
    class Broken(Objective):
        def loss(self, module: nn.Module, batch: Batch) -> Tensor:
            return super().loss(module, batch) * torch.nan

    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(RobustError, match="diverged in epoch 1"):
        fit_network(module, rb.load_data("digits", samples=50), Schedule(1), 0, lambda done: None, Broken())


def test_the_best_epoch_is_kept() -> None:
    data: Data = rb.load_data("digits", samples=50)
    seen: list[Tensor] = []

    def look(module: nn.Module) -> float:
        seen.append(module[1].weight.detach().clone())  # type: ignore[index]
        return float(len(seen) == 2)

    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    fit_network(module, data, Schedule(4), 0, lambda done: None, None, look)
    assert torch.equal(module[1].weight, seen[1])


def test_the_mean_of_weights() -> None:
    module = nn.Linear(1, 1)
    average = Average(module, 0.5)
    start = float(module.weight)
    with torch.no_grad():
        module.weight.fill_(start + 1)
    average.take(module)
    assert float(average.module.weight) == pytest.approx(start + 1 - 2 / 11)  # (1 + 1) / (10 + 1) is kept


def test_adversarial_training_holds_what_plain_training_does_not() -> None:
    data = rb.load_data("digits", samples=200)
    held = {}
    for name in ("conv_small", "pgd_training(conv_small,epochs=15)"):
        model = rb.load_model(name, data)
        records = attack_with(model, data.x, data.y, "pgd:steps=20", "linf:0.1").records
        clean = (records["clean_prediction"] == records["label"]).mean()
        held[name] = clean - records["success"].mean()
        assert clean > 0.85
    plain, robust = held.values()
    assert robust > plain + 0.1


def test_distillation_hides_gradients_and_nothing_else() -> None:
    data = rb.load_data("digits", samples=200)
    model = rb.load_model("distillation(conv_small,epochs=20)", data)
    blind = attack_with(
        model, data.x, data.y, "oblivious(pgd:steps=20)", "linf:0.1", goal="untargeted,stop=never"
    ).records
    aware = attack_with(model, data.x, data.y, "pgd:steps=20", "linf:0.1").records
    assert (blind["zero_gradients"] > 0).mean() > 0.5
    assert aware["success"].mean() > blind["success"].mean() + 0.2
