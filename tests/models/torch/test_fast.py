"""Searching in fewer bits: what it may decide, and what it may not."""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.model import Effort, fast_arithmetic, reference_precision
from robustbench_lite.core.task import margin
from robustbench_lite.models.torch.accelerate import Padded, launch_bound
from robustbench_lite.models.torch.fast import faster
from robustbench_lite.models.torch.module import TorchModel
from tests.conftest import attack_with, samples_of, small_network


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
    folded = faster(module, "tf32", x)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert torch.allclose(folded(x), module(x), atol=1e-5)
    half = faster(module, "bfloat16", x)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), module(x), atol=0.1)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    untraced = Untraceable()
    assert torch.allclose(faster(untraced, "tf32", x)(x), untraced(x), atol=1e-5)


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
    copied = faster(Noisy(), "tf32", x)
    assert not torch.equal(copied(x), copied(x))


def test_solids_have_no_channels_last() -> None:
    module = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 6**3, 3))
    model = TorchModel(module, (1, 8, 8, 8))
    x, y = samples_of(model, 4)
    assert attack_with(model, x, y, "pgd", "linf:0.1", steps=3).records["valid"].all()


def test_a_search_in_bfloat16_goes_on_to_a_higher_margin() -> None:
    model = TorchModel(convolutional(), (3, 8, 8))
    x, y = samples_of(model, 40)
    first, most = (
        attack_with(model, x, y, "iterative:steps=20", "linf:0.02", goal=goal, precision="bfloat16")
        for goal in ("untargeted", "untargeted,stop=never")
    )
    assert first.success.tolist() == most.success.tolist()
    gained = margin(model.scores(most.adversarial), y) - margin(model.scores(first.adversarial), y)
    assert bool((gained[first.success] >= 0).all())
    assert bool((gained[first.success] > 0.02).any())


def test_a_few_steps_are_searched_as_they_are() -> None:
    model = TorchModel(convolutional(), (3, 8, 8))
    x, y = samples_of(model, 4)
    records = attack_with(model, x, y, "fgsm", "linf:0.02", precision="bfloat16").records
    assert set(records["precision"]) == {"float32"}


@pytest.mark.parametrize("threat", ["linf:0.02", "l2:0.4", "l2:min"])
def test_a_search_in_bfloat16_is_as_strong_and_judged_in_float32(threat: str) -> None:
    model = TorchModel(convolutional(), (3, 8, 8))
    x, y = samples_of(model, 50)
    attack = "ddn" if threat.endswith("min") else "apgd:steps=30"
    plain, fast = (
        attack_with(model, x, y, attack, threat, precision=p).records for p in ("float32", "bfloat16")
    )
    assert set(plain["precision"]) == {"float32"}
    assert set(fast["precision"]) == {"bfloat16"}
    assert fast["second_look"][fast["success"]].all()
    assert fast["success"].sum() >= 0.95 * plain["success"].sum() > 0
    if threat.endswith("min"):
        assert fast["l2"].median() <= 1.03 * plain["l2"].median()


def test_auto_takes_fewer_bits_only_for_convolutions() -> None:
    x, y = samples_of(small_network(), 5)
    assert set(attack_with(small_network(), x, y, "pgd", "linf:0.1").records["precision"]) == {"float32"}
    found = TorchModel(convolutional(), (3, 8, 8)).for_search("auto", Effort())
    assert found is None or found.precision == "bfloat16"  # as the processor has it
    assert TorchModel(convolutional(), (3, 8, 8)).for_search("float32", Effort()) is None


def test_what_cannot_be_cast_is_searched_as_it_is() -> None:
    model = TorchModel(Single(), (3, 8, 8))
    assert model.for_search("bfloat16", Effort()) is None
    x, y = samples_of(model, 5)
    records = attack_with(model, x, y, "pgd", "linf:0.1", precision="bfloat16").records
    assert set(records["precision"]) == {"float32"}


def test_precision_is_checked() -> None:
    x, y = samples_of(small_network(), 2)
    with pytest.raises(InvalidParameter, match="precision = 'half': must be one of auto, float32"):
        attack_with(small_network(), x, y, "pgd", "linf:0.1", precision="half")


def test_arithmetic_is_put_back() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    with fast_arithmetic():
        assert matmul.allow_tf32
        with reference_precision():
            assert not matmul.allow_tf32
        assert matmul.allow_tf32
    assert matmul.allow_tf32 == before


