"""Randomised smoothing: a linear base, whose radius is known; Clopper & Pearson by the binomial itself."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

import robustbench_lite as rb
from robustbench_lite.certify.certifier import Question, certify
from robustbench_lite.certify.smoothing import ALPHA, lower_share
from robustbench_lite.core.goal import Goal
from robustbench_lite.defenses.certified.smoothed import SmoothedModel
from robustbench_lite.models.zoo.linear import LinearModel
from tests.conftest import attack_with


def plane(width: int = 9) -> tuple[LinearModel, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, width, generator=generator).double()
    model = LinearModel(weight, torch.zeros(2).double(), (1, 3, 3), scaled=True)
    return model, torch.rand(40, 1, 3, 3, generator=generator)


def test_the_radius_of_a_plane_is_the_distance_to_it() -> None:
    """Noise leaves a linear decision where it was: the smoothed radius is the exact distance, from below."""
    base, x = plane()
    model = SmoothedModel(base, 0.5, "smoothed plane")
    y = base.scores(x).argmax(1)
    against = base.weight[1] - base.weight[0]
    exact = (x.flatten(1).double() @ against).abs() / against.norm()
    for text, ratio in (("l2:min", 1.0), ("l1:min", 1.0), ("linf:min", 3.0)):
        bounds = certify(Question(model, rb.parse_threat(text), Goal(), x, y, effort=0.5))
        assert bounds is not None
        assert bounds.alpha == ALPHA
        assert set(bounds.kinds) == {"probabilistic"}
        found = ratio * bounds.distance
        assert bool((found <= exact).all())  # 40 chances of one in a thousand, at this seed
        sure = (exact > 0.1) & (exact < 1.2)
        assert bool(sure.any())
        assert float((exact - found)[sure].max()) < 0.12
        assert bool((found[exact < 0.005] == 0).all())


def test_bounds_depend_on_nothing_but_the_sample() -> None:
    base, x = plane()
    model = SmoothedModel(base, 0.5, "smoothed plane")
    y = base.scores(x).argmax(1)
    question = Question(model, rb.parse_threat("l2:min"), Goal(), x, y, effort=0.1)
    whole, part = certify(question), certify(question[torch.tensor([7, 3])])
    assert whole is not None
    assert part is not None
    assert torch.equal(whole.distance[[7, 3]], part.distance)


def test_the_confidence_bound_is_the_binomials() -> None:
    for won, draws in ((990, 1000), (600, 1000), (1, 50), (50, 50)):
        low = float(lower_share(np.array([won]), draws)[0])
        assert binom.sf(won - 1, draws, low) == pytest.approx(ALPHA, rel=1e-6)  # so many or more
    assert float(lower_share(np.array([0]), 100)[0]) == 0.0


def test_a_smoothed_network_is_proven_and_its_vote_is_judged() -> None:
    data = rb.load_data("digits", samples=40)
    model = rb.load_model("smoothed(noise_training(conv_small),sigma=0.25)", data)
    assert model.stochastic
    assert model.votes
    records = attack_with(model, data.x, data.y, "pgd:steps=10", "l2:0.2", eot=5, certify=0.2).records
    right = records["clean_prediction"] == records["label"]
    assert right.mean() > 0.8
    assert set(records.loc[right, "bound_kind"]) == {"probabilistic"}
    assert (records.loc[right, "lower_bound"] > 0.2).mean() > 0.4
    # The bound may be wrong once in a thousand: none of these is.
    broken = records[records["success"]]
    assert (broken["lower_bound"] <= broken["distance"]).all()
