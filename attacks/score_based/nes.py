"""Natural evolution strategies: gradients estimated from scores along Gaussian directions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustbench_lite.attacks.score_based.spsa import SPSA
from robustbench_lite.core.random import Stream


@dataclass(frozen=True)
class NES(SPSA):
    """As `spsa`, along normal directions in antithetic pairs (Ilyas et al. 2018, algorithm 1)."""

    name = "nes"
    paper = "Ilyas et al. 2018, arXiv:1804.08598"

    def directions(self, stream: Stream, shape: tuple[int, ...]) -> Tensor:
        return stream.gaussian(shape)
