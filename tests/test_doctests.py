"""Every example in a docstring runs as it stands."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOMES = {"robustbench_lite": "", **{name: f"{name}." for name in ("attacks", "defenses", "reports")}}


def modules() -> list[str]:
    found = []
    for home, prefix in HOMES.items():
        for file in sorted((ROOT / home).rglob("*.py")):
            parts = file.relative_to(ROOT / home).with_suffix("").parts
            if not (home == "robustbench_lite" and parts[0] in HOMES) and ">>>" in file.read_text():
                found.append(f"robustbench_lite.{prefix}{'.'.join(p for p in parts if p != '__init__')}")
    return [name.rstrip(".") for name in found]


@pytest.mark.parametrize("name", modules())
def test_examples(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert tried > 0
    assert failed == 0
