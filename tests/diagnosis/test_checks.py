"""Every flag is raised by a model or an attack that is broken on purpose, and none by a sound one."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from robustbench_lite.cli.main import main
from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.model import Model
from robustbench_lite.diagnosis.checks import CHECKS
from robustbench_lite.models.torch.module import TorchModel
from tests.conftest import diagnose_with, linear_model, run_with, samples_of, small_network


def flags(model: Model, attack: str, threat: str = "linf:0.2", **options: object) -> pd.DataFrame:
    x, y = samples_of(model, 40)
    return diagnose_with(model, x, y, attack, threat, **options).set_index("check")  # type: ignore[arg-type]


class Misled(Model):
    """Its gradient is another network's."""

    name, family, num_classes, input_shape, device = "misled", "test", 4, (1, 4, 4), torch.device("cpu")

    def __init__(self) -> None:
        self.truth, self.other = small_network(4), small_network(4, seed=9)

    def scores(self, x: Tensor) -> Tensor:
        return self.truth.scores(x)

    def gradient_scores(self, x: Tensor) -> Tensor:
        return -self.other.scores(x)

    def to(self, device: torch.device | str) -> Model:
        return self

    def fingerprint(self) -> str:
        return "misled"


class Wandering(nn.Module):
    """Its scores are disturbed anew at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_network(3).module

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x)
        return scores + 0.1 * torch.randn_like(scores)


class Certain(nn.Module):
    """Logits so far apart that p(y) is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_network(3).module

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x)
        return 1000 * scores


class Dead(nn.Module):
    """Black pixels cut everything off: the gradient is zero wherever one of them is dark."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small_network(3).module

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner((x - 0.5).relu() * (x[:, :, :1, :1] > 0.7))
        return scores


def test_a_sound_attack_on_a_smooth_model_raises_nothing() -> None:
    """On a linear model with two classes the sign of the gradient is all there is to know."""
    found = flags(linear_model(2), "apgd:steps=40", "linf:0.1")
    assert not found["raised"].any(), found[found["raised"]]
    assert set(found.index) == set(CHECKS) - {"targeted_stronger"}


def test_too_few_steps_are_seen() -> None:
    found = flags(small_network(3), "pgd:steps=6,step_size=0.005", "linf:0.2")
    assert found.loc["doubled_steps", "raised"]
    assert found.loc["loss_rising", "raised"]
    assert found.loc["loss_rising", "value"] > 0.1
    assert not flags(small_network(3), "apgd:steps=60")["raised"][["doubled_steps", "loss_rising"]].any()


def test_gradients_that_mislead_are_seen() -> None:
    found = flags(Misled(), "iterative:steps=10")
    for check in ("masked_gradients", "black_box_stronger"):
        assert found.loc[check, "raised"], check
    assert found.loc["full_box_resists", "value"] > 0


def test_gradients_of_zero_are_seen() -> None:
    model = TorchModel(Dead(), (1, 4, 4), name="dead")
    found = flags(model, "pgd:steps=5")
    x, _ = samples_of(model, 40)
    dark = float((x[:, 0, 0, 0] <= 0.7).float().mean())
    assert found.loc["zero_gradients", "value"] == pytest.approx(dark)
    assert found.loc["zero_gradients", "raised"]


def test_a_loss_that_saturates_is_seen() -> None:
    assert flags(TorchModel(Certain(), (1, 4, 4)), "pgd:steps=5").loc["saturated_loss", "value"] > 0.8
    assert flags(small_network(3), "pgd:steps=5").loc["saturated_loss", "value"] < 0.1


def test_randomness_without_averaging_is_seen() -> None:
    model = TorchModel(Wandering(), (1, 4, 4))
    assert flags(model, "pgd:steps=5").loc["random_without_eot", "raised"]
    assert not flags(model, "pgd:steps=5", eot=3).loc["random_without_eot", "raised"]


def test_an_attack_weaker_than_noise_is_seen() -> None:
    found = flags(small_network(3), "pgd:steps=1,step_size=0.0001,random_start=false", "linf:0.5")
    assert found.loc["noise_succeeds", "raised"]


def test_what_cannot_be_diagnosed_is_said() -> None:
    model = small_network(3)
    x, y = samples_of(model, 5)
    for attack, threat in (("noise", "linf:0.1"), ("ddn", "l2:min")):
        with pytest.raises(Unsupported, match="only gradient attacks at a fixed eps"):
            diagnose_with(model, x, y, attack, threat)
    with pytest.raises(Unsupported, match="no sample right"):
        diagnose_with(model, x, (y + 1) % 3, "pgd", "linf:0.1")


def test_a_finished_run_is_diagnosed_from_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_with("digits", ["logistic"], ["noise", "fgsm"], ["linf:0.1"], samples=40, out=folder)
    done = CliRunner().invoke(main, ["diagnose", str(folder), "--samples", "30"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "logistic × fgsm × linf:0.1" in done.output
    written = pd.read_csv(folder / "tables" / "flags.csv")
    assert set(written["attack"]) == {"fgsm"}
    assert set(written["check"]) <= set(CHECKS)
    wrong = CliRunner().invoke(main, ["diagnose", str(folder), "--attack", "pgd"])
    assert wrong.exit_code == 2
    assert "unknown attack of the run 'pgd'" in wrong.output
