"""Jobs: text and numbers, whose keys are their texts; what they become stands beside them."""

import functools
import pickle
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.core.model import Model
from robustbench_lite.core.settings import Search
from robustbench_lite.jobs import make as workshops
from robustbench_lite.jobs.job import Job, carry_out
from robustbench_lite.jobs.make import Source, Workshop
from robustbench_lite.models.function import ScoreFunction
from robustbench_lite.models.zoo.linear import LinearModel
from robustbench_lite.runs.config import make
from robustbench_lite.runs.plan import Subject, plan
from tests.conftest import attack_with, linear_model, run_with, samples_of

SAME = ["success", "l2", "linf", "forwards", "backwards", "outcome", "adversarial_prediction"]


def planned(**values: object) -> list[Job]:
    usual: dict[str, object] = {
        "models": ["logistic"],
        "attacks": ["pgd:steps=3"],
        "threats": ["linf:0.1"],
        "samples": 20,
    }
    config = make(usual | values)
    return list(plan(config, Subject.of(config)).jobs)


def test_a_job_is_carried_out_in_another_process_as_in_this_one(tmp_path: Path) -> None:
    (job,) = planned()
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    code = (
        "import pickle, sys\n"
        "from robustbench_lite.jobs.make import Source, Workshop\n"
        "from robustbench_lite.jobs.job import carry_out\n"
        "job = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "shop = Workshop(Source(job.data, job.samples), job.search)\n"
        "carry_out(shop.work(job)).records.to_parquet(sys.argv[2])\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "job", tmp_path / "out"], check=True)
    there = pd.read_parquet(tmp_path / "out")
    shop = Workshop(Source(job.data, job.samples), job.search)
    here = carry_out(shop.work(job)).records
    for column in (*SAME, "job", "fingerprint"):
        assert there[column].tolist() == here[column].tolist(), column


def test_the_key_holds_every_text_that_shapes_a_record_and_nothing_else() -> None:
    (job,) = planned()
    for field in fields(Job):
        if field.name == "search":
            continue
        value = getattr(job, field.name)
        other: object = f"{value}x" if isinstance(value, str) else 7 if isinstance(value, int) else (1,)
        if field.name != "others":
            assert replace(job, **{field.name: other}).key() != job.key(), field.name
    changed: dict[str, object] = {
        "seed": 1, "budget": 9, "time_limit": 5.0, "eot": 2, "draws": 9, "precision": "float32",
        "compile": True, "eight_bit": True, "skip_proven": True, "certify": 2.0,
        "device": "cuda", "batch_size": 3,
    }  # fmt: skip
    assert set(changed) == {field.name for field in fields(Search)}
    for name, value in changed.items():
        other_search = replace(job, search=replace(job.search, **{name: value}))
        assert (other_search.key() == job.key()) == (name in ("device", "batch_size")), name


def test_another_domain_is_another_job(tmp_path: Path) -> None:
    """A mask, a box or a grid changes what a record means, so no stale one is believed."""
    data = rb.load_data("digits", samples=30)
    mask = torch.ones(1, 8, 8, dtype=torch.bool)
    mask[:, :4] = False
    domains = [rb.Domain(), rb.Domain(mask=mask), rb.Domain(high=2.0)]
    domains.append(rb.Domain(spacing=torch.full((1, 8, 8), 1 / 16)))
    keys = set()
    for domain in domains:
        config = rb.Config(threats=("linf:0.2",), attacks=("fgsm",))
        subject = Subject(replace(data, domain=domain), ["logistic"], config.cells)
        keys |= {job.key() for job in plan(config, subject).jobs}
    assert len(keys) == len(domains)
    first = run_with(data, ["logistic"], ["fgsm"], ["linf:0.2"], None, out=tmp_path)
    held = replace(data, domain=domains[1])
    second = run_with(held, ["logistic"], ["fgsm"], ["linf:0.2"], None, out=tmp_path, resume=True)
    assert second.records["success"].sum() < first.records["success"].sum()


def test_another_forward_over_the_same_weights_is_another_model(tmp_path: Path) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.inner = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.inner(x.flatten(1))
            return scores

    class Changed(Plain):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.inner(1 - x.flatten(1))
            return scores

    Changed.__qualname__ = Plain.__qualname__
    one, two = (rb.TorchModel(module(), (1, 8, 8), name="net") for module in (Plain, Changed))
    assert one.fingerprint() != two.fingerprint()
    first = run_with("digits", [one], ["fgsm"], ["linf:0.1"], 30, out=tmp_path)
    second = run_with("digits", [two], ["fgsm"], ["linf:0.1"], 30, out=tmp_path, resume=True)
    alone = run_with("digits", [two], ["fgsm"], ["linf:0.1"], 30)
    assert second.records["clean_prediction"].tolist() == alone.records["clean_prediction"].tolist()
    assert first.records["clean_prediction"].tolist() != second.records["clean_prediction"].tolist()


def test_a_model_is_used_as_it_is_read_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The run that trains and the one that reads give the same bits."""
    monkeypatch.setenv("ROBUST_CACHE", str(tmp_path))
    records = [
        run_with("digits", ["logistic", "linear", "tree", "mlp"], ["pgd:steps=3"], ["l2:0.5"], 30).records
        for _ in range(2)
    ]
    for column in ("l2", "clean_confidence", "adversarial_confidence", "success"):
        pd.testing.assert_series_equal(records[0][column], records[1][column])


def test_goals_with_options_fit_apart() -> None:
    """What a fitted attack learnt is not shared between goals that differ in an option only."""
    goals = ["untargeted", "untargeted,margin=5"]
    attacks, threats = ["universal:method=sgd,steps=20"], ["linf:0.2"]
    both = run_with("digits", ["cnn"], attacks, threats, 60, goals=goals).records
    alone = run_with("digits", ["cnn"], attacks, threats, 60, goals=goals[1:]).records
    mine = both.loc[both["goal"] == goals[1]].reset_index(drop=True)
    assert mine["success"].tolist() == alone["success"].tolist()
    assert mine["linf"].tolist() == alone["linf"].tolist()


def test_what_fitting_costs_is_counted_and_limited() -> None:
    told = [
        run_with(
            "digits", ["logistic"], ["universal:method=sgd,steps=20"], ["linf:0.2"], 40, **limits
        ).records
        for limits in ({}, {"budget": 3}, {"time_limit": 1e-9})
    ]
    free, poor, late = told
    assert (free["fit_forwards"] > 1000).all()
    assert (free["fit_backwards"] > 1000).all()
    assert (free["fit_seconds"] > 0).all()
    training = len(rb.load_data("digits").training())
    assert float((poor["fit_forwards"] + poor["fit_backwards"]).max()) <= 3 * training
    right = late["clean_prediction"] == late["label"]
    assert (late.loc[right, "outcome"] == "unattacked").all()
    table = run_with("digits", ["logistic"], ["universal:method=sgd,steps=20"], ["linf:0.2"], 40).table(
        "costs"
    )
    assert table["fit_forwards"][0] > 1000


def test_what_a_limit_left_is_neither_broken_nor_robust() -> None:
    result = run_with("digits", ["logistic"], ["pgd"], ["linf:0.1"], 40, time_limit=1e-9)
    row = result.table("summary").iloc[0]
    assert np.isnan(row["success"])
    assert np.isnan(row["robust"])
    assert row["unattacked"] == int((result.records["clean_prediction"] == result.records["label"]).sum())
    worst = result.table("worst_case").iloc[0]
    assert np.isnan(worst["robust"])
    assert worst["unattacked"] == row["unattacked"]
    x, y = samples_of(linear_model(), 10)
    poor = attack_with(linear_model(), x, y, "pgd", "linf:0.2", budget=1).records
    spent = poor["forwards"] + poor["backwards"] > 0
    assert ((poor["outcome"] == "unattacked") == ~spent).all()


class SometimesNaN(nn.Module):
    """The logits of a linear map; NaN where a sample is marked, or where it is not exactly what it was."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.inner = kind, nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.inner(x.flatten(1))
        levels = x.flatten(1) * 16
        perturbed = ((levels - levels.round()).abs() > 1e-4).any(1)
        marked = (x.flatten(1).sum(1) * 16).round() % 2 == 0
        lost = {"clean": marked & ~perturbed, "moved": perturbed}[self.kind]
        return torch.where(lost[:, None] & (x.flatten(1).std(1) > 0)[:, None], scores * torch.nan, scores)


def nan_model(kind: str) -> rb.TorchModel:
    grey = SometimesNaN("clean")
    model = rb.TorchModel(grey.inner and nn.Sequential(nn.Flatten(), grey.inner), (1, 8, 8), name="nan")
    model.module = SometimesNaN(kind).eval().requires_grad_(False)  # after it was tried
    return model


def test_nan_is_no_prediction_and_an_outcome_of_its_own() -> None:
    data = rb.load_data("digits", samples=80)
    model = nan_model("clean")
    labels = torch.where(model.scores(data.x).isnan().any(1), 0, model.scores(data.x).nan_to_num().argmax(1))
    silent = model.scores(data.x).isnan().any(1)
    clean = attack_with(model, data.x, labels, "noise", "linf:0.1").records
    assert (clean.loc[silent.numpy(), "clean_prediction"] == -1).all()
    assert (clean.loc[silent.numpy(), "outcome"] == "wrong").all()
    assert float(clean["clean_rate"].mean()) == pytest.approx(float((~silent).float().mean()))
    moved = nan_model("moved")
    y = moved.scores(data.x).argmax(1)
    for attack in ("noise", "pgd:steps=3", "iterative:steps=3"):
        held = attack_with(moved, data.x, y, attack, "linf:0.1").records
        assert not held["success"].any()
        assert (held["outcome"] == "nan").mean() > 0.9, attack
        counted = attack_with(moved, data.x, y, attack, "linf:0.1", goal="untargeted,nan=success").records
        assert counted["success"].mean() > 0.9, attack
        assert (counted.loc[counted["success"], "outcome"] == "broken").all()


def test_a_report_warns_of_nan(tmp_path: Path) -> None:
    data = rb.load_data("digits", samples=40)
    model = nan_model("moved")
    own = replace(data, y=model.scores(data.x).argmax(1))
    run_with(own, [model], ["noise"], ["linf:0.1"], None, out=tmp_path)
    assert "with NaN" in (tmp_path / "report.html").read_text()


def test_what_a_model_closes_over_or_calls_is_part_of_what_it_is() -> None:
    def flipped(at: float) -> ScoreFunction:
        def scores(x: np.ndarray) -> np.ndarray:
            first = x.reshape(len(x), -1)[:, :1] > at
            return np.concatenate([first, ~first], 1).astype("float32")

        return ScoreFunction(scores, (4,), name="f")

    # No probe lies between these two thresholds: only the code tells the models apart.
    assert flipped(1.5).fingerprint() != flipped(2.5).fingerprint()
    assert flipped(1.5).fingerprint() == flipped(1.5).fingerprint()


def test_attributes_of_any_kind_are_told_apart_and_the_same_in_every_process() -> None:
    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)
            nn.init.ones_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
            self.factor = torch.tensor([factor], dtype=torch.bfloat16)
            self.names = frozenset({"left", "right", "middle", "top"})
            self.tree: list[object] = [factor]
            self.tree.append(self.tree)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.relu(self.linear(x))

    data = rb.load_data((np.random.default_rng(0).random((8, 4)).astype("float32"), np.arange(8) % 2))
    one, same, other = (rb.load_model(Scaled(factor), data) for factor in (1.0, 1.0, 2.0))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_a_resume_proves_and_fits_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["linear", "knn"], ["fgsm", "universal:steps=3"], ["linf:0.1"]
    whole = run_with("digits", *names, 40, out=tmp_path / "run")
    assert len(list((tmp_path / "run" / "bounds").glob("*.npz"))) == 2
    assert len(list((tmp_path / "run" / "fits").glob("*.npz"))) == 2

    def again(*others: object, **more: object) -> None:
        raise AssertionError("it was there")

    monkeypatch.setattr(workshops, "prove", again)
    monkeypatch.setattr(workshops, "learn", again)
    for file in list((tmp_path / "run" / "records").glob("*.parquet"))[:3]:
        file.unlink()
    more = run_with("digits", *names, 40, out=tmp_path / "run", resume=True)
    assert not more.failures
    unlike = ["seconds", "memory_mib"]  # bounds' and fits' own seconds are those of the first time
    one, two = (found.records.drop(columns=unlike) for found in (whole, more))
    pd.testing.assert_frame_equal(one, two)
    # Other data, another seed: nothing of it may be taken.
    other = run_with("digits", *names, 40, out=tmp_path / "other", seed=1)
    assert set(other.failures)


