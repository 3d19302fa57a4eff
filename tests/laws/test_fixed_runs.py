"""Fixed runs, two of each class of access and more: what they gave at revision 48faca9 they give today.

A row that changes is a change of results: raise the attack's revision, and say here why. pgd, revision 2:
steps fall from eps along a cosine; auto, revision 2: the squares take all of their queries at once;
revision 3: it begins with diversified starts; square, revision 2: squares shrink half as fast.
"""

import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.models.zoo.linear import LinearModel
from tests.conftest import attack_with

# model, attack, threat, successes of 60, the sum of their sizes, forward and backward passes in all; seed 0
RUNS = [
    ("linear", "exact", "l2:min", 60, 18.20029223614162, 240, 0),
    ("linear", "exact", "linf:0.1", 31, 1.9398223757743835, 209, 0),
    ("linear", "linear_demo", "linf:0.1", 31, 3.0999998638872057, 209, 0),
    ("network", "fgsm", "linf:0.1", 41, 4.099999813828617, 120, 60),
    ("network", "ddn:steps=40", "l2:min", 60, 15.303432965564156, 2460, 2400),
    ("network", "pgd:steps=10", "linf:0.1", 46, 4.563491642707959, 257, 243),
    ("network", "apgd:steps=20", "l2:0.5", 56, 27.486241601698683, 204, 200),
    ("network", "square:steps=60", "linf:0.1", 40, 3.9999998083803803, 1842, 0),
    ("network", "one_pixel:steps=10,population=30", "l0:1", 51, 51.0, 5169, 0),
    ("network", "hopskipjump:steps=3,queries=30,tries=30", "l2:min", 60, 15.13332176360427, 11100, 0),
    ("network", "noise", "linf:0.2", 29, 5.458684630692005, 402, 0),
    ("network", "universal:steps=20", "linf:0.2", 39, 7.799999785143882, 60, 0),
    ("network", "auto:steps=10,queries=100", "linf:0.05", 27, 1.333848962560296, 4739, 2330),
]


class Network(nn.Module):
    """Two layers of random weights in float64."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(16, 16, generator=generator, dtype=torch.float64))
        self.second = nn.Parameter(torch.randn(16, 4, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1).double() @ self.first) @ self.second


def model_named(name: str) -> rb.Model:
    if name == "network":
        return rb.TorchModel(Network(), (1, 4, 4), name="network")
    weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    return LinearModel(weight, torch.zeros(4), (1, 4, 4), scaled=True)


@pytest.mark.parametrize(
    ("name", "attack", "threat", "successes", "sizes", "forwards", "backwards"),
    RUNS,
    ids=[r[1] for r in RUNS],
)
def test_it_gives_what_it_gave(
    name: str, attack: str, threat: str, successes: int, sizes: float, forwards: int, backwards: int
) -> None:
    model = model_named(name)
    x = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    records = attack_with(model, x, model.prediction(model.scores(x)), attack, threat).records
    won = records.loc[records["success"].astype(bool)]
    assert len(won) == successes
    assert float(won[threat.partition(":")[0]].sum()) == pytest.approx(sizes, rel=1e-5)
    assert (int(records["forwards"].sum()), int(records["backwards"].sum())) == (forwards, backwards)
