"""On a GPU every attack finds what it finds on a CPU."""

import numpy as np
import pytest
import torch

from robustbench_lite.attacks import ATTACKS
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.model import Access
from robustbench_lite.core.settings import Search
from robustbench_lite.testing.attacks import Case, claimed, samples_of
from tests.conftest import attack_class, short

PAIRS = [
    Case(get_attack(short(name)), threat, task)
    for name in ATTACKS
    for task in sorted(attack_class(name).tasks)
    for threat in claimed(get_attack(short(name)))
    if task == "classification" or threat.kind == "ball"
]


@pytest.mark.gpu
@pytest.mark.parametrize("case", PAIRS, ids=lambda c: f"{c.attack}-{c.threat}-{c.task}")
def test_the_device_does_not_make_the_run(case: Case) -> None:
    """In float64, where the two round nearly alike; a step on a knife's edge may still fall the other way."""
    model = case.model(double=True)
    x, y = samples_of(model, 40)
    here, there = case.run(model, x, y), case.run(model.to("cuda"), x, y)
    assert there.adversarial.shape == x.shape
    assert there.records["valid"].all()
    assert there.records["clean_prediction"].equals(here.records["clean_prediction"])
    differs = int((here.records["success"] != there.records["success"]).sum())
    assert differs <= 1, f"{differs} of 40 verdicts differ"
    both = here.records["success"].to_numpy(bool) & there.records["success"].to_numpy(bool)
    if case.threat.minimum and both.any():
        distances = (r.records["distance"].to_numpy(float)[both] for r in (here, there))
        one, other = (float(np.median(values)) for values in distances)
        assert one == pytest.approx(other, rel=0.02)


@pytest.mark.gpu
def test_laws_of_a_gpu_run_hold_there_too() -> None:
    """The seed makes it, the batch size does not, nothing of the caller's changes."""
    case = Case(get_attack("pgd"), next(claimed(get_attack("pgd"))))
    model = case.model(double=True)
    assert model.access >= Access.GRADIENT
    x, y = samples_of(model, 40)
    moved = model.to("cuda")
    state = torch.cuda.get_rng_state()
    one, again = (case.run(moved, x, y) for _ in range(2))
    assert torch.equal(one.adversarial, again.adversarial)
    assert torch.equal(state, torch.cuda.get_rng_state())
    split = case.run(moved, x, y, search=Search(batch_size=7))
    assert torch.allclose(one.adversarial, split.adversarial, atol=1e-6)