def test_padding_changes_nothing_and_reuses_a_call_for_every_size() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    asked: list[int] = []
    memory: dict[int, Tensor] = {}

    def record(module: nn.Module, sample: Tensor) -> Callable[[Tensor], Tensor]:
        asked.append(len(sample))
        memory[len(sample)] = torch.empty(len(sample), 3)

        def replay(x: Tensor) -> Tensor:  # writes where the last call wrote, as a recorded graph does
            memory[len(x)].copy_(module(x).detach())
            return memory[len(x)] + (module(x) - module(x).detach())

        return replay

    padded = Padded(module, 16, record)
    kept = []
    for rows in (5, 8, 7, 1, 16, 17, 12):
        x = torch.rand(rows, 2, 2).requires_grad_()
        y = x.detach().clone().requires_grad_()
        scores, expected = padded(x), module(y)
        assert torch.allclose(scores, expected)
        ours, theirs = (torch.autograd.grad(s.square().sum(), z)[0] for s, z in ((scores, x), (expected, y)))
        assert torch.allclose(ours, theirs)
        kept.append((scores, expected))
    assert all(torch.allclose(scores, expected) for scores, expected in kept)
    assert asked == [8, 1, 16]
    assert torch.allclose(padded(torch.ones(3, 2, 2)), module(torch.ones(3, 2, 2)))


def test_a_size_that_cannot_be_recorded_is_asked_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def record(module: nn.Module, sample: Tensor) -> Callable[[Tensor], Tensor]:
        raise RuntimeError("operation not permitted while recording")

    module = nn.Linear(4, 3)
    x = torch.rand(3, 4).requires_grad_()
    assert torch.allclose(Padded(module, 8, record)(x), module(x))
    assert "batches of 4 are not recorded: operation not permitted" in caplog.text


def test_a_recording_that_repeats_itself_is_not_believed(caplog: pytest.LogCaptureFixture) -> None:
    def record(module: nn.Module, sample: Tensor) -> Callable[[Tensor], Tensor]:
        stale = module(sample).detach()
        return lambda x: stale + 0 * x.sum()

    module = nn.Linear(4, 3)
    x = torch.rand(3, 4).requires_grad_()
    assert torch.allclose(Padded(module, 8, record)(x), module(x))
    assert "the recording says something else" in caplog.text


def test_small_batches_are_those_that_take_no_less_time() -> None:
    assert launch_bound(lambda rows: 1 + rows / 1000) == 256
    assert launch_bound(lambda rows: rows / 1000) == 0
    assert launch_bound(lambda rows: 1.0) == 4096


def test_kernels_are_for_those_who_ask_or_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    def fake(module: nn.Module, x: Tensor, kernels: bool) -> nn.Module:
        made.append(kernels)
        return module

    monkeypatch.setattr("robustbench_lite.models.torch.module.accelerated", fake)
    model = TorchModel(convolutional(), (3, 8, 8))
    assert model.for_search("tf32", Effort(100, 40)) is not None
    assert model.for_search("tf32", Effort(100, 40, compile=False)) is not None
    assert made == []
    first, second = (model.for_search("float32", Effort(100, 40, compile=True)) for _ in range(2))
    assert made == [True]
    assert first is second is not None


@pytest.mark.slow
def test_a_compiled_search_finds_the_same(caplog: pytest.LogCaptureFixture) -> None:
    if shutil.which("c++") is None:
        pytest.skip("there is no compiler here")
    model = TorchModel(convolutional(), (3, 8, 8))
    x, y = samples_of(model, 40)
    caplog.set_level("INFO", "robustbench_lite")
    plain, kernels = (
        attack_with(model, x, y, "pgd:steps=20", "linf:0.02", precision="float32", compile=c)
        for c in (False, True)
    )
    assert "compiled in" in caplog.text
    assert abs(int(plain.success.sum()) - int(kernels.success.sum())) <= 1
    assert 0 < int(plain.success.sum()) < 40


@pytest.mark.gpu
def test_recorded_graphs_find_the_same() -> None:
    model = TorchModel(convolutional(), (3, 8, 8), device="cuda")
    x, y = samples_of(model.to("cpu"), 200)
    plain, quick = (attack_with(model, x, y, "pgd:steps=40", "linf:0.02", compile=c) for c in (False, None))
    assert abs(int(plain.success.sum()) - int(quick.success.sum())) <= 2
    assert 0 < int(plain.success.sum()) < 200
