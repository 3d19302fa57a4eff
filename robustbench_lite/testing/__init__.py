"""The public laws: checks that every attack, model, defense and threat obeys, to parametrise a test with.

>>> import pytest
>>> from robustbench_lite.testing import attack_checks
>>> check_mine = pytest.mark.parametrize("check", attack_checks("pgd:steps=5"), ids=str)
"""

from __future__ import annotations

from robustbench_lite.testing.attacks import attack_checks
from robustbench_lite.testing.check import Check
from robustbench_lite.testing.defenses import defense_checks
from robustbench_lite.testing.models import model_checks
from robustbench_lite.testing.threats import threat_checks

__all__ = ["Check", "attack_checks", "defense_checks", "model_checks", "threat_checks"]
