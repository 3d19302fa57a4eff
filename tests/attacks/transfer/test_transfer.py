"""Attacks that are to transfer: what they are without their changes, and that they do transfer."""

import pytest
import torch

import robustbench_lite as rb
from robustbench_lite.core.errors import Unsupported
from tests.conftest import attack_with, linear_model, samples_of, small_network


@pytest.mark.parametrize(
    ("changed", "plain"),
    [
        ("difgsm:diversity=0", "mifgsm"),
        ("tifgsm:kernel=1", "mifgsm"),
        ("sinifgsm:scales=1", "nifgsm"),
        ("admix:scales=1,portion=0,mixes=1", "mifgsm"),
        ("pifgsm:kernel=1,amplification=1", "mifgsm:decay=0"),
    ],
)
def test_without_their_changes_they_are_momentum_attacks(changed: str, plain: str) -> None:
    model = small_network(shape=(2, 6, 5))
    x, y = samples_of(model, 30)
    one, other = (attack_with(model, x, y, name, "linf:0.1") for name in (changed, plain))
    assert torch.allclose(one.adversarial, other.adversarial, atol=1e-6)


@pytest.mark.parametrize("name", ["mifgsm", "sinifgsm", "vmifgsm:neighbours=3", "pifgsm:kernel=1", "admix"])
def test_on_a_binary_linear_model_they_reach_the_worst_corner(name: str) -> None:
    """Its gradient is the same everywhere, at every scale of the input."""
    model = linear_model(classes=2, shape=(1, 6, 6))
    x, y = samples_of(model, 30)
    goal = "untargeted,stop=never"
    found = attack_with(model, x, y, name, "linf:0.1", goal=goal).adversarial
    assert torch.allclose(
        found, attack_with(model, x, y, "fgsm", "linf:0.1", goal=goal).adversarial, atol=1e-6
    )


def test_copies_depend_on_no_batch_and_cost_what_they_say() -> None:
    model = small_network(shape=(1, 8, 8))
    x, y = samples_of(model, 20)
    spec = "vmifgsm:steps=3,neighbours=2,diversity=0.5,scales=4,kernel=3"
    goal = "untargeted,stop=never"
    whole, parts = (attack_with(model, x, y, spec, "l2:0.3", goal=goal, batch_size=size) for size in (20, 3))
    assert torch.allclose(whole.adversarial, parts.adversarial, atol=1e-5)
    # Four copies at the point and at each of two neighbours, three times; and a last look.
    assert (whole.records["backwards"] == 3 * 4 * 3).all()
    assert (whole.records["forwards"] <= 3 * 4 * 3 + 1).all()


def test_what_moves_images_refuses_other_inputs() -> None:
    model = linear_model(shape=(9,))
    for name in ("difgsm", "tifgsm", "pifgsm"):
        with pytest.raises(Unsupported, match="images"):
            attack_with(model, *samples_of(model, 3), name, "linf:0.1")


def test_they_transfer_better_than_the_attack_they_build_on() -> None:
    data = rb.load_data("digits", samples=300)
    source, target = rb.load_model("cnn", data), rb.load_model("svm", data)
    right = (source.prediction(source.scores(data.x)) == data.y) & (
        target.prediction(target.scores(data.x)) == data.y
    )
    x, y = data.x[right], data.y[right]

    def transferred(name: str) -> float:
        made = attack_with(source, x, y, name, "linf:0.15", goal="untargeted,stop=never").adversarial
        return float((target.prediction(target.scores(made)) != y).float().mean())

    plain = transferred("mifgsm")
    assert transferred("admix") > plain
    assert transferred("vmifgsm") > plain


def test_a_substitute_is_learnt_from_decisions_alone() -> None:
    data = rb.load_data("digits", samples=200)
    model = rb.load_model("svm", data)
    rates = {}
    for name in ("substitute:samples=150,rounds=1", "noise:steps=0"):
        result = rb.run(data, [model], [name], ["linf:0.2"], config=rb.Config(samples=200))
        rates[name] = result.table()["success"][0]
        if name.startswith("substitute"):
            records = result.records
            assert (records["backwards"] == 0).all()
            assert records["fit_forwards"].iloc[0] == 150 + 150  # twice as many
            assert (records["forwards"] <= 1).all()
    assert rates["substitute:samples=150,rounds=1"] > rates["noise:steps=0"] + 0.1
