"""The laws that every defense obeys."""

import pytest

from robustbench_lite.defenses import DEFENSES
from robustbench_lite.testing import defense_checks

BASES = {"robust_trees": "boosting,rounds=4,depth=2", "dual_norm": "logistic", "adversarial_pruning": "knn"}
SHORT = "conv_small,epochs=1"


def text_of(name: str) -> str:
    """A defense around a base that it fits, as short as may be."""
    trained = name.endswith("training") or name in (
        "trades", "mart", "mixup", "cutout", "label_smoothing", "distillation", "thermometer",
    )  # fmt: skip
    return f"{name}({BASES.get(name, SHORT if trained else 'conv_small')})"


@pytest.mark.parametrize("name", list(DEFENSES))
def test_laws(name: str) -> None:
    for check in defense_checks(text_of(name)):
        check()
