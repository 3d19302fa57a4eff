"""Points made on one model, judged by another."""

from pathlib import Path

import pytest
import torch
from torch import nn

import robustbench_lite as rb
from robustbench_lite.jobs import job
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.reports.findings import warnings
from robustbench_lite.reports.results import Results
from tests.conftest import run_with


def sign_model(flip: bool, name: str) -> TorchModel:
    """Class 1 where the first feature is above (below, if flipped) one half; it cares for nothing else."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    module[1].weight.data.zero_()
    module[1].weight.data[1, 0] = -1.0 if flip else 1.0
    module[1].bias.data = torch.tensor([0.0, 0.5 if flip else -0.5])
    return TorchModel(module, (1, 8, 8), name=name)


@pytest.fixture
def data(tmp_path: Path) -> rb.Data:
    import numpy as np

    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    y = (x[:, 0, 0, 0] > 0.5).astype("int64")
    np.savez(tmp_path / "d.npz", x=x, y=y)
    return rb.load_data(f"npz:{tmp_path / 'd.npz'}")


def test_a_twin_falls_with_its_source_and_an_opposite_stands(data: rb.Data) -> None:
    models = [sign_model(False, "one"), sign_model(False, "twin"), sign_model(True, "opposite")]
    result = run_with(data, models, ["fgsm"], ["linf:0.2"], transfer=True)
    table = result.table("transfer").set_index(["source", "target"])
    assert len(table) == 9
    first = table.loc[("one", "one")]
    assert 0.2 < first["success"] < 0.8
    assert first["of_broken"] == 1.0
    assert table.loc[("one", "twin"), "success"] == first["success"]
    assert table.loc[("twin", "one"), "of_broken"] == 1.0
    # The opposite has every sample wrong: nothing of it can be broken, and nothing is sought on it.
    assert table.loc[("one", "opposite"), "samples"] == 0
    assert table.loc[("opposite", "one"), "samples"] == 0
    records = result.records
    moved = records[records["source_model"].notna()]
    assert len(moved) == 6 * len(data)
    assert (moved["forwards"] == 0).all()
    assert len(result.table("summary")) == 3
    assert result.table("worst_case").set_index("model").loc["one", "strongest"] == "fgsm"


def told(out: Path) -> list[str]:
    return warnings(Results.open(out))


def test_a_stronger_source_is_named_as_the_strongest(data: rb.Data, tmp_path: Path) -> None:
    """A model without a slope keeps its samples from its own attack, and loses them to its neighbour's."""

    class Steps(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            above = (x.flatten(1)[:, :1] > 0.5).float()
            return torch.cat([1 - above, above], 1) + 0.0 * x.flatten(1)[:, :2]

    models = [sign_model(False, "smooth"), TorchModel(Steps(), (1, 8, 8), name="steps")]
    out = tmp_path / "r"
    result = run_with(data, models, ["noise:steps=0", "fgsm"], ["linf:0.2"], transfer=True, out=out)
    assert any(said.startswith("steps falls more often to points made on smooth") for said in told(out))
    worst = result.table("worst_case").set_index("model")
    assert worst.loc["steps", "strongest"] == "fgsm from smooth"
    assert worst.loc["steps", "robust"] == worst.loc["smooth", "robust"]


def test_one_search_serves_all_targets_and_a_resumed_run_adds_nothing(
    data: rb.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    plain = job.search

    def counting(attack: object, model: rb.Model, *others: object) -> object:
        searched.append(model.name)
        return plain(attack, model, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "search", counting)
    models = [sign_model(False, "one"), sign_model(False, "twin")]
    first = run_with(data, models, ["fgsm"], ["linf:0.2"], transfer=True, out=tmp_path / "r")
    assert searched == ["one", "twin"]
    second = run_with(data, models, ["fgsm"], ["linf:0.2"], transfer=True, out=tmp_path / "r", resume=True)
    assert searched == ["one", "twin"]
    assert first.table("transfer").equals(second.table("transfer"))


def test_a_universal_perturbation_is_fitted_once_and_judged_everywhere() -> None:
    digits = rb.load_data("digits", samples=100)
    result = run_with(
        digits, ["logistic", "linear"], ["universal:method=sgd,steps=20"], ["linf:0.2"], transfer=True
    )
    table = result.table("transfer").set_index(["source", "target"])["success"]
    assert len(table) == 4
    assert (table > 0.1).all()


def test_a_judge_to_whom_the_goal_means_nothing_is_left_out_aloud() -> None:
    """A confidence is asked for, and votes of a linear regression have none."""
    result = run_with(
        "digits", ["logistic", "linear"], ["fooling:steps=2"], ["box"], 5,
        transfer=True, goals=["random,confidence=0.5"],
    )  # fmt: skip
    assert not result.failures
    assert set(result.records["model"]) == {"logistic"}
    assert any("judged by linear" in what for what in result.refused)
    assert any("linear's scores have no scale" in why for why in result.refused.values())
