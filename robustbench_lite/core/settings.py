"""What is set about a search and its verdict: once, here; config and command line are made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from robustbench_lite.core.parameters import Count, NonNegative, Positive, Seed, check_fields

Precision = Literal["auto", "float32", "tf32", "bfloat16"]


def setting(default: Any, text: str, *, shapes: bool = True) -> Any:
    """A field with its help text; shapes: whether it may change a record, and so belongs to its key."""
    return field(default=default, metadata={"help": text, "shapes": shapes})


@dataclass(frozen=True)
class Search:
    """How attacks are carried out and judged.

    Parameters
    ----------
    seed : int, default 0
        Of everything random; the same seed gives the same result.
    device : str, default "auto"
        Where models run: `auto`, `cpu`, `cuda` or `cuda:N`.
    batch_size : int, optional
        Samples at once; None: what fits in memory. No result depends on it.
    budget : int, optional
        Forward and backward passes allowed to a sample, and to what an attack learns per sample it learns
        from.
    time_limit : float, optional
        Seconds allowed to a search; samples it does not reach are not attacked, and counted apart.
    eot : int, default 1
        Draws that the search averages a stochastic model's answers over.
    draws : int, default 100
        Draws that the verdict on a stochastic model is taken from.
    precision : {"auto", "float32", "tf32", "bfloat16"}, default "auto"
        Of the search; the verdict is always the model's own.
    compile : bool, optional
        Kernels of its own for the search; None: where the planned work repays them.
    eight_bit : bool, default False
        Judge successes again as 8-bit images.
    certify : float, default 0.1
        Effort spent on proving lower bounds, at least 0; 0: none. Networks of more than 512 rectified units
        are tried from 0.25 on, all of their samples from 0.5; at 1 most bounds are as good as they get.
        Above 1 small networks are solved by programmes of whole numbers, which take seconds a sample.
    skip_proven : bool, default False
        Leave out samples that are proven to resist, but for a hashed twentieth.

    Raises
    ------
    InvalidParameter
        For a value outside its range.

    Examples
    --------
    >>> Search(budget=2000).seed
    0
    """

    seed: Seed = setting(0, "Of everything random.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:1.", shapes=False)
    batch_size: Count | None = setting(None, "Samples at once; by default what fits in memory.", shapes=False)
    budget: Count | None = setting(None, "Forward and backward passes allowed to a sample.")
    time_limit: Positive | None = setting(None, "Seconds allowed to a search; what it leaves is told.")
    eot: Count = setting(1, "Draws that the search averages a stochastic model over.")
    draws: Count = setting(100, "Draws that the verdict on a stochastic model is taken from.")
    precision: Precision = setting("auto", "Of the search; the verdict is always the model's own.")
    compile: bool | None = setting(None, "Kernels of its own for the search; by default where they pay.")
    eight_bit: bool = setting(False, "Judge again as an 8-bit image.")
    certify: NonNegative = setting(0.1, "Effort spent on bounds: 0 none, 1 what helps, 2 small nets exactly.")
    skip_proven: bool = setting(False, "Leave out samples that are proven to resist, but for a twentieth.")

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("time_limit", "certify"):  # a whole number is the same number, also in a job's key
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))
