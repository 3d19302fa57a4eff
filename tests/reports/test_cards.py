"""The first screen: what is proven to what is left, and of whom nothing was learnt."""

from pathlib import Path

import pytest

from robustbench_lite.reports.findings import verdict, weakly_attacked
from robustbench_lite.reports.page.cards import cards, main_threat
from robustbench_lite.reports.results import Results
from tests.conftest import run_with


def test_a_card_a_model_and_no_praise_for_what_a_stand_in_attacked(tmp_path: Path) -> None:
    models = ["linear", "svm", "tree", "cnn"]
    run_with("digits", models, ["noise", "exact", "iterative"], ["linf:0.1", "l2:min"], 60, out=tmp_path)
    results = Results.open(tmp_path)
    assert main_threat(results) == ("linf:0.1", "untargeted")
    shown = {card.model: card for card in cards(results)}
    assert list(shown) == models
    worst = results.table("worst_case").set_index("model")
    for model, card in shown.items():
        assert card.robust == pytest.approx(100 * worst["robust"][model])
        assert card.proven <= card.robust + 1e-9
        assert card.before.startswith("data:image/png")
    assert shown["tree"].proven == pytest.approx(shown["tree"].robust)
    assert [model for model, card in shown.items() if card.weak] == ["svm"]
    assert worst["robust"]["svm"] == worst["robust"].max()
    said = " ".join(verdict(results))
    assert "svm keeps most" not in said
    assert "svm's" in said
    page = (tmp_path / "report.html").read_text()
    assert "met only attacks too weak for it" in page
    assert page.index('class="models"') < page.index('class="verdict"')


def test_an_attack_that_needs_no_gradient_is_enough(tmp_path: Path) -> None:
    weak = run_with("digits", ["svm"], ["noise", "fgsm", "pgd:steps=3"], ["linf:0.1"], 30)
    enough = run_with("digits", ["svm"], ["noise", "square:steps=50"], ["linf:0.1"], 30)
    assert weakly_attacked(weak, "svm", "linf:0.1")
    assert not weakly_attacked(enough, "svm", "linf:0.1")
    assert "met only attacks too weak" in verdict(weak)[0]
