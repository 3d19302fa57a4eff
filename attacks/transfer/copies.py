"""Momentum attacks whose gradient is a mean over changed copies of the input, so that it holds elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.attacks.fixed_budget.mifgsm import MIFGSM
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.model import Model, reference_precision
from robustbench_lite.core.parameters import Amount, Count, Fraction, NonNegative, Probability
from robustbench_lite.core.problem import Pool, Problem
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Threat
from robustbench_lite.search.attack import Schedule


@dataclass(frozen=True)
class CopiesFGSM(MIFGSM):
    """`mifgsm` on changed copies of the input; what the named attacks have in common.

    Each copy is a linear map of the iterate, and its gradient goes back through that map. All of it may be
    mixed: `difgsm:scales=5,kernel=7` is SI-TI-DI-MI-FGSM.

    Parameters
    ----------
    steps : int, default 10
        How many, each of eps / steps.
    decay : float, default 1.0
        Of the sum of gradients at each step.
    lookahead : bool, default False
        Take the gradient where the sum would lead next.
    diversity : float, default 0.0
        The probability that a copy is shrunk and moved at random (Xie et al. 2019, section 3.4).
    shrink : float, default 0.9
        The least size of such a copy, as a share of the image's.
    scales : int, default 1
        Copies at full, half, a quarter … of the values (Lin et al. 2020, equation 8).
    kernel : int, default 0
        The side of the Gaussian that smooths the gradient (Dong et al. 2019, equation 9); 0: none.

    Notes
    -----
    Cost: scales · steps forward and backward passes, and one forward.

    Examples
    --------
    >>> DIFGSM(kernel=7).diversity
    0.5
    """

    diversity: Probability = 0.0
    shrink: Fraction = 0.9
    scales: Count = 1
    kernel: Amount = 0

    threats = frozenset({"ball"})

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        if (self.diversity or self.kernel) and len(model.input_shape) != 3:
            return f"{self.name} moves images (C, H, W); {model.name} takes {model.input_shape}"
        return super().refuses(model, threat, goal)

    def schedule(self, model: Model, threat: Threat) -> Schedule:
        return Schedule(self.steps, points=self.copies(), passes=2 * self.steps * self.copies())

    def copies(self) -> int:
        """How many stand for a point."""
        return self.scales

    def slope(self, problem: Problem, x: Tensor) -> Tensor:
        copies = self.copies()
        wide = replace(problem.in_lanes(copies), explore=problem.explore and copies == 1)
        with torch.enable_grad():
            leaf = x.repeat_interleave(copies, 0).requires_grad_()
            seen = self._changed(wide, leaf, torch.arange(copies, device=x.device).repeat(len(x)))
        gradient = wide.evaluate(seen.detach(), cross_entropy).gradient
        if seen is not leaf:
            (gradient,) = torch.autograd.grad(seen, leaf, gradient)
        mean = gradient.view(len(x), copies, *x.shape[1:]).mean(1)
        return _smoothed(mean, self.kernel) if self.kernel else mean

    def _changed(self, problem: Problem, x: Tensor, copy: Tensor) -> Tensor:
        """The copy of each number that each row's x makes."""
        x = self.mixed(problem, x)
        low = problem.threat.domain.bounds(x)[0]  # black
        if self.scales > 1:
            x = low + (x - low) * per_row(0.5 ** (copy % self.scales), x)
        return low + _moved(problem, x - low, self.diversity, self.shrink) if self.diversity else x

    def mixed(self, problem: Problem, x: Tensor) -> Tensor:
        """What is added before anything else is changed: nothing."""
        return x


def _others(problem: Problem, pool: Pool) -> Tensor:
    """A random sample of another class for each row, of the training split; zeros where there is none."""
    order = pool.y.argsort(stable=True)
    count = torch.bincount(pool.y, minlength=problem.oracle.model.num_classes)
    own, before = (part.to(problem.y.device)[problem.y] for part in (count, count.cumsum(0) - count))
    others = len(pool.y) - own
    # The others stand in a line with the row's own class left out.
    place = (problem.random("other").uniform((), torch.float64) * others).long()
    place = place + torch.where(place >= before, own, 0)
    which = order[place.clamp_max(len(order) - 1).to(order.device)]
    return torch.where(per_row(others > 0, problem.x0), pool.x[which.to(pool.x.device)].to(problem.x0), 0.0)


