"""Attacks on answers with positions, against closed forms and brute force."""

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from robustbench_lite.attacks.dense.alma_prox import linf_limit
from robustbench_lite.core.dense import Segmentation
from robustbench_lite.core.errors import Unsupported
from robustbench_lite.data.data import Data
from robustbench_lite.models.torch.module import TorchModel
from tests.conftest import attack_with

SIDE, CLASSES = 5, 3


def linear_pixels(share: float = 0.5) -> TorchModel:
    """A linear model of every pixel's three channels by themselves."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = nn.Conv2d(3, CLASSES, 1)
    y = torch.zeros((2, SIDE, SIDE), dtype=torch.int64)
    x, names = torch.zeros(2, 3, SIDE, SIDE), tuple("abc")
    data = Data("pixels", x, y, torch.arange(2), names, task=Segmentation(share, target_share=share))
    return TorchModel(module, (3, SIDE, SIDE), name="pixels", data=data)


def inner_samples(model: TorchModel, n: int = 12) -> tuple[Tensor, Tensor]:
    """Inputs far from the sides of the box, with the model's own answers."""
    x = 0.4 + 0.2 * torch.rand((n, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    return x, model.prediction(model.scores(x))


def distances(model: TorchModel, x: Tensor, y: Tensor, target: int | None = None) -> Tensor:
    """The linf distance (n, P) at which each pixel changes its class, or takes the target's."""
    scores, weight = model.scores(x).double().flatten(2), model.module.weight.double()[:, :, 0, 0]
    found = torch.full((len(x), CLASSES, SIDE * SIDE), torch.inf, dtype=torch.float64)
    own = scores.gather(1, y.flatten(1)[:, None])[:, 0]
    for c in range(CLASSES):
        size = (weight[c] - weight).abs().sum(1)[y.flatten(1)]
        found[:, c] = torch.where(y.flatten(1) == c, torch.inf, (own - scores[:, c]) / size.clamp_min(1e-12))
    if target is None:
        return found.amin(1)
    return torch.where(y.flatten(1) == target, 0.0, found[:, target])


@pytest.mark.parametrize(
    "attack", ["pgd:loss=margin", "apgd:loss=margin", "pgd", "iterative", "dag:steps=60"]
)
def test_on_linear_pixels_as_many_turn_as_can(attack: str) -> None:
    """In linf every pixel turns by itself: as many can as have a distance below eps.

    A search goes on past the share that breaks, but for DAG, which ends there.
    """
    model = linear_pixels(share=0.9 if attack.startswith("dag") else 0.1)
    x, y = inner_samples(model)
    each = distances(model, x, y)
    eps = float(each.median())
    records = attack_with(model, x, y, attack, f"linf:{eps:.6g}").records
    possible = (each < eps).double().mean(1)
    found = torch.tensor(records["wrong_share"].to_numpy(float))
    assert bool((found <= possible + 1e-9).all())
    # Cross-entropy may lead towards a class that is not the nearest; DAG's steps are as long as its steepest
    # pixel's, and the others follow late.
    assert float((possible - found).mean()) < (0.02 if "margin" in attack else 0.15)


@pytest.mark.parametrize("attack", ["alma_prox:steps=300", "dense_pdpgd:steps=300", "dag:step_size=0.001"])
def test_on_linear_pixels_the_smallest_change_is_the_closed_form(attack: str) -> None:
    """It is the distance of that pixel of which, the nearest first, the share that breaks is complete."""
    model = linear_pixels(share=0.5)
    x, y = inner_samples(model)
    needed = int(model.task.needed(torch.tensor([SIDE * SIDE]), False))
    least = distances(model, x, y).sort(1).values[:, needed - 1]
    records = attack_with(model, x, y, attack, "linf:min").records
    assert records["success"].all()
    ratio = torch.tensor(records["distance"].to_numpy(float)) / least
    assert float(ratio.min()) > 1 - 1e-4
    worst = {"alma_prox": 1.15, "dense_pdpgd": 1.6, "dag": 2.5}[attack.partition(":")[0]]
    assert float(ratio.median()) < worst


@pytest.mark.parametrize("attack", ["alma_prox:steps=200", "dense_pdpgd:steps=200", "dag:step_size=0.002"])
def test_a_mask_is_reached_on_linear_pixels(attack: str) -> None:
    model = linear_pixels(share=0.8)
    x, y = inner_samples(model, 6)
    records = attack_with(model, x, y, attack, "linf:min", goal="class:1").records
    open_to_it = model.task.open(y, y, torch.ones_like(y)[:, None])
    assert records["success"].tolist() == open_to_it.tolist()


def test_asma_reaches_a_mask_on_linear_pixels() -> None:
    model = linear_pixels(share=0.8)
    x, y = inner_samples(model, 6)
    records = attack_with(
        model, x, y, "asma:steps=300,rate=0.02,least=0.01", "l2:min", goal="class:1"
    ).records
    assert records["success"].tolist() == model.task.open(y, y, torch.ones_like(y)[:, None]).tolist()


def test_the_proximal_operator_of_linf_in_a_metric_and_a_box_is_the_best_there_is() -> None:
    generator = torch.Generator().manual_seed(0)
    delta = torch.randn((40, 7), generator=generator, dtype=torch.float64)
    metric = 0.1 + torch.rand((40, 7), generator=generator, dtype=torch.float64)
    side = torch.rand((40, 7), generator=generator, dtype=torch.float64)
    boxed = torch.minimum(torch.maximum(delta, -side), side)
    strength = 2 * torch.rand(40, generator=generator, dtype=torch.float64)
    found = linf_limit(delta, boxed, metric, strength)

    def cost(t: float, row: int) -> float:
        clipped = boxed[row].clamp(-t, t)
        return float(strength[row] * t + (metric[row] * (clipped - delta[row]).square()).sum() / 2)

    for row in range(40):
        best = minimize_scalar(cost, bounds=(0, 3), args=(row,), method="bounded", options={"xatol": 1e-10})
        assert cost(float(found[row]), row) <= best.fun + 1e-9
        assert float(found[row]) <= float(boxed[row].abs().max()) + 1e-12


def test_what_is_for_classes_and_what_is_for_masks_say_so() -> None:
    model = linear_pixels()
    x, y = inner_samples(model, 3)
    for attack, threat, goal, said in (
        ("ddn", "l2:min", "untargeted", "attacks classification; pixels is for segmentation"),
        ("asma", "l2:min", "untargeted", "aims at a mask"),
        ("apgd:targets=2", "linf:0.1", "untargeted", "has no class to lead to"),
        ("pgd", "rotation:10", "untargeted", "moves pixels, and the labels"),
        ("pgd", "rotation:10+linf:0.1", "untargeted", "moves pixels, and the labels"),
        ("pgd", "linf:0.1", "top:2", "means nothing to a segmentation"),
    ):
        with pytest.raises(Unsupported, match=said):
            attack_with(model, x, y, attack, threat, goal=goal)
    assert len(attack_with(model, x, y, "pgd:steps=3", "color:0.3").records) == 3
