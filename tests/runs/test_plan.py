"""Plans: what is done once, and what is told apart."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.jobs.make import told_apart
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.runs.suite import every
from tests.conftest import (
    attack_with,
    run_with,
    samples_of,
    small_network,
)


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
    together = run_with(data, both, [attack], ["linf:0.2"], out=tmp_path / "r").table()
    assert together["model"].tolist() == ["Sequential", "Sequential#2"]
    alone = [run_with(data, [module], [attack], ["linf:0.2"]).table()["success"][0] for module in both]
    assert together["success"].tolist() == alone
    assert len(list((tmp_path / "r" / "learnt").iterdir())) == 2


def test_only_what_the_limit_cut_off_says_so() -> None:
    result = run_with(
        "digits", ["logistic", "tree"], ["fgsm"], ["linf:0.1"], 60, transfer=True, time_limit=600
    )
    assert result.records["reason"].isna().all()
    x, y = samples_of(small_network(), 20)
    late = attack_with(small_network(), x, y, "pgd", "linf:0.1", time_limit=1e-9)
    assert (late.records["reason"] == "not attacked: a limit was reached").all()


def test_what_is_given_twice_is_counted_once() -> None:
    twice = run_with(
        "digits", ["logistic", "logistic"], ["fgsm", "fgsm"], ["linf:0.1", "linf:1/10"], 30,
        goals=["untargeted", "untargeted"],
    )  # fmt: skip
    once = run_with("digits", ["logistic"], ["fgsm"], ["linf:0.1"], 30)
    assert len(twice.records) == len(once.records) == 30
    assert twice.table("worst_case")["robust"].tolist() == once.table("worst_case")["robust"].tolist()
    assert any("given twice" in note for note in twice.notes)


def test_three_slices_that_fail_leave_three_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad and x[0].any():
                raise RuntimeError("no gradients today")
            scores: Tensor = self.inner(x.flatten(1))
            return scores

    monkeypatch.setattr("robustbench_lite.runs.plan.MOST", 15)
    result = run_with("digits", [Failing()], ["fgsm"], ["linf:0.1"], 40)
    assert len(result.failures) == 3
    assert "Failing × fgsm × linf:0.1, samples 15 to 29" in result.failures


def test_all_of_a_users_own_samples_are_taken() -> None:
    x, y = torch.rand(700, 1, 8, 8), torch.arange(700) % 10
    result = rb.run((x, y), [nn.Sequential(nn.Flatten(), nn.Linear(64, 10))], ["noise:steps=0"], ["linf:0.1"])
    assert len(result.records) == 700
    some = rb.run((x, y), [nn.Sequential(nn.Flatten(), nn.Linear(64, 10))], ["noise:steps=0"],
                  ["linf:0.1"], config=rb.Config(samples=50))  # fmt: skip
    assert len(some.records) == 50


def test_names_of_live_things_run_here_and_are_keyed_by_what_they_are(tmp_path: Path) -> None:
    from robustbench_lite.runs.plan import Subject, plan

    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    config = rb.Config(samples=10)
    made = plan(config, Subject("digits", [network], every(["fgsm"], ["linf:0.1"], ["untargeted"])))
    assert made.jobs[0].model.startswith("object:")
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    again = plan(config, Subject("digits", [other], every(["fgsm"], ["linf:0.1"], ["untargeted"])))
    assert made.jobs[0].key() != again.jobs[0].key()
    same = plan(config, Subject("digits", [network], every(["fgsm"], ["linf:0.1"], ["untargeted"])))
    assert made.jobs[0].key() == same.jobs[0].key()


def test_one_search_is_judged_on_every_other_model() -> None:
    from robustbench_lite.runs.plan import Subject, plan

    config = rb.Config(samples=10, transfer=True)
    made = plan(
        config,
        Subject("digits", ["logistic", "linear", "tree"], every(["fgsm"], ["linf:0.1"], ["untargeted"])),
    )
    assert len(made.jobs) == 3
    assert [other.name for other in made.jobs[0].others] == ["linear", "tree"]


def test_points_of_other_models_count_in_the_worst_case_aloud() -> None:
    result = run_with("digits", ["logistic", "linear"], ["fgsm"], ["linf:0.15"], 60, transfer=True)
    worst = result.table("worst_case").set_index("model")
    own = result.table("summary").set_index("model")
    gap = own["robust"] - worst["robust"]
    assert (gap >= -1e-9).all()
    for name in ("logistic", "linear"):
        assert gap[name] == pytest.approx(worst.loc[name, "by_transfer"])


def test_threats_that_are_written_alike_but_differ_in_their_domain_are_two() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :2] = True
    threats = [rb.parse_threat("linf:0.3", domain) for domain in (rb.Domain(), rb.Domain(mask=mask))]
    both = run_with("digits", ["logistic"], ["fgsm"], threats, 30).records
    assert len(both) == 60
    assert both["success"][:30].sum() > both["success"][30:].sum()


def test_no_two_models_share_a_name() -> None:
    named = [TorchModel(nn.Linear(4, 2), (4,), name=name) for name in ("a", "a", "a#2", "a")]
    names = told_apart(named)
    assert names == ["a", "a#2", "a#2#2", "a#3"]


def test_a_threat_as_wide_as_the_box_is_told_everywhere() -> None:
    told = "linf:8 is as wide as the box, so that anything goes: was it meant in other units?"
    digits = rb.load_data("digits", samples=5)
    assert told in rb.attack("linear", digits.x, digits.y, "fgsm", "linf:8").notes
    assert told in run_with("digits", ["linear"], ["fgsm"], ["linf:8"], 5).notes
    large = rb.parse_threat("linf:8", rb.Domain(0.0, 255.0))
    x = digits.x * 255
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert not any("wide" in note for note in rb.attack(net, x, digits.y, "fgsm", large).notes)
    assert not any("wide" in note for note in rb.attack("linear", digits.x, digits.y, "fgsm", "l2:8").notes)