def _moved(problem: Problem, x: Tensor, probability: float, shrink: float) -> Tensor:
    """Images made smaller and put anywhere on a ground of zeros, each with a probability."""
    draw = problem.random("diversity").uniform((4,)).to(x)
    size = shrink + (1 - shrink) * draw[:, 1]
    right, down = ((2 * draw[:, i] - 1) * (1 / size - 1) for i in (2, 3))
    zero = torch.zeros_like(size)
    rows = [1 / size, zero, right, zero, 1 / size, down]
    grid = functional.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(x.shape), align_corners=False)
    moved = functional.grid_sample(x, grid, align_corners=False)
    return torch.where(per_row(draw[:, 0] < probability, x), moved, x)


def _smoothed(gradient: Tensor, side: int) -> Tensor:
    """Gradients (n, C, H, W) with every channel smoothed by a Gaussian that ends at three deviations."""
    channels = gradient.shape[1]
    line = (
        torch.exp(-torch.linspace(-3, 3, side).square() / 2).to(gradient)
        if side > 1
        else gradient.new_ones(1)
    )
    kernel = (line[:, None] * line / line.sum().square()).expand(channels, 1, side, side)
    with reference_precision():
        return functional.conv2d(gradient, kernel, padding="same", groups=channels)


@dataclass(frozen=True)
class DIFGSM(CopiesFGSM):
    """`mifgsm` on inputs shrunk and moved at random half of the time (Xie et al. 2019, section 3.4).

    Parameters
    ----------
    diversity : float, default 0.5
        The probability; the other parameters are those of `mifgsm` and of all attacks on copies.

    Notes
    -----
    Cost: steps + 1 forward passes, steps backward.

    Examples
    --------
    >>> DIFGSM(steps=3).diversity
    0.5
    """

    diversity: Probability = 0.5

    name = "difgsm"
    paper = "Xie et al. 2019, arXiv:1803.06978"


@dataclass(frozen=True)
class TIFGSM(CopiesFGSM):
    """`mifgsm` with its gradient smoothed, as if the image were moved about (Dong et al. 2019, equation 9).

    Examples
    --------
    >>> TIFGSM(steps=3).kernel
    15
    """

    kernel: Amount = 15

    name = "tifgsm"
    paper = "Dong et al. 2019, arXiv:1904.02884"


@dataclass(frozen=True)
class SINIFGSM(CopiesFGSM):
    """`nifgsm` on the input at full, half, a quarter … of its values (Lin et al. 2020, algorithm 1).

    Examples
    --------
    >>> SINIFGSM(steps=3).scales
    5
    """

    lookahead: bool = True
    scales: Count = 5

    name = "sinifgsm"
    paper = "Lin et al. 2020, arXiv:1908.06281"


@dataclass(frozen=True)
class Admix(CopiesFGSM):
    """`mifgsm` on the input with images of other classes added, at several scales
    (Wang et al. 2021, algorithm 1).

    The images are of the training split, drawn anew in every step; without one the input stays unmixed.

    Parameters
    ----------
    mixes : int, default 3
        At each scale, each with another image.
    portion : float, default 0.2
        Of that image.

    Notes
    -----
    Cost: mixes · scales · steps forward and backward passes, and one forward.

    Examples
    --------
    >>> Admix(steps=3).mixes
    3
    """

    scales: Count = 5
    mixes: Count = 3
    portion: NonNegative = 0.2

    name = "admix"
    uses_starts = True
    paper = "Wang et al. 2021, arXiv:2102.00436"

    def copies(self) -> int:
        return self.mixes * self.scales

    def mixed(self, problem: Problem, x: Tensor) -> Tensor:
        return x if problem.pool is None else x + self.portion * _others(problem, problem.pool)
