"""Networks that draw: what a sample meets is its own, and the verdict is a rate."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.random import Stream
from robustbench_lite.models.torch.module import TorchModel
from tests.conftest import attack_with, run_with


class Drawing(nn.Module):
    """A linear map with one of torch's ways of being random."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.inner = kind, nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x.flatten(1))
        match self.kind:
            case "randn_like":
                return scores + torch.randn_like(scores)
            case "rand":
                return scores + torch.rand(len(x), 3)
            case "normal_":
                return scores + torch.empty_like(scores).normal_(0, 2)
            case "dropout":
                return self.inner(nn.functional.dropout(x.flatten(1), 0.5, training=True))
            case "bernoulli":
                return scores * torch.bernoulli(torch.full_like(scores, 0.5))
            case "shared":  # one draw for the whole batch
                return scores + torch.randn(3)
            case _:
                return scores + torch.from_numpy(np.random.randn(*scores.shape)).float()


KEYED = ["randn_like", "rand", "normal_", "dropout", "bernoulli"]


@pytest.mark.parametrize("kind", KEYED)
def test_a_sample_meets_the_same_draw_alone_and_among_others(kind: str) -> None:
    model = TorchModel(Drawing(kind), (12,))
    assert model.stochastic
    assert not model.batch_draws
    x = torch.rand(9, 12)
    stream = Stream.of(0, torch.arange(9))
    whole = model.draw(stream).scores(x)
    alone = torch.cat([model.draw(stream[torch.tensor([i])]).scores(x[i : i + 1]) for i in range(9)])
    assert torch.allclose(whole, alone, atol=1e-6)
    assert not torch.allclose(whole, model.draw(stream.fold(1)).scores(x), atol=1e-3)
    same = model.draw(Stream.of(0, torch.zeros(9, dtype=torch.int64))).scores(x[:1].expand(9, -1))
    assert torch.allclose(same, same[:1].expand_as(same), atol=1e-6)


@pytest.mark.parametrize("kind", KEYED)
def test_a_draw_has_the_distribution_that_torch_gives_it(kind: str) -> None:
    model, module = TorchModel(Drawing(kind), (12,)), Drawing(kind).eval()
    x = torch.full((20_000, 12), 0.3)
    mine = model.draw(Stream.of(3, torch.arange(len(x)))).scores(x)
    theirs = module(x).detach()
    for moment in (lambda s: s.mean(0), lambda s: s.std(0)):
        assert torch.allclose(moment(mine), moment(theirs), atol=0.06)


@pytest.mark.parametrize("kind", ["shared", "numpy"])
def test_what_depends_on_its_batch_is_marked(kind: str) -> None:
    model = TorchModel(Drawing(kind), (12,))
    assert model.stochastic
    assert model.batch_draws
    assert any("depends on its batch" in note for note in model.notes)
    x, y = torch.rand(6, 12), torch.zeros(6, dtype=torch.int64)
    records = attack_with(model, x, y, "noise:steps=1", "linf:0.1").records
    assert records["batch_draws"].all()


def test_gradients_pass_through_a_draw() -> None:
    model = TorchModel(Drawing("dropout"), (12,))
    fixed = model.draw(Stream.of(0, torch.arange(5)))
    x = torch.rand(5, 12, requires_grad=True)
    (gradient,) = torch.autograd.grad(fixed.gradient_scores(x)[:, 0].sum(), x)
    way = torch.rand(5, 12)
    near = [fixed.scores(x.detach() + h * way)[:, 0] for h in (1e-3, -1e-3)]
    assert torch.allclose((gradient * way).sum(1), (near[0] - near[1]) / 2e-3, atol=1e-2)


def test_the_verdict_is_a_rate_over_draws_of_the_judges_own() -> None:
    data = rb.load_data("digits", samples=60)
    name = "transformed(logistic,noise=0.3)"
    records = run_with("digits", [name], ["noise", "pgd:steps=10"], ["linf:0.1"], 60, draws=200).records
    model = rb.load_model(name, data)
    assert ((records["success_rate"] > 0.5) == records["success"].astype(bool)).all()
    assert 0 < records["clean_rate"].mean() < 1
    # Looked at a second time, with other draws, nearly all stand.
    won = records.loc[records["success"].astype(bool)]
    sure = won.loc[won["success_rate"] > 0.65]
    assert len(won) > len(sure) > 5
    assert sure["second_look"].astype(bool).all()
    table = run_with("digits", [name], ["noise"], ["linf:0.1"], 60).table()
    mine = records.loc[records["attack"] == "noise"]
    right = mine["clean_prediction"] == mine["label"]
    assert table["success"][0] == pytest.approx(float(mine.loc[right, "success_rate"].mean()), abs=0.05)
    assert table["clean"][0] == pytest.approx(float(mine["clean_rate"].mean()), abs=0.03)
    assert model.stochastic


def test_a_rate_is_what_fresh_draws_say() -> None:
    """And at equal passes the search is not below a plain loop of one draw a step."""
    data = rb.load_data("digits", samples=50)
    model = rb.load_model("transformed(cnn,rotation=15,shift=0.1)", data)
    eps = 0.2
    x, y = data.x, data.y
    found = attack_with(model, x, y, "pgd:steps=25", f"linf:{eps}")
    tried = found.records.loc[found.records["forwards"] > 0]
    steps = round(float((tried["forwards"] + tried["backwards"]).mean()) / 2)

    def rate(points: Tensor, seed: int) -> Tensor:
        stream = Stream.of(seed, data.ids)
        answers = [model.draw(stream.fold(k)).scores(points).argmax(1) != y for k in range(100)]
        return torch.stack(answers).float().mean(0)

    stream = Stream.of(0, data.ids)
    z = (x + eps * (2 * stream.uniform((1, 8, 8)) - 1)).clamp(0, 1)
    for step in range(steps):
        leaf = z.detach().requires_grad_()
        scores = model.draw(stream.fold("draw", step)).gradient_scores(leaf)
        (gradient,) = torch.autograd.grad(cross_entropy(scores, y).sum(), leaf)
        z = z + 2.5 * eps / steps * gradient.sign()
        z = torch.minimum(torch.maximum(z, x - eps), x + eps).clamp(0, 1)
    attacked = torch.from_numpy((found.records["forwards"] > 0).to_numpy())
    ours, plain = rate(found.adversarial, 9)[attacked], rate(z, 9)[attacked]
    assert float(ours.mean()) >= float(plain.mean()) - 0.02
    told = torch.from_numpy(found.records["success_rate"].to_numpy(float))[attacked]
    assert float((told - ours).abs().mean()) < 0.06


@pytest.mark.parametrize(
    "attack",
    [
        "curve(apgd:steps=20,rounds=5)",
        "ddn:steps=40",
        "fmn:steps=40",
        "cw:steps=60,rounds=3,rate=0.1,weight=1",
    ],
)
def test_the_smallest_perturbation_of_a_random_model_stands_before_the_judge(attack: str) -> None:
    """What was kept for the luck of its draws would be held; the judge draws others."""
    data = rb.load_data("digits", samples=40)
    model = rb.load_model("transformed(logistic,noise=0.3)", data)
    records = attack_with(model, data.x, data.y, attack, "l2:min").records
    tried = records.loc[records["clean_prediction"] == records["label"]]
    assert len(tried) > 35
    assert tried["success"].mean() > 0.85
