"""Momentum that looks ahead."""

from __future__ import annotations

from dataclasses import dataclass

from robustbench_lite.attacks.fixed_budget.mifgsm import MIFGSM


@dataclass(frozen=True)
class NIFGSM(MIFGSM):
    """`mifgsm` with its gradient taken where the momentum leads next (Lin et al. 2020, equation 6).

    steps, decay: as there. Cost: steps + 1 forward passes, steps backward.
    """

    lookahead: bool = True

    name = "nifgsm"
    paper = "Lin et al. 2020, arXiv:1908.06281"
