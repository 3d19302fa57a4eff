"""Copies to search with: what was wrong once."""

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.model import Effort
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.settings import Search
from robustbench_lite.models.torch.accelerate import repays
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.search.batching import oracle_for
from robustbench_lite.threats.named import parse_threat


def test_a_model_too_large_to_time_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> float:
        raise torch.OutOfMemoryError("full")

    class OnGpu:
        is_cuda, device = True, torch.device("cpu")

        def __len__(self) -> int:
            return 4

        def __getitem__(self, rows: Tensor) -> Tensor:
            return torch.zeros(len(rows), 1)

    monkeypatch.setattr("robustbench_lite.models.torch.accelerate.seconds_of_gradient", full)
    assert not repays(nn.Identity(), OnGpu(), Effort(2000, 100))  # type: ignore[arg-type]


def test_a_search_in_float32_is_one_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robustbench_lite.models.torch.module.accelerated", lambda module, x, kernels: module)
    seen: list[bool] = []

    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            if float(x.detach().sum()) >= 0:  # which tracing cannot follow
                seen.append(torch.backends.cuda.matmul.allow_tf32)
            scores: Tensor = self.inner(x.flatten(1))
            return scores

    model = TorchModel(Asking(), (1, 4, 4))
    for precision, allowed in (("float32", False), ("tf32", True)):
        copy = model.for_search(precision, Effort(10, 10, compile=True))
        seen.clear()
        Oracle(model, copy).gradient(torch.rand(2, 1, 4, 4), lambda scores, rows: scores[:, 0])
        assert seen == [allowed]


@pytest.mark.parametrize(
    ("attack", "gradients", "scores"),
    [
        ("pgd", "bfloat16", "bfloat16"),
        ("square", "float32", "float32"),
        ("auto", "bfloat16", "float32"),
    ],
)
def test_scores_are_compared_in_float32(
    monkeypatch: pytest.MonkeyPatch, attack: str, gradients: str, scores: str
) -> None:
    """Bfloat16 has three digits: too few to tell which of two near points is better."""
    monkeypatch.setattr("robustbench_lite.models.torch.fast._multiplies_bfloat16", lambda device: True)
    model = TorchModel(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)), (1, 4, 4))
    threat = parse_threat("linf:0.1")
    oracle = oracle_for(get_attack(attack), model, threat, Search(), samples=10)
    assert oracle.precision == gradients
    assert (oracle.scorer or oracle.search or model).precision == scores
    asked = oracle_for(get_attack(attack), model, threat, Search(precision="bfloat16"), samples=10)
    assert asked.precision == "bfloat16"
    assert asked.scorer is None
