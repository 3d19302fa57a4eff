"""A config: one description, the same from TOML, flags and Python; every setting in one place."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

import robustbench_lite as rb
from robustbench_lite.cli.main import main
from robustbench_lite.core.errors import RobustError
from robustbench_lite.core.settings import Search
from robustbench_lite.runs.config import Config, as_toml, check_names, make, read
from robustbench_lite.runs.suite import read_suite, suites
from tests.conftest import run_with


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    config = make({"seed": 3, "budget": 50, "samples": "all", "precision": "float32", "compile": False})
    said = {"seed": 3, "budget": 50, "precision": "float32", "compile": False}
    assert config.search == Search(**said, certify=0.25)  # which the suite says  # type: ignore[arg-type]
    (tmp_path / "c.toml").write_text(as_toml(config, {"device": "cpu"}))
    assert make(read(tmp_path / "c.toml")) == config


def test_every_setting_is_a_flag_with_its_help_and_a_name_in_a_file() -> None:
    shown = CliRunner().invoke(main, ["run", "--help"]).output
    for setting in fields(Search):
        assert f"--{setting.name.replace('_', '-')}" in shown
        assert setting.metadata["help"].split()[0] in shown
        value = {"bool": True, "int": 3, "str": "cpu"}.get(str(setting.type))
        if value is not None:
            assert getattr(make({setting.name: value}).search, setting.name) == value


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(RobustError, match=r"budget = -1.*|samples.*") as told:
        make({"budget": -1, "samples": 0, "nonsense": 1})
    for word in ("budget", "samples", "nonsense"):
        assert word in str(told.value)
    with pytest.raises(RobustError, match="precision: input should be 'auto'"):
        make({"precision": "half"})


def test_the_lectures_are_the_default() -> None:
    assert Config().models == ("linear", "logistic", "svm", "knn", "tree", "cnn")
    met = {cell.attack.partition(":")[0] for cell in Config().cells}
    assert met >= {"linear_demo", "fgsm", "iterative", "one_pixel", "universal", "fooling", "noise", "exact"}


def test_lists_and_a_suite_exclude_each_other_and_lists_complete_each_other() -> None:
    with pytest.raises(RobustError, match="a suite says its own attacks"):
        make({"suite": "quick", "attacks": ["pgd"]})
    only = make({"attacks": ["pgd"]})
    assert [(cell.attack, cell.threat) for cell in only.cells] == [("pgd", "linf:0.1"), ("pgd", "l2:1")]
    with pytest.raises(RobustError, match="attacks = "):
        make({"attacks": []})


def test_a_suite_is_a_file_of_the_package_or_of_the_user(tmp_path: Path) -> None:
    known = {"corruptions", "defenses", "detectors", "lectures", "papers", "quick", "standard"}
    assert set(suites()) == known
    for name in suites():
        check_names(make({"suite": name}))
        assert read_suite(name).summary
    mine = tmp_path / "mine.toml"
    mine.write_text('models = ["linear"]\n[[cells]]\nattack = "noise"\nthreat = "linf:0.1"\nsamples = 7\n')
    result = run_with(suite=str(mine), samples=20)
    assert len(result.records) == 7
    assert set(result.records["sample_id"]) < set(rb.load_data("digits", samples=20).ids.tolist())
    mine.write_text('[[cells]]\nattack = "noise"\n')
    with pytest.raises(RobustError, match=r"cells\.0\.threat: field required"):
        make({"suite": str(mine)})
    with pytest.raises(RobustError, match="did you mean quick"):
        make({"suite": "quik"})


def test_help_starts_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c",
         "from robustbench_lite.cli.main import main; main(['--help'], standalone_mode=False)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert " torch" not in done.stderr
    assert "numpy" not in done.stderr


def test_a_switch_is_no_number() -> None:
    for name in ("seed", "budget", "time_limit"):
        with pytest.raises(RobustError, match=f"{name} = true"):
            make({name: True})
    assert make({"compile": True, "eight_bit": True}).search.compile
    with pytest.raises(RobustError, match=r"budget = 9+: must be below"):
        make({"budget": 99999999999999999999})
