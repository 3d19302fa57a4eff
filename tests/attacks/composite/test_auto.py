"""`auto`: the strongest for every model and threat, never weaker than what it is made of."""

import numpy as np
import pytest
import torch

from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.errors import InvalidParameter, RobustError
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.settings import Search
from robustbench_lite.models.function import ScoreFunction
from robustbench_lite.search.driver import search
from robustbench_lite.testing.subjects import small_forest
from robustbench_lite.threats.named import parse_threat
from tests.conftest import attack_with, linear_model, samples_for, samples_of, small_network
from tests.search.test_driver import Noisy

SIZES = {"linf": 0.2, "l2": 0.6, "l1": 2, "l0": 2}
SMALLEST = [f"{norm}:min" for norm in SIZES]


def by_decisions(model: Model) -> Model:
    """The same model that tells its class alone."""

    def decide(points: np.ndarray) -> np.ndarray:
        return model.prediction(model.scores(torch.from_numpy(points))).numpy()

    return ScoreFunction(decide, model.input_shape, num_classes=model.num_classes)


def by_scores(model: Model) -> Model:
    """The same model that tells its scores alone."""
    return ScoreFunction(lambda points: model.scores(torch.from_numpy(points)).numpy(), model.input_shape)


def test_auto_breaks_whatever_its_parts_break() -> None:
    model = small_network(5, seed=2)
    x, y = samples_of(model, 120)
    whole = attack_with(model, x, y, "auto", "linf:0.08", steps=40, queries=100).records
    for part in ("apgd:steps=40", "apgd:steps=40,loss=dlr,targets=4", "square:steps=100"):
        alone = attack_with(model, x, y, part, "linf:0.08").records["success"]
        assert whole["success"].sum() >= alone.sum(), part
    assert 0 < whole["success"].sum() < len(x)  # or the comparison says nothing
    won = whole.loc[whole["success"].astype(bool), "winner"]
    assert won.str.startswith(("pgd", "apgd", "square")).all()


@pytest.mark.parametrize("version", ["quick", "standard", "plus", "rand"])
def test_versions_of_auto(version: str) -> None:
    model = small_network(3)
    x, y = samples_of(model, 30)
    weak = attack_with(model, x, y, "fgsm", "linf:0.1").records["success"].sum()
    records = attack_with(model, x, y, "auto", "linf:0.1", version=version, steps=15, queries=20).records
    assert records["success"].sum() >= weak
    with pytest.raises(InvalidParameter, match="version"):
        attack_with(model, x, y, "auto", "linf:0.1", version="best")


@pytest.mark.parametrize(
    "threat", ["linf:0.2", "l2:0.6", "l1:2", "l0:2", "linf:min", "l2:min", "l1:min", "l0:min"]
)
@pytest.mark.parametrize("access", ["structure", "gradient", "surrogate", "score", "decision"])
def test_every_model_and_every_threat(access: str, threat: str) -> None:
    """What a model does not offer is made up for; noise of the same size breaks no more."""
    network = small_network(3)
    model = {
        "structure": linear_model,
        "gradient": lambda: network,
        "surrogate": small_forest,
        "score": lambda: by_scores(network),
        "decision": lambda: by_decisions(network),
    }[access]()
    x, y = samples_of(model, 20)
    records = attack_with(model, x, y, "auto:steps=20,queries=400", threat).records
    assert records["valid"].all()
    if threat.endswith("min"):
        assert records["success"].all()
    else:
        noise = attack_with(model, x, y, "noise:steps=20", threat).records["success"].sum()
        assert records["success"].sum() >= max(noise, 1)


@pytest.mark.parametrize("norm", ["l2", "linf", "l1", "l0"])
def test_the_smallest_is_no_larger_than_any_part_finds(norm: str) -> None:
    model = small_network(5, seed=2)
    x, y = samples_of(model, 60)
    distance = attack_with(model, x, y, "auto:steps=40", f"{norm}:min").records["distance"].to_numpy(float)
    parts = ["sigma_zero:steps=80"] if norm == "l0" else ["superdeepfool", "fab:steps=12", "fmn:steps=80"]
    for part in parts:
        alone = attack_with(model, x, y, part, f"{norm}:min").records["distance"].to_numpy(float)
        assert (distance <= alone * (1 + 1e-3)).mean() >= 0.95, part
        assert distance.mean() <= alone.mean(), part


def test_what_is_exact_is_asked_no_further() -> None:
    model = linear_model(3)
    x, y = samples_of(model, 20)
    exact, auto = (attack_with(model, x, y, name, "l2:min").records for name in ("exact", "auto"))
    assert auto["distance"].equals(exact["distance"])
    assert (auto["backwards"] == 0).all()
    assert (auto["winner"] == "exact").all()


def test_a_random_model_gets_what_makes_sense_on_it() -> None:
    """Without being told."""
    model = Noisy()
    x, y = samples_of(model.inner, 20)
    samples = samples_for(x, y, torch.arange(20), model.inner.scores(x))
    asked, told = (
        search(
            get_attack(name), model, parse_threat("linf:0.3"), Goal(), samples, Search(eot=4, batch_size=20)
        )
        for name in ("auto:steps=15", "auto:steps=15,version=rand")
    )
    assert torch.equal(asked.z, told.z)
    assert all(name.startswith("apgd") for name in asked.attacks)


def test_it_says_what_it_has_no_attack_for() -> None:
    model = by_scores(small_network(3))
    x, y = samples_of(model, 4)
    with pytest.raises(RobustError, match="auto works under threats of kind ball or transform"):
        attack_with(model, x, y, "auto", "box")
