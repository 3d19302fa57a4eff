"""The model zoo: one file a family; `load_model` takes names, modules and functions."""

from __future__ import annotations

from robustbench_lite.core.registry import Entry


def _entry(name: str, where: str, summary: str, access: str, paper: str = "") -> tuple[str, Entry]:
    return name, Entry(name, f"robustbench_lite.models.{where}", summary, access, "", paper)


MODELS: dict[str, Entry] = dict(
    [
        _entry("linear", "linear:train_linear", "least squares on one-hot targets", "structure"),
        _entry("logistic", "linear:train_logistic", "softmax regression", "structure"),
        _entry("cnn", "networks:train_cnn", "small residual network that adapts to the image", "gradient"),
    ]
)
