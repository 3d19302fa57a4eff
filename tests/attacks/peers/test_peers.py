"""Attacks of others: theirs searches, our judge judges, and the model that they are lent counts."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.attacks.peers.peer import Lent, Peer, Rows
from robustbench_lite.core.errors import InvalidParameter, RobustError, Unsupported
from robustbench_lite.core.registry import check_name, entries
from robustbench_lite.core.settings import Search
from robustbench_lite.search.attack import parameters_json
from tests.conftest import run_with


@dataclass(frozen=True)
class Theirs(Peer):
    """What a library might do: three calls of the model, two of them with gradients."""

    name = "theirs"
    package = "math"
    install = "theirs"

    def known(self) -> dict[str, object]:
        return {"step": 0.0, "outside": 0.5, "rounding": 1e-6, "draw": 0.0, "fail": 0.0}

    def search(self, lent: Lent, rows: Rows) -> Tensor:
        if self.called == "fail":
            raise ValueError("no such thing\nat all")
        assert not lent.training
        lent(rows.x)
        way = torch.zeros_like(rows.x)
        for _ in range(2):
            leaf = rows.x.clone().requires_grad_()
            torch.nn.functional.cross_entropy(lent(leaf), rows.y).backward()
            assert leaf.grad is not None
            way = leaf.grad.sign()
        if self.called == "draw":
            way = torch.rand_like(way) + float(np.random.rand()) - 1
        size = float(rows.eps or 0) * (1 + float(str(self.known()[self.called])))
        return (rows.x + size * way).clamp(0, 1)


def test_it_searches_and_the_judge_decides() -> None:
    digits = rb.load_data("digits", samples=40)
    for model in ("linear", "logistic"):
        theirs = rb.attack(model, digits.x, digits.y, Theirs("step"), "linf:0.1")
        ours = rb.attack(model, digits.x, digits.y, "fgsm", "linf:0.1")
        assert torch.equal(theirs.success, ours.success)
        right = theirs.records["outcome"] != "wrong"
        assert (theirs.records.loc[right, "forwards"] == 4).all(), "three of theirs, and the last look"
        assert (theirs.records.loc[right, "backwards"] == 2).all()
        assert theirs.records["batch_draws"].all()


def test_rounding_is_drawn_in_and_more_is_no_success() -> None:
    digits = rb.load_data("digits", samples=40)
    near = rb.attack("linear", digits.x, digits.y, Theirs("rounding"), "linf:0.1")
    far = rb.attack("linear", digits.x, digits.y, Theirs("outside"), "linf:0.1")
    right = far.records["outcome"] != "wrong"
    assert not far.records["success"].any()
    assert not far.records.loc[right, "valid"].any()
    assert any(f"{right.sum()} returned points were not admissible" in note for note in far.notes)
    assert near.records["success"].sum() > 30
    assert near.records["linf"].max() <= 0.1


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 255.0)])
def test_any_box_is_zero_to_one_to_theirs(low: float, high: float) -> None:
    digits, wide = rb.load_data("digits", samples=40), high - low
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net[1].weight.data.copy_(torch.randn(10, 64, generator=torch.Generator().manual_seed(0)))
    y = net(digits.x).argmax(1)

    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = net((x - low) / wide)
            return scores

    threat = rb.parse_threat(f"linf:{0.05 * wide}", rb.Domain(low, high))
    plain = rb.attack(net, digits.x, y, Theirs("step"), "linf:0.05")
    scaled = rb.attack(Scaled(), low + wide * digits.x, y, Theirs("step"), threat)
    assert plain.success.sum() > 10
    assert torch.equal(plain.success, scaled.success)
    uneven = rb.parse_threat("linf:0.1", rb.Domain(torch.zeros(1, 8, 8), torch.rand(1, 8, 8) + 1))
    with pytest.raises(Unsupported, match="one box for all features"):
        rb.attack(net, digits.x, y, Theirs("step"), uneven)


def test_nobody_foretells_what_theirs_takes() -> None:
    assert Theirs("step").schedule(rb.load_model("linear"), rb.parse_threat("linf:0.1")).most_passes is None


def test_what_it_draws_is_seeded_and_nobody_else_notices() -> None:
    digits = rb.load_data("digits", samples=10)
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    one, two, other = (
        rb.attack("linear", digits.x, digits.y, Theirs("draw"), "linf:0.3", search=Search(seed=seed)).z
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]


def test_what_goes_wrong_is_a_line() -> None:
    digits = rb.load_data("digits", samples=5)
    with pytest.raises(RobustError, match=r"theirs: fail fails: ValueError: no such thing$"):
        rb.attack("linear", digits.x, digits.y, Theirs("fail"), "linf:0.1")
    with pytest.raises(Unsupported, match="no attack 'stap'; near: step"):
        rb.attack("linear", digits.x, digits.y, Theirs("stap"), "linf:0.1")
    with pytest.raises(Unsupported, match="keeps no budget"):
        rb.attack("linear", digits.x, digits.y, Theirs("step"), "linf:0.1", search=Search(budget=10))


def test_without_gradients_theirs_says_so() -> None:
    digits, weight = rb.load_data("digits", samples=5), np.random.default_rng(0).normal(size=(64, 10))
    with pytest.raises(RobustError, match="theirs: step fails: RuntimeError"):
        rb.attack(
            lambda x: x.reshape(len(x), -1) @ weight,
            digits.x,
            (digits.x.flatten(1).double() @ torch.from_numpy(weight)).argmax(1),
            Theirs("step"),
        )


def test_names_are_read_as_they_are_written() -> None:
    assert sorted(entries("peers")) == ["advlib", "art", "foolbox", "torchattacks"]
    for text in ("foolbox(LinfPGD,steps=40)", "art(HopSkipJump)", "advlib(ddn:steps=5)"):
        check_name("attacks", text)
        attack = get_attack(text)
        assert get_attack(str(attack)) == attack
    made = get_attack("torchattacks(PGD,steps=40,random_start=False,loss=ce,norm='L2')")
    assert isinstance(made, Peer)
    assert made.called == "PGD"
    assert made.options == {"steps": 40, "random_start": False, "loss": "ce", "norm": "L2"}
    assert "PGD:steps=40" in parameters_json(made)
    for wrong in ("foolbox", "foolbox()", "foolbox(A,B)"):
        with pytest.raises(InvalidParameter):
            check_name("attacks", wrong)


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unsupported, match="art is not installed: pip install adversarial-robustness-toolbox"):
        run_with("digits", ["linear"], ["art(HopSkipJump)"], ["l2:1"], 5)


@pytest.mark.parametrize(
    ("package", "attack", "threat"),
    [
        ("foolbox", "foolbox(LinfPGD,steps=10,rel_stepsize=0.2)", "linf:0.3"),
        ("foolbox", "foolbox(L2DeepFoolAttack)", "l2:min"),
        ("torchattacks", "torchattacks(PGD,steps=10,alpha=0.1)", "linf:0.3"),
        ("torchattacks", "torchattacks(APGD)", "l2:1.5"),
        ("torchattacks", "torchattacks(CW,steps=100,lr=0.05)", "l2:min"),
        ("art", "art(ProjectedGradientDescent,max_iter=10)", "linf:0.2"),
        ("art", "art(DeepFool)", "l2:min"),
        ("adv_lib", "advlib(pgd_linf,steps=10,relative_step_size=0.2)", "linf:0.3"),
        ("adv_lib", "advlib(ddn,steps=20)", "l2:min"),
    ],
)
def test_those_that_are_there_break_a_network(package: str, attack: str, threat: str) -> None:
    pytest.importorskip(package)
    result = run_with("digits", ["cnn"], [attack], [threat], 40)
    assert not result.failures
    assert result.records["success"].mean() > 0.7
    assert result.records["valid"].all()
    assert (result.records["forwards"] > 5).all()


@pytest.mark.parametrize(
    ("package", "attack"),
    [
        ("foolbox", "foolbox(LinfPGD,steps=20)"),
        ("torchattacks", "torchattacks(PGD,steps=20,alpha=0.05)"),
        ("art", "art(ProjectedGradientDescent,max_iter=20)"),
    ],
)
def test_they_lead_to_a_class(package: str, attack: str) -> None:
    pytest.importorskip(package)
    result = run_with("digits", ["linear"], [attack], ["linf:0.3"], 30, goals=("random",))
    won = result.records.loc[result.records["success"].astype(bool)]
    assert len(won) > 20
    assert (won["adversarial_prediction"] == won["target"]).all()
