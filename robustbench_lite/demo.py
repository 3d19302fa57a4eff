"""`robust demo`: why linear models fall: many small moves add up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from robustbench_lite.api import attack
from robustbench_lite.core.structure import Linear
from robustbench_lite.data.load import load_data
from robustbench_lite.models.cache import Report
from robustbench_lite.models.load import load_model

X = (2.0, -1.0, 3.0, -2.0, 2.0, 2.0, 1.0, -4.0, 5.0, 1.0)
WEIGHTS = (-1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0)


@dataclass(frozen=True)
class Example:
    """Ten numbers before and after: x, w·x, and the probability of class 1 (a logistic model)."""

    before: tuple[float, ...]
    after: tuple[float, ...]
    scores: tuple[float, float]
    probabilities: tuple[float, float]


def ten_numbers(step: float = 0.5) -> Example:
    """Each input moved by `step` the way its weight points (Goodfellow et al. 2014, section 3)."""
    after = tuple(x + math.copysign(step, w) for x, w in zip(X, WEIGHTS, strict=True))
    scores = tuple(sum(a * w for a, w in zip(values, WEIGHTS, strict=True)) for values in (X, after))
    first, second = (1 / (1 + math.exp(-score)) for score in scores)
    return Example(X, after, (scores[0], scores[1]), (first, second))


@dataclass(frozen=True)
class ImageExample:
    """An image (H, W), its adversarial example, what the model says of each; gain: sum of |weights|."""

    image: torch.Tensor
    adversarial: torch.Tensor
    label: int
    prediction: int
    confidences: tuple[float, float]
    eps: float
    gain: float

    @property
    def shift(self) -> float:
        """How far the score can move: eps times the sum of |weights|."""
        return self.eps * self.gain


def image(eps: float = 0.1, report: Report = lambda what, fraction: None) -> ImageExample | None:
    """The same on a digit: softmax regression, every pixel moved by at most eps; None if no digit falls."""
    data = load_data("digits")
    model = load_model("logistic", data, report=report)
    result = attack(model, data.x, data.y, "linear_demo", f"linf:{eps}")
    records = result.records
    fallen = records.index[records["success"].astype(bool)]
    if not len(fallen):
        return None
    sure = records["adversarial_confidence"].to_numpy(dtype=float)
    row = max(fallen.tolist(), key=lambda i: sure[i])
    one = records.to_dict("records")[row]
    structure = model.structure
    assert isinstance(structure, Linear)
    prediction, label = int(one["adversarial_prediction"]), int(one["label"])
    return ImageExample(
        data.x[row, 0],
        result.adversarial[row, 0],
        label,
        prediction,
        (float(one["clean_confidence"]), float(one["adversarial_confidence"])),
        eps,
        float((structure.weight[prediction] - structure.weight[label]).abs().sum()),
    )
