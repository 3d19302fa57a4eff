"""Results as reports read them: what was wrong once."""

import logging
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import robustbench_lite as rb
from robustbench_lite.cli.main import main
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.records.folder import Folder
from robustbench_lite.reports.build import rebuild
from robustbench_lite.reports.findings import verdict
from robustbench_lite.reports.leaderboard import leaderboard
from robustbench_lite.reports.page.board import board
from robustbench_lite.reports.page.page import command, drawn
from robustbench_lite.reports.results import Results
from robustbench_lite.reports.tables.catalogue import TABLES
from robustbench_lite.runs.config import make, read
from tests.conftest import (
    run_with,
)


def test_a_resumed_run_reports_its_own_samples_only(tmp_path: Path) -> None:
    for count in (30, 60):
        result = run_with("digits", ["logistic"], ["fgsm"], ["linf:0.1"], count, out=tmp_path, resume=True)
    folder = Results.open(tmp_path)
    assert len(folder.records) == 60
    assert len(list(Folder(tmp_path).pictures())) == 1
    assert folder.table("summary")["robust"][0] == result.table()["robust"][0]


def test_a_leaderboard_does_not_count_what_only_a_weak_attack_has_met(tmp_path: Path) -> None:
    strong, weak = tmp_path / "strong", tmp_path / "weak"
    run_with("digits", ["logistic"], ["exact"], ["linf:0.2"], 40, out=strong)
    run_with("digits", ["logistic"], ["noise:steps=0"], ["linf:0.2"], 300, out=weak)
    alone = leaderboard([Results.open(strong)])
    both = leaderboard([Results.open(strong), Results.open(weak)])
    assert both["best_known"][0] == alone["best_known"][0] < 0.3
    assert both["samples"][0] == 40
    assert (alone["left_out"][0], both["left_out"][0]) == (0, 260)
    assert "left out" in board(both, [])
    assert "left out" not in board(alone, [])


def test_a_leaderboard_says_whom_it_cannot_rank(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    digits = rb.load_data("digits", samples=40)
    for name, attack, rows in (("one", "fgsm", slice(0, 20)), ("two", "noise", slice(20, 40))):
        run_with(digits[rows], ["logistic"], [attack], ["linf:0.1"], out=tmp_path / name)
    runs = [Results.open(tmp_path / name) for name in ("one", "two")]
    assert leaderboard(runs).empty
    assert "left out: logistic, linf:0.1, untargeted: no sample was met by all of its attacks" in caplog.text


def test_a_report_stands_where_nothing_was_right_and_names_are_no_formulas(tmp_path: Path) -> None:
    digits = rb.load_data("digits", samples=20)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(module[1].weight)
    module[1].bias.data[:] = torch.arange(10.0)
    model = TorchModel(module, (1, 8, 8), name="a$^{$b")
    one_class = digits[digits.y != 9]
    run_with(one_class, [model], ["noise"], ["linf:0.1"], out=tmp_path / "r")
    assert "a$^{$b" in (tmp_path / "r" / "report.html").read_text()
    rebuild([Results.open(tmp_path / "r")], ("png",))


def test_a_report_that_fails_takes_nothing_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustbench_lite.runs import run as runner

    def fails(*_: object) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr(runner, "rebuild", fails)
    result = run_with("digits", ["logistic"], ["fgsm"], ["linf:0.1"], 20, out=tmp_path)
    assert len(result.records) == 20


def test_serving_leaves_out_a_run_that_has_not_begun(tmp_path: Path) -> None:
    from click.testing import CliRunner

    (tmp_path / "stopped" / "records").mkdir(parents=True)
    said = CliRunner().invoke(main, ["serve", str(tmp_path)])
    assert said.exit_code == 2
    assert "left out" in said.output
    assert "no run in there" in said.output


def test_what_cannot_be_read_or_served_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from click.testing import CliRunner

    run_with("digits", ["logistic"], ["fgsm"], ["linf:0.1"], 20, out=tmp_path)
    said = CliRunner().invoke(main, ["serve", str(tmp_path), "--port", "70000"])
    assert said.exit_code == 2
    assert "port 70000" in said.output
    next((tmp_path / "pictures").iterdir()).write_bytes(b"PK no zip")
    with caplog.at_level(logging.WARNING):
        said = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert said.exit_code == 0  # one broken picture does not cost the page, and is named
    assert ".npz: cannot be read" in caplog.text


def test_a_classs_own_samples_are_left_out_of_every_rate() -> None:
    result = run_with("digits", ["logistic"], ["iterative"], ["linf:1"], 60, goals=["class:3"])
    assert result.table()["success"][0] == 1.0
    assert result.table("worst_case")["robust"][0] <= 1 - result.table()["clean"][0] + 1e-9
    assert 3 not in set(result.table("per_class")["label"])
    assert (result.records["target"] == 3).all()


def test_goals_have_curves_of_their_own(tmp_path: Path) -> None:
    goals = ["untargeted", "least_likely"]
    run_with("digits", ["logistic"], ["ddn:steps=20"], ["l2:min"], 30, goals=goals, out=tmp_path)
    folder = Results.open(tmp_path)
    titles = [title for _, title, _ in drawn(folder)]
    assert "Robust accuracy against eps, l2:min" in titles
    assert "Robust accuracy against eps, l2:min, least_likely" in titles
    assert ["(least_likely)" in said for said in verdict(folder)] == [False, True]


def test_all_samples_is_said_and_read_back(tmp_path: Path) -> None:
    run_with("digits", ["logistic"], ["fgsm"], ["linf:0.1"], None, out=tmp_path)
    config = read(tmp_path / "config.toml")
    assert make(config).samples is None
    assert "--samples all" in command(config)
    assert len(Results.open(tmp_path).records) > 300


def test_transfer_counts_only_points_that_were_sought() -> None:
    result = run_with("digits", ["logistic", "tree"], ["fgsm"], ["linf:0.1"], 100, transfer=True)
    table = result.table("transfer").set_index(["source", "target"])
    records = result.records
    own = {
        name: set(part.loc[part["clean_prediction"] == part["label"], "sample_id"])
        for name, part in records.loc[records["source_model"].isna()].groupby("model")
    }
    assert table.loc[("tree", "logistic"), "samples"] == len(own["tree"] & own["logistic"])
    assert isinstance(table, pd.DataFrame)


def test_points_that_nobody_moved_are_no_attack() -> None:
    """A sample that the source had wrong is handed on as it was: its target has met no attack by that."""
    result = run_with("digits", ["logistic", "tree"], ["fgsm"], ["linf:0.1"], 100, transfer=True)
    only = result.records.loc[lambda r: r["source_model"].notna()]
    worst = TABLES["worst_case"](only).set_index("model")
    unmoved = only.loc[(only["linf"] == 0) & (only["clean_prediction"] == only["label"])]
    assert worst["unattacked"].sum() == len(unmoved) > 0
