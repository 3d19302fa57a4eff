"""The laws that every model of the zoo obeys."""

import pytest

import robustbench_lite as rb
from robustbench_lite.testing import model_checks

ZOO = (
    "linear", "logistic", "svm", "linear_svm", "knn", "tree", "forest", "boosting", "mlp", "cnn", "lenet",
    "ensemble(cnn,svm,tree)", "transformed(cnn,rotation=15,noise=0.1)", "cnn:reject=9",
    "ensemble(svm:most=500,knn)",
)  # fmt: skip


@pytest.mark.parametrize("name", ZOO)
def test_laws(name: str) -> None:
    data = rb.load_data("digits", samples=8)
    for check in model_checks(rb.load_model(name, data), data.x):
        check()
