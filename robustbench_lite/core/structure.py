"""What exact methods and certifiers know of a model: its parts, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Linear:
    """The structure of a linear model: scores = weight @ x.flatten() + bias.

    Parameters
    ----------
    weight : Tensor
        (K, d) float64.
    bias : Tensor
        (K,) float64.
    """

    weight: Tensor
    bias: Tensor

    def of_inputs(self, order: Tensor, unit: float) -> Linear:
        """The same of inputs divided by `unit`, whose feature i is this one's feature order[i]."""
        return Linear(self.weight[:, order] * unit, self.bias)

    def of_classes(self, order: Tensor) -> Linear:
        """The same with class i of the data its own class order[i]."""
        return Linear(self.weight[order], self.bias[order])


@dataclass(frozen=True)
class Boxes:
    """The structure of a tree: the prediction is label[i] for low[i] < x <= high[i].

    Parameters
    ----------
    low, high : Tensor
        (m, d) float32.
    label : Tensor
        (m,) classes.
    """

    low: Tensor
    high: Tensor
    label: Tensor

    def of_inputs(self, order: Tensor, unit: float) -> Boxes:
        """As in `Linear`."""
        return Boxes(self.low[:, order] / unit, self.high[:, order] / unit, self.label)

    def of_classes(self, order: Tensor) -> Boxes:
        """As in `Linear`."""
        return replace(self, label=order.argsort()[self.label])


@dataclass(frozen=True)
class Trees:
    """The structure of a sum of trees: scores = start + the sum over trees of value[leaf].

    The nodes of all trees stand in one table. A sample goes left where x[feature] <= threshold, else to
    left + 1; a leaf leads to itself.

    Parameters
    ----------
    feature, left : Tensor
        (m,) int64.
    threshold : Tensor
        (m,) float32.
    value : Tensor
        (m, K) float64.
    roots : Tensor
        (T,).
    start : Tensor
        (K,) float64.
    rank : Tensor
        (K,): of classes whose scores are equal that of the lowest rank wins.
    rounding : float
        What the model's own sums may be off by; 0: they are exact.
    """

    feature: Tensor
    left: Tensor
    threshold: Tensor
    value: Tensor
    roots: Tensor
    start: Tensor
    rank: Tensor
    rounding: float

    def leaves(self, x: Tensor) -> Tensor:
        """The node that each row of x (n, d) ends at in every tree (n, T)."""
        node = self.roots.expand(len(x), -1)
        while True:
            left = self.left[node]
            right = (x.gather(1, self.feature[node]) > self.threshold[node]) & (left != node)
            below = left + right.long()
            if bool((below == node).all()):
                return node
            node = below

    def to(self, device: torch.device | str) -> Trees:
        """The same on another device."""
        held = {name: part.to(device) for name, part in vars(self).items() if isinstance(part, Tensor)}
        return replace(self, **held)  # type: ignore[arg-type]

    def of_inputs(self, order: Tensor, unit: float) -> Trees:
        """As in `Linear`."""
        return replace(self, feature=order.argsort()[self.feature], threshold=self.threshold / unit)

    def of_classes(self, order: Tensor) -> Trees:
        """As in `Linear`."""
        return replace(self, value=self.value[:, order], start=self.start[order], rank=self.rank[order])


@dataclass(frozen=True)
class Neighbours:
    """The structure of nearest neighbours: a vote of the k stored samples nearest to matrix @ x + offset.

    Parameters
    ----------
    stored : Tensor
        (N, m) float64; Euclidean distances.
    labels : Tensor
        (N,) classes; each of the k votes counts the same.
    classes : int
    k : int
    matrix : Tensor
        (m, d) float64.
    offset : Tensor
        (m,) float64.
    """

    stored: Tensor
    labels: Tensor
    classes: int
    k: int
    matrix: Tensor
    offset: Tensor

    def of_inputs(self, order: Tensor, unit: float) -> Neighbours:
        """As in `Linear`."""
        return replace(self, matrix=self.matrix[:, order] * unit)

    def of_classes(self, order: Tensor) -> Neighbours:
        """As in `Linear`."""
        return replace(self, labels=order.argsort()[self.labels])


