"""A leaderboard that a group can keep: claims are judged again before they count."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import robustbench_lite as rb
from robustbench_lite.cli.main import main
from robustbench_lite.core.npz import read_arrays, write_arrays
from robustbench_lite.reports.leaderboard import leaderboard
from robustbench_lite.reports.page.board import board
from robustbench_lite.runs import verify as verifying
from tests.conftest import run_with


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs of the same models, the stronger by somebody."""
    home = tmp_path / "runs"
    for name, attack, author in (("weak", "noise", ""), ("strong", "pgd:steps=10", "<i>Ada</i>")):
        run_with("digits", ["logistic", "svm"], [attack], ["linf:0.1"], 40, out=home / name, author=author)
    return home


def command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def test_claims_count_once_they_are_judged_again(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = command("leaderboard", runs, "--verify", "--json")
    assert answer.exit_code == 0
    both = json.loads(answer.stdout)
    assert {row["name"] for row in both} == {"svm", "logistic"}
    verdicts = json.loads((tmp_path / "verdicts.json").read_text())["of"]
    assert len(verdicts) == 2
    assert sum(one["refuted"] + one["unjudged"] for one in verdicts.values()) == 0

    def judged(*things: object) -> pd.DataFrame:
        raise AssertionError("what was judged before is not judged again")

    real = verifying.verify_run
    monkeypatch.setattr(verifying, "verify_run", judged)
    assert command("leaderboard", runs, "--verify", "--json").stdout == answer.stdout

    monkeypatch.setattr(verifying, "verify_run", real)
    for file in (runs / "strong" / "adversarial").glob("*.npz"):
        arrays = read_arrays(file)
        arrays["adversarial"] = np.clip(arrays["adversarial"] + 0.3, 0, 1)
        write_arrays(file, arrays)
    forged = command("leaderboard", runs, "--verify", "--json")
    assert f"left out: {runs / 'strong'}: 0 claims confirmed" in forged.stderr
    kept = json.loads(forged.stdout)
    robust = [{row["name"]: float(row["external"]) for row in rows} for rows in (both, kept)]
    assert all(robust[1][name] > robust[0][name] for name in robust[0]), (
        "what only it had broken is not counted"
    )


def test_the_page_says_who_when_and_what(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "board" / "index.html"
    answer = command("leaderboard", runs, "--verify", "--verdicts", tmp_path / "v.json", "--html", file)
    assert answer.exit_code == 0
    page = file.read_text()
    assert "&lt;i&gt;Ada&lt;/i&gt;" in page
    assert "<i>Ada" not in page
    assert "weak, strong" in page or "strong, weak" in page
    assert "claims" in page
    assert page.count("<h2>digits, linf:0.1</h2>") == 1
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    unasked = command("leaderboard", runs, "--html", file)
    assert unasked.exit_code == 0
    assert "not judged again" in file.read_text()


def test_two_models_of_one_name_are_two(tmp_path: Path) -> None:
    for seed in (0, 1):
        run_with("digits", ["tree"], ["exact"], ["linf:0.1"], 30, out=tmp_path / f"run{seed}", seed=seed)
    results = [rb.Results.open(tmp_path / f"run{seed}") for seed in (0, 1)]
    assert set(leaderboard(results)["model"]) == {"tree (run0)", "tree (run1)"}
    assert leaderboard(results[:1])["model"].tolist() == ["tree"]
    assert "tree (run1)" in board(leaderboard(results), [])


def test_two_runs_of_one_name_are_two_and_what_cannot_be_read_is_left_out(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("alice", "bob"):
        (tmp_path / name).mkdir()
        shutil.copytree(runs / "strong", tmp_path / name / "run1")
    for file in (tmp_path / "bob" / "run1" / "adversarial").glob("*.npz"):
        arrays = read_arrays(file)
        write_arrays(file, {**arrays, "adversarial": 0 * arrays["adversarial"]})
    shutil.copytree(runs / "weak", tmp_path / "alice" / "old")
    (tmp_path / "alice" / "old" / "notes.json").write_text('{"version": 1}')
    file = tmp_path / "board.html"
    answer = command("leaderboard", tmp_path / "alice", tmp_path / "bob", "--verify", "--html", file)
    assert answer.exit_code == 0
    assert f"left out: {tmp_path / 'bob' / 'run1'}: 0 claims confirmed" in answer.stderr
    assert "this release reads" in answer.stderr
    results = [rb.Results.open(tmp_path / name / "run1") for name in ("alice", "bob")]
    assert set(leaderboard(results)["runs"]) == {"alice/run1, bob/run1"}
    held = leaderboard(results[:1], {tmp_path / "alice" / "run1": 5})
    assert held["verified"].unique().tolist() == ["5 claims"]
    assert held["proven"].isna().all(), "what was proven is not proven again"


def test_an_empty_folder_is_refused_in_a_line(tmp_path: Path) -> None:
    answer = command("leaderboard", tmp_path)
    assert answer.exit_code == 2
    assert "no run in there" in answer.stderr
