"""Searching in fewer bits: what it may decide, and what it may not."""

import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.goal import margin
from robustbench_lite.core.model import Precision, fast_arithmetic, reference_precision
from robustbench_lite.models.fast import faster
from robustbench_lite.models.module import TorchModel
from tests.conftest import samples_of, small_network


def convolutional(classes: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 64, classes),
        )
        module[1].running_mean.uniform_(-1, 1)
        module[1].running_var.uniform_(0.5, 2)
    return module.eval()


class Untraceable(nn.Module):
    """Branches on values, as tracing cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = convolutional()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x)
        return scores if float(scores.sum()) == float(scores.sum()) else scores * 2


class Single(nn.Module):
    """A table of float32 that meets nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = convolutional()

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise RuntimeError("float32 only")
        scores: Tensor = self.inner(x)
        return scores


def test_a_folded_copy_says_the_same() -> None:
    module, x = convolutional(), torch.rand(10, 3, 8, 8)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    folded = faster(module, Precision.TF32, x)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert torch.allclose(folded(x), module(x), atol=1e-5)
    half = faster(module, Precision.BFLOAT16, x)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), module(x), atol=0.1)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    untraced = Untraceable()
    assert torch.allclose(faster(untraced, Precision.TF32, x)(x), untraced(x), atol=1e-5)


class Noisy(nn.Module):
    """Draws what tracing would freeze."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = convolutional()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x + 0.1 * torch.randn(1, 3, 8, 8))
        return scores


def test_what_is_drawn_at_random_is_not_frozen() -> None:
    x = torch.rand(4, 3, 8, 8)
    copied = faster(Noisy(), Precision.TF32, x)
    assert not torch.equal(copied(x), copied(x))


def test_solids_have_no_channels_last() -> None:
    module = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 6**3, 3))
    model = TorchModel(module, (1, 8, 8, 8))
    x, y = samples_of(model, 4)
    assert rb.attack(model, x, y, "pgd", "linf:0.1", steps=3).records["valid"].all()


def test_a_search_in_bfloat16_goes_on_to_a_higher_margin() -> None:
    model = TorchModel(convolutional(), (3, 8, 8))
    x, y = samples_of(model, 40)
    first, most = (
        rb.attack(model, x, y, "iterative:steps=20", "linf:0.02", goal=goal, precision="bfloat16")
        for goal in ("untargeted", "untargeted,stop=never")
    )
    assert first.success.tolist() == most.success.tolist()
    gained = margin(model.scores(most.adversarial), y) - margin(model.scores(first.adversarial), y)
    assert bool((gained[first.success] >= 0).all())
    assert bool((gained[first.success] > 0.02).any())


def test_a_few_steps_are_searched_as_they_are() -> None:
    model = TorchModel(convolutional(), (3, 8, 8))
    x, y = samples_of(model, 4)
    records = rb.attack(model, x, y, "fgsm", "linf:0.02", precision="bfloat16").records
    assert set(records["precision"]) == {"float32"}


@pytest.mark.parametrize("threat", ["linf:0.02", "l2:0.4", "l2:min"])
def test_a_search_in_bfloat16_is_as_strong_and_judged_in_float32(threat: str) -> None:
    model = TorchModel(convolutional(), (3, 8, 8))
    x, y = samples_of(model, 80)
    attack = "ddn" if threat.endswith("min") else "apgd:steps=30"
    plain, fast = (
        rb.attack(model, x, y, attack, threat, precision=p).records for p in ("float32", "bfloat16")
    )
    assert set(plain["precision"]) == {"float32"}
    assert set(fast["precision"]) == {"bfloat16"}
    assert fast["second_look"][fast["success"]].all()
    assert fast["success"].sum() >= 0.95 * plain["success"].sum() > 0
    if threat.endswith("min"):
        assert fast["l2"].median() <= 1.03 * plain["l2"].median()


def test_auto_takes_fewer_bits_only_for_convolutions() -> None:
    x, y = samples_of(small_network(), 5)
    assert set(rb.attack(small_network(), x, y, "pgd", "linf:0.1").records["precision"]) == {"float32"}
    found = TorchModel(convolutional(), (3, 8, 8)).for_search(Precision.AUTO)
    assert found is None or found.precision == "bfloat16"  # as the processor has it
    assert TorchModel(convolutional(), (3, 8, 8)).for_search(Precision.FLOAT32) is None


def test_what_cannot_be_cast_is_searched_as_it_is() -> None:
    model = TorchModel(Single(), (3, 8, 8))
    assert model.for_search(Precision.BFLOAT16) is None
    x, y = samples_of(model, 5)
    records = rb.attack(model, x, y, "pgd", "linf:0.1", precision="bfloat16").records
    assert set(records["precision"]) == {"float32"}


def test_precision_is_checked() -> None:
    x, y = samples_of(small_network(), 2)
    with pytest.raises(InvalidParameter, match="precision = 'half': must be one of auto, float32"):
        rb.attack(small_network(), x, y, "pgd", "linf:0.1", precision="half")


def test_arithmetic_is_put_back() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    with fast_arithmetic():
        assert matmul.allow_tf32
        with reference_precision():
            assert not matmul.allow_tf32
        assert matmul.allow_tf32
    assert matmul.allow_tf32 == before
