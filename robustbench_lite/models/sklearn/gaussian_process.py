"""Gaussian process classifiers: their covariances, and the class probabilities that come of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from sklearn.base import BaseEstimator
from sklearn.gaussian_process import kernels
from torch import Tensor

from robustbench_lite.models.sklearn.forests import CannotLift
from robustbench_lite.models.sklearn.lifted import Core, Holds

ROOM = 1 << 23  # numbers held at once
# A logistic function as a sum of five error functions (Williams & Barber 1998): steepness and weight of each.
STEEPNESS = (0.41, 0.4, 0.37, 0.44, 0.39)
WEIGHT = (-1854.8214151, 3516.89893646, 221.29346712, 128.12323805, -2010.49422654)


class Covariance(Holds, ABC):
    """How much values at two places have in common."""

    @abstractmethod
    def between(self, a: Tensor, b: Tensor) -> Tensor:
        """Of places (n, d) and others (m, d): (n, m)."""

    @abstractmethod
    def at(self, a: Tensor) -> Tensor:
        """Of places (n, d) with themselves (n,)."""


@dataclass(frozen=True)
class Together(Covariance):
    """The sum of two, or their product."""

    first: Covariance
    second: Covariance
    product: bool

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        one, other = self.first.between(a, b), self.second.between(a, b)
        return one * other if self.product else one + other

    def at(self, a: Tensor) -> Tensor:
        one, other = self.first.at(a), self.second.at(a)
        return one * other if self.product else one + other


@dataclass(frozen=True)
class Power(Covariance):
    """Another one to a power."""

    base: Covariance
    exponent: float

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return self.base.between(a, b) ** self.exponent

    def at(self, a: Tensor) -> Tensor:
        return self.base.at(a) ** self.exponent


@dataclass(frozen=True)
class Constant(Covariance):
    """The same everywhere; alone: only of a place with itself, which noise is."""

    value: float
    alone: bool

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return a.new_full((len(a), len(b)), 0.0 if self.alone else self.value)

    def at(self, a: Tensor) -> Tensor:
        return a.new_full((len(a),), self.value)


@dataclass(frozen=True)
class Product(Covariance):
    """The scalar product and a constant."""

    constant: float

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b.T + self.constant

    def at(self, a: Tensor) -> Tensor:
        return a.square().sum(1) + self.constant


@dataclass(frozen=True)
class Distance(Covariance):
    """A function of the Euclidean distance in lengths (1 or d); kind as scikit-learn calls it.

    shape: the smoothness of `matern` (0.5, 1.5, 2.5), the mixture of `quadratic`, the period of `periodic`.
    """

    kind: str
    length: Tensor
    shape: float

    def between(self, a: Tensor, b: Tensor) -> Tensor:
        one, other = (a, b) if self.kind == "periodic" else (a / self.length, b / self.length)
        squared = (one[:, None] - other).square().sum(2)
        if self.kind == "gauss":
            return (-squared / 2).exp()
        if self.kind == "quadratic":
            return (1 + squared / (2 * self.shape)) ** -self.shape
        # The root of 0 has no derivative; beside it the function is flat or has a tip.
        distance = torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0)
        if self.kind == "periodic":
            return (-2 * ((math.pi / self.shape * distance).sin() / self.length).square()).exp()
        far = math.sqrt(2 * self.shape) * distance
        grown = {0.5: torch.ones_like(far), 1.5: 1 + far, 2.5: 1 + far + far.square() / 3}[self.shape]
        return grown * (-far).exp()

    def at(self, a: Tensor) -> Tensor:
        return a.new_ones(len(a))


def covariance_of(kernel: kernels.Kernel) -> Covariance:
    """A fitted kernel of scikit-learn; raises `CannotLift` for one that is not among those above."""
    if isinstance(kernel, kernels.Sum | kernels.Product):
        first, second = covariance_of(kernel.k1), covariance_of(kernel.k2)
        return Together(first, second, isinstance(kernel, kernels.Product))
    if isinstance(kernel, kernels.Exponentiation):
        return Power(covariance_of(kernel.kernel), float(kernel.exponent))
    if isinstance(kernel, kernels.ConstantKernel):
        return Constant(float(kernel.constant_value), alone=False)
    if isinstance(kernel, kernels.WhiteKernel):
        return Constant(float(kernel.noise_level), alone=True)
    if isinstance(kernel, kernels.DotProduct):
        return Product(float(kernel.sigma_0) ** 2)
    if isinstance(kernel, kernels.Matern) and kernel.nu in (0.5, 1.5, 2.5):  # a kind of RBF to scikit-learn
        return Distance("matern", _length(kernel.length_scale), float(kernel.nu))
    if isinstance(kernel, kernels.RBF) and getattr(kernel, "nu", math.inf) == math.inf:
        return Distance("gauss", _length(kernel.length_scale), 0.0)
    if isinstance(kernel, kernels.RationalQuadratic):
        return Distance("quadratic", _length(kernel.length_scale), float(kernel.alpha))
    if isinstance(kernel, kernels.ExpSineSquared):
        return Distance("periodic", _length(kernel.length_scale), float(kernel.periodicity))
    raise CannotLift(f"a Gaussian process with the kernel {kernel} has no lift")


@dataclass(frozen=True)
class ProcessCore(Core):
    """Laplace's approximation to a process for two classes (Rasmussen & Williams 2006, algorithm 3.2).

    Parameters
    ----------
    stored : Tensor
        (N, d).
    pull : Tensor
        (N,): what each adds to the process, which is above 0 for the second class.
    root, factor : Tensor
        (N,) and (N, N) lower triangular: how uncertain that is.
    covariance : Covariance
    """

    stored: Tensor
    pull: Tensor
    root: Tensor
    factor: Tensor
    covariance: Covariance

    family = "gaussian process"

    @classmethod
    def of(cls, estimator: BaseEstimator) -> ProcessCore:
        """Of scikit-learn's process for two classes."""
        parts = (estimator.X_train_, estimator.y_train_ - estimator.pi_, estimator.W_sr_, estimator.L_)
        stored, pull, root, factor = (torch.as_tensor(part).double() for part in parts)
        return cls(stored, pull, root, factor, covariance_of(estimator.kernel_))

    def scores(self, z: Tensor) -> Tensor:
        process = self._between(z) @ self.pull
        return torch.stack([torch.zeros_like(process), process], 1)

    def shares(self, z: Tensor) -> Tensor:
        """What `predict_proba` gives (n, 2)."""
        between = self._between(z)
        process = between @ self.pull
        known = torch.linalg.solve_triangular(self.factor, self.root[:, None] * between.T, upper=False)
        variance = (self.covariance.at(z) - known.square().sum(0)).clamp_min(1e-12)
        steep, weight = (process.new_tensor(values)[:, None] for values in (STEEPNESS, WEIGHT))
        half = 1 / (2 * variance)
        reach = (math.pi / half).sqrt() * torch.erf(steep * process * (half / (half + steep**2)).sqrt())
        share = (weight * reach / (2 * (2 * math.pi * variance).sqrt())).sum(0) + sum(WEIGHT) / 2
        return torch.stack([1 - share, share], 1)

    def _between(self, z: Tensor) -> Tensor:
        """What places (n, d) have in common with those stored (n, N)."""
        parts = torch.split(z, max(1, ROOM // self.stored.numel()))
        return torch.cat([self.covariance.between(part, self.stored) for part in parts])


def _length(scale: object) -> Tensor:
    return torch.as_tensor(scale).double().reshape(-1)