@dataclass(frozen=True)
class Kernel:
    """The structure of a support vector machine with a Gaussian kernel of matrix @ x + offset.

    Pair p decides sum_m coefficients[m, p] exp(-gamma |vectors[m] - z|²) + intercept[p]: above 0 it votes
    for its first class, else for its second; the class of most votes wins, the first of equals.

    Parameters
    ----------
    vectors : Tensor
        (m, f) float64.
    coefficients : Tensor
        (m, P) float64.
    intercept : Tensor
        (P,) float64.
    first, second : Tensor
        (P,) classes.
    classes : int
    gamma : float
    matrix : Tensor
        (f, d) float64.
    offset : Tensor
        (f,) float64.
    """

    vectors: Tensor
    coefficients: Tensor
    intercept: Tensor
    first: Tensor
    second: Tensor
    classes: int
    gamma: float
    matrix: Tensor
    offset: Tensor

    def of_inputs(self, order: Tensor, unit: float) -> Kernel:
        """As in `Linear`."""
        return replace(self, matrix=self.matrix[:, order] * unit)

    def of_classes(self, order: Tensor) -> Kernel:
        """As in `Linear`."""
        return replace(self, first=order.argsort()[self.first], second=order.argsort()[self.second])


@dataclass(frozen=True)
class Step:
    """One step of a network: what it does to the results of earlier steps, 0 being the input.

    Parameters
    ----------
    kind : {"affine", "relu", "add"}
    inputs : tuple of int
        The steps it takes.
    affine : callable, optional
        Of an affine step: (n, …) -> (n, …).
    magnitude : callable, optional
        The same with every factor made positive and nothing added.
    slope : float, default 0.0
        Of a ReLU below zero, in [0, 1].
    """

    kind: str
    inputs: tuple[int, ...]
    affine: Callable[[Tensor], Tensor] | None = None
    magnitude: Callable[[Tensor], Tensor] | None = None
    slope: float = 0.0


@dataclass(frozen=True)
class Product:
    """x -> matrix @ x.flatten() + offset."""

    matrix: Tensor
    offset: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, …) -> (n, m)."""
        return x.flatten(1) @ self.matrix.T + self.offset

    def step(self, source: int) -> Step:
        """As a step of a network."""
        return Step("affine", (source,), self, Product(self.matrix.abs(), 0 * self.offset))


@dataclass(frozen=True)
class Taken:
    """x -> its features in another order, times a unit, in a shape."""

    order: Tensor
    unit: float
    shape: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, …) -> (n, *shape)."""
        return (x.flatten(1)[:, self.order] * self.unit).reshape(-1, *self.shape)

    def step(self, source: int) -> Step:
        """As a step of a network."""
        return Step("affine", (source,), self, self)


@dataclass(frozen=True)
class Layers:
    """The structure of a feed-forward network: its steps in order, the last one giving the scores.

    Parameters
    ----------
    steps : tuple of Step
    shape : tuple of int
        Of one input.
    classes : int
    dtype : torch.dtype
        Of its steps' numbers.
    device : torch.device
    """

    steps: tuple[Step, ...]
    shape: tuple[int, ...]
    classes: int
    dtype: torch.dtype
    device: torch.device

    def of_classes(self, order: Tensor) -> Layers:
        """As in `Linear`."""
        last = Taken(order, 1.0, (len(order),)).step(len(self.steps))
        return replace(self, steps=(*self.steps, last))

    def of_inputs(self, order: Tensor, unit: float) -> Layers:
        """As in `Linear`."""
        first = Taken(order.argsort(), unit, self.shape).step(0)
        later = (replace(step, inputs=tuple(i + 1 for i in step.inputs)) for step in self.steps)
        return replace(self, steps=(first, *later))


def outcome(step: Step, values: Sequence[Tensor]) -> Tensor:
    """The result of a step, from those of the input and all earlier ones."""
    first = values[step.inputs[0]]
    if step.kind == "affine":
        assert step.affine is not None
        return step.affine(first)
    if step.kind == "relu":
        return torch.where(first > 0, first, step.slope * first)
    return first + values[step.inputs[1]]


def outcomes(layers: Layers, x: Tensor) -> list[Tensor]:
    """The input (n, …) and the result of every step."""
    values = [x]
    for step in layers.steps:
        values.append(outcome(step, values))
    return values


@dataclass(frozen=True)
class Noise:
    """A vote of noisy copies of the input.

    sigma: standard deviation of the Gaussian noise; classes: how many may win.
    """

    sigma: float
    classes: int

    def of_inputs(self, order: Tensor, unit: float) -> Noise:
        """The same of inputs in another order and unit."""
        return replace(self, sigma=self.sigma / unit)

    def of_classes(self, order: Tensor) -> Noise:
        """The same with the classes in another order."""
        return self


Structure = Linear | Boxes | Trees | Neighbours | Kernel | Layers | Noise
SOLVED = (Linear, Boxes, Trees, Neighbours)  # whose nearest adversarial examples can be computed
