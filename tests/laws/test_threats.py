"""The laws that every threat obeys."""

import pytest

from robustbench_lite.core.registry import entries
from robustbench_lite.testing import Check, threat_checks
from tests.conftest import hold, together

SIZES = (
    "linf:0.3", "l2:0.8", "l1:2", "patch:2x3", "rotation:30,shift=0.2,scale=0.3", "affine:0.3",
    "flow:1.5,grid=4", "wasserstein:0.4", "color:0.4", "negative:0.8", "blur:1.2", "fog:0.7,grid=4",
    "snow:0.8", "rain:0.8", "patch:3x2,eps=0.2,top=1,left=2", "rotation:20,scale=0.2",
    "rotation:10+linf:0.1", "fog:0.5,grid=3+color:0.2",
)  # fmt: skip
# The box has no size, and l0 is no set whose points lie between others: both have tests of their own.
CHECKS = [check for text in SIZES for check in threat_checks(text)]


@pytest.mark.parametrize(("what", "checks"), together(CHECKS))
def test_laws(what: str, checks: list[Check]) -> None:
    hold(checks)


def test_no_threat_is_left_out() -> None:
    assert {text.partition(":")[0] for text in SIZES} | {"box", "l0"} == set(entries("threats"))
