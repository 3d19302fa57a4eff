"""FGSM from a random point: the single steps of fast adversarial training."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.parameters import Fraction, Positive
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm
from robustbench_lite.search.attack import Attack, Iterate


@dataclass(frozen=True)
class RFGSM(Attack[Iterate]):
    """A random corner of a smaller ball, then one step that goes the rest of the way
    (Tramèr et al. 2018, section 3.3: R+FGSM).

    Parameters
    ----------
    share : float, default 0.5
        Of eps, the random step; between 0 and 1.

    Notes
    -----
    Cost: 2 forward passes, 1 backward.

    Examples
    --------
    >>> RFGSM().share
    0.5
    """

    share: Fraction = 0.5

    name = "rfgsm"
    norms = frozenset({Norm.LINF})
    paper = "Tramèr et al. 2018, arXiv:1705.07204"

    def start(self, problem: Problem) -> Iterate:
        corner = problem.random("corner").gaussian(tuple(problem.x0.shape[1:])).to(problem.x0).sign()
        x = problem.project(problem.x0 + problem.size(self.share) * corner)
        gradient = problem.evaluate(x, cross_entropy).gradient
        return Iterate(
            z=problem.project(x + problem.size(1 - self.share) * problem.threat.steepest(gradient))
        )


@dataclass(frozen=True)
class FFGSM(Attack[Iterate]):
    """A uniform point of the ball, then one step that may cross it
    (Wong, Rice & Kolter 2020, algorithm 3).

    Parameters
    ----------
    step_size : float, default 1.25
        Of the step, in units of eps.

    Notes
    -----
    Cost: 2 forward passes, 1 backward.

    Examples
    --------
    >>> FFGSM().step_size
    1.25
    """

    step_size: Positive = 1.25

    name = "ffgsm"
    norms = frozenset({Norm.LINF, Norm.L2, Norm.L1})
    paper = "Wong, Rice & Kolter 2020, arXiv:2001.03994"

    def start(self, problem: Problem) -> Iterate:
        x = problem.random_start()
        gradient = problem.evaluate(x, cross_entropy).gradient
        ahead = x + problem.size(self.step_size) * problem.threat.steepest(gradient)
        return Iterate(z=problem.project(ahead))
