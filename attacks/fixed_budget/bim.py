"""The basic iterative method with its own paper's step."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_lite.attacks.fixed_budget.iterative import Iterative
from robustbench_lite.core.threat import Norm


@dataclass(frozen=True)
class BIM(Iterative):
    """`iterative` with the steps of one grey level that Kurakin et al. 2016 take (section 2).

    steps: theirs are min(255 eps + 4, 319 eps), 10 at 8/255. step_size: in the units of x. Cost: steps + 1
    forward passes, steps backward.
    """

    steps: int = 10
    step_size: float | None = 1 / 255

    name = "bim"
    norms = frozenset({Norm.LINF})
