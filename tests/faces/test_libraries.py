"""Our models in the hands of other libraries."""

import numpy as np
import pytest
import torch

import robustbench_lite as rb
from robustbench_lite.core.errors import RobustError
from robustbench_lite.faces.libraries import Shown


def test_a_model_that_is_shown_says_what_it_says_and_has_its_gradients() -> None:
    digits, model = rb.load_data("digits", samples=6), rb.load_model("svm")
    shown = Shown(model)
    assert torch.equal(shown(digits.x), model.scores(digits.x))
    leaf = digits.x.clone().requires_grad_()
    shown(leaf)[:, 0].sum().backward()
    assert leaf.grad is not None
    assert bool(leaf.grad.any())
    assert not any(p.requires_grad for p in shown.parameters())


def test_without_the_library_it_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("foolbox", "art"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    monkeypatch.setitem(__import__("sys").modules, "art.estimators.classification", None)
    with pytest.raises(RobustError, match="pip install foolbox"):
        rb.as_foolbox("linear")
    with pytest.raises(RobustError, match="pip install adversarial-robustness-toolbox"):
        rb.as_art("linear")


def test_foolbox_attacks_our_trees_and_networks() -> None:
    foolbox = pytest.importorskip("foolbox")
    digits = rb.load_data("digits", samples=20)
    for name, least in (("cnn", 0.3), ("svm", 0.1)):
        model = rb.as_foolbox(name)
        attack = foolbox.attacks.LinfPGD(rel_stepsize=0.2, steps=10)
        _, _, won = attack(model, digits.x, foolbox.criteria.Misclassification(digits.y), epsilons=0.2)
        assert float(won.float().mean()) >= least
    tree = rb.as_foolbox("tree")
    start = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack()
    _, _, won = start(tree, digits.x, foolbox.criteria.Misclassification(digits.y), epsilons=None)
    assert float(won.float().mean()) > 0.5


def test_art_attacks_our_models() -> None:
    pytest.importorskip("art")
    from art.attacks.evasion import FastGradientMethod, HopSkipJump

    digits = rb.load_data("digits", samples=20)
    x, y = digits.x.numpy(), digits.y.numpy()
    classifier = rb.as_art("linear")
    assert np.mean(classifier.predict(x).argmax(1) == y) > 0.8
    moved = FastGradientMethod(classifier, eps=0.1).generate(x)
    assert np.mean(classifier.predict(moved).argmax(1) == y) < 0.3
    boundary = HopSkipJump(rb.as_art("tree"), max_iter=1, max_eval=100, init_eval=10, verbose=False)
    assert boundary.generate(x[:3]).shape == (3, 1, 8, 8)
