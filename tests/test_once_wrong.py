"""What was wrong once: each of these failed before it was mended."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.cli.main import main
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.model import Effort, Model, Precision
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.random import Stream
from robustbench_lite.core.task import margin
from robustbench_lite.models.torch.accelerate import repays
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.transformed import Transformed
from robustbench_lite.reports.build import rebuild
from robustbench_lite.reports.findings import verdict
from robustbench_lite.reports.leaderboard import leaderboard
from robustbench_lite.reports.page.page import command, drawn
from robustbench_lite.reports.results import Folder
from robustbench_lite.runs.config import make, read
from robustbench_lite.search.driver import Samples, Search, fit, search
from robustbench_lite.threats.named import parse_threat
from tests.conftest import linear_model, samples_of, small_network


def learnt(model: Model, spec: str, threat: str, goal: str = "untargeted", eot: int = 1) -> dict[str, Tensor]:
    x, y = samples_of(model.model if isinstance(model, Transformed) else model, 40)
    samples = Samples(x, y, torch.arange(40), Oracle(model).truth(x, Stream.of(0, torch.arange(40))))
    attack = get_attack(spec)
    return dict(fit(attack, model, parse_threat(threat), parse_goal(goal), samples, Search(eot=eot)))  # type: ignore[arg-type]


def linear_network(seed: int) -> nn.Module:
    data = rb.load_data("digits").training()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        optimiser = torch.optim.Adam(module.parameters(), 0.05)
        for _ in range(30):
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(data.x[seed::2]), data.y[seed::2]).backward()
            optimiser.step()
    return module


def test_models_of_one_name_have_perturbations_of_their_own(tmp_path: Path) -> None:
    data = rb.load_data("digits", samples=100)
    both = [linear_network(0), linear_network(1)]
    attack = "universal:method=sgd,steps=20"
    together = rb.run(data, both, [attack], ["linf:0.2"], out=tmp_path / "r").table()
    assert together["model"].tolist() == ["Sequential", "Sequential#2"]
    alone = [rb.run(data, [module], [attack], ["linf:0.2"]).table()["success"][0] for module in both]
    assert together["success"].tolist() == alone
    assert len(list((tmp_path / "r" / "learnt").iterdir())) == 2


def test_a_resumed_run_reports_its_own_samples_only(tmp_path: Path) -> None:
    for count in (30, 60):
        result = rb.run("digits", ["logistic"], ["fgsm"], ["linf:0.1"], count, out=tmp_path, resume=True)
    folder = Folder.open(tmp_path)
    assert len(folder.records) == 60
    assert len(list(folder.pictures())) == 1
    assert folder.table("summary")["robust"][0] == result.table()["robust"][0]


def test_a_leaderboard_does_not_count_what_only_a_weak_attack_has_met(tmp_path: Path) -> None:
    strong, weak = tmp_path / "strong", tmp_path / "weak"
    rb.run("digits", ["logistic"], ["exact"], ["linf:0.2"], 40, out=strong)
    rb.run("digits", ["logistic"], ["noise:steps=0"], ["linf:0.2"], 300, out=weak)
    alone = leaderboard([Folder.open(strong)])
    both = leaderboard([Folder.open(strong), Folder.open(weak)])
    assert both["best_known"][0] == alone["best_known"][0] < 0.3
    assert both["samples"][0] == 40


def test_a_report_stands_where_nothing_was_right_and_names_are_no_formulas(tmp_path: Path) -> None:
    digits = rb.load_data("digits", samples=20)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(module[1].weight)
    module[1].bias.data[:] = torch.arange(10.0)
    model = TorchModel(module, (1, 8, 8), name="a$^{$b")
    one_class = digits[digits.y != 9]
    rb.run(one_class, [model], ["noise"], ["linf:0.1"], out=tmp_path / "r")
    assert "a$^{$b" in (tmp_path / "r" / "report.html").read_text()
    rebuild([tmp_path / "r"], ("png",))


def test_a_report_that_fails_takes_nothing_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustbench_lite import runner

    def fails(*_: object) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr(runner, "rebuild", fails)
    result = rb.run("digits", ["logistic"], ["fgsm"], ["linf:0.1"], 20, out=tmp_path)
    assert len(result.records) == 20


def test_serving_leaves_out_a_run_that_has_not_begun(tmp_path: Path) -> None:
    from click.testing import CliRunner

    (tmp_path / "stopped" / "records").mkdir(parents=True)
    said = CliRunner().invoke(main, ["serve", str(tmp_path)])
    assert said.exit_code == 2
    assert "left out" in said.output
    assert "no run in there" in said.output


def test_what_cannot_be_read_or_served_is_one_line(tmp_path: Path) -> None:
    from click.testing import CliRunner

    rb.run("digits", ["logistic"], ["fgsm"], ["linf:0.1"], 20, out=tmp_path)
    said = CliRunner().invoke(main, ["serve", str(tmp_path), "--port", "70000"])
    assert said.exit_code == 2
    assert "port 70000" in said.output
    next((tmp_path / "pictures").iterdir()).write_bytes(b"PK no zip")
    said = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert said.exit_code == 2
    assert "cannot be read" in said.output


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


@pytest.mark.parametrize("spec", ["patch:steps=6", "universal:method=sgd,steps=6"])
def test_what_is_fitted_meets_new_draws_in_every_step(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    met: set[int] = set()
    plain = Transformed.draw

    def watched(self: Transformed, stream: Stream) -> Model:
        met.update(stream.key.tolist())
        return plain(self, stream)

    monkeypatch.setattr(Transformed, "draw", watched)
    model = Transformed(linear_model(3, (1, 6, 6)), rotation=20)
    learnt(model, spec, "l0:4" if "patch" in spec else "linf:0.1")
    assert len(met) >= 6 * 40


@pytest.mark.parametrize("method", ["direct", "gradient"])
def test_fooling_averages_over_draws_and_counts_them(method: str) -> None:
    model = Transformed(linear_model(3, (1, 6, 6)), rotation=60, shift=0.2)
    one, many = (
        learnt(model, f"fooling:method={method},steps=20,confidence=0.9999999", "box", eot=eot)
        for eot in (1, 8)
    )
    assert int(many["queries"]) == 8 * int(one["queries"])
    assert not torch.equal(one["images"], many["images"])


def test_deepfools_universal_goes_for_the_class_that_is_asked_for() -> None:
    model = linear_model(3, (1, 4, 4))
    x, y = samples_of(model, 40)
    delta = learnt(model, "universal:method=deepfool", "l2:3", "class:1")["delta"]
    others = y != 1
    became = model.scores((x + delta).clamp(0, 1)).argmax(1)[others]
    assert float((became == 1).float().mean()) >= 0.8


def test_a_classs_own_samples_are_left_out_of_every_rate() -> None:
    result = rb.run("digits", ["logistic"], ["iterative"], ["linf:1"], 60, goals=["class:3"])
    assert result.table()["success"][0] == 1.0
    assert result.table("worst_case")["robust"][0] <= 1 - result.table()["clean"][0] + 1e-9
    assert 3 not in set(result.table("per_class")["label"])
    assert (result.records["target"] == 3).all()


def test_only_what_the_limit_cut_off_says_so() -> None:
    result = rb.run("digits", ["logistic", "tree"], ["fgsm"], ["linf:0.1"], 60, transfer=True, time_limit=600)
    assert result.records["reason"].isna().all()
    x, y = samples_of(small_network(), 20)
    late = rb.attack(small_network(), x, y, "pgd", "linf:0.1", time_limit=1e-9)
    assert (late.records["reason"] == "not attacked: the time limit was reached").all()


def test_goals_have_curves_of_their_own(tmp_path: Path) -> None:
    goals = ["untargeted", "least_likely"]
    rb.run("digits", ["logistic"], ["ddn:steps=20"], ["l2:min"], 30, goals=goals, out=tmp_path)
    folder = Folder.open(tmp_path)
    titles = [title for _, title, _ in drawn(folder)]
    assert "Robust accuracy against eps, l2:min" in titles
    assert "Robust accuracy against eps, l2:min, least_likely" in titles
    assert ["(least_likely)" in said for said in verdict(folder)] == [False, True]


def test_all_samples_is_said_and_read_back(tmp_path: Path) -> None:
    rb.run("digits", ["logistic"], ["fgsm"], ["linf:0.1"], None, out=tmp_path)
    config = read(tmp_path / "config.toml")
    assert make(config).samples is None
    assert "--samples all" in command(config)
    assert len(Folder.open(tmp_path).records) > 300


def test_one_pixel_returns_its_fittest_where_nothing_succeeds() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3))
    model = TorchModel(net, (1, 6, 6))
    x, y = samples_of(model, 20)
    samples = Samples(x, y, torch.arange(20), model.scores(x))
    how = Search(precision=Precision.BFLOAT16)
    attack = get_attack("one_pixel:steps=9,population=20")
    found = search(attack, model, parse_threat("l0:1"), parse_goal("untargeted"), samples, how)
    held = found.queries_at_success < 0
    assert int(held.sum()) > 5
    before, after = (margin(model.scores(points), y)[held] for points in (x, found.adversarial))
    assert float((after > before).float().mean()) > 0.8  # fitness is cross-entropy, in eight bits


@pytest.mark.parametrize("attack", ["one_pixel", "sparse_rs"])
def test_channels_that_come_last_are_refused_aloud(attack: str) -> None:
    x, y = samples_of(linear_model(3, (4, 4, 1)), 4)
    with pytest.raises(Unsupported, match="keeps its channels elsewhere"):
        rb.attack(linear_model(3, (4, 4, 1)), x, y, attack, "l0:1", domain=Domain(pixel_dim=2))


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
    for precision, allowed in ((Precision.FLOAT32, False), (Precision.TF32, True)):
        copy = model.for_search(precision, Effort(10, 10, compile=True))
        seen.clear()
        Oracle(model, copy).gradient(torch.rand(2, 1, 4, 4), lambda scores, rows: scores[:, 0])
        assert seen == [allowed]


def test_transfer_counts_only_points_that_were_sought() -> None:
    result = rb.run("digits", ["logistic", "tree"], ["fgsm"], ["linf:0.1"], 100, transfer=True)
    table = result.table("transfer").set_index(["source", "target"])
    records = result.records
    own = {
        name: set(part.loc[part["clean_prediction"] == part["label"], "sample_id"])
        for name, part in records.loc[records["source_model"].isna()].groupby("model")
    }
    assert table.loc[("tree", "logistic"), "samples"] == len(own["tree"] & own["logistic"])
    assert isinstance(table, pd.DataFrame)