def test_what_was_proven_once_is_not_proven_again_in_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workshops, "WORTH", 0.0)
    monkeypatch.setenv("ROBUST_CACHE", str(tmp_path / "cache"))
    run = functools.partial(run_with, "digits", ["linear"], ["noise"], ["linf:0.1"], 20)
    first = run(out=tmp_path / "first")
    (kept,) = (tmp_path / "cache" / "bounds").glob("*.npz")
    proven: list[str] = []
    prove = workshops.prove

    def counted(*given: object, **more: object) -> object:
        proven.append("again")
        return prove(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(workshops, "prove", counted)
    second = run(out=tmp_path / "second")
    assert not proven
    assert second.records["lower_bound"].tolist() == first.records["lower_bound"].tolist()
    kept.write_bytes(kept.read_bytes()[:30])  # what is damaged is made anew
    run(out=tmp_path / "third")
    run(out=tmp_path / "fourth")
    assert len(proven) == 1
    # Another state of the code may prove another bound.
    monkeypatch.setattr(workshops, "_code", lambda: "another")
    run(out=tmp_path / "fifth")
    assert len(proven) == 2


def test_bounds_of_models_that_do_not_say_what_they_are_stay_with_their_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Vague(LinearModel):
        facts = Model.facts

    monkeypatch.setattr(workshops, "WORTH", 0.0)
    monkeypatch.setenv("ROBUST_CACHE", str(tmp_path / "cache"))
    digits = rb.load_data("digits", samples=10)
    plain = rb.load_model("linear", digits)
    assert isinstance(plain, LinearModel)
    vague = Vague(plain.weight, plain.bias, (1, 8, 8), name="vague", scaled=False)
    found = run_with(digits, [vague], ["noise"], ["linf:0.1"], out=tmp_path / "run")
    assert found.records["lower_bound"].notna().all()
    assert not list((tmp_path / "cache").glob("bounds/*"))


def test_the_hash_of_the_code_covers_packages_that_are_links() -> None:
    """In a checkout attacks, defenses and reports are."""
    read: list[str] = []
    own = Path.read_bytes

    def noted(file: Path) -> bytes:
        read.append(str(file))
        return own(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", noted)
        workshops._code.__wrapped__()
    assert any("defenses" in file for file in read)
    assert any("certify" in file for file in read)
