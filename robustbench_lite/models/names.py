"""How a user's model is named, and what may be said of how to read it; without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from robustbench_lite.core.names import split_options
from robustbench_lite.core.parameters import Amount, check_fields
from robustbench_lite.models import MODELS

SUFFIXES = (
    ".skops", ".onnx", ".safetensors", ".torchscript", ".pt2", ".pt", ".pth", ".ckpt", ".ubj", ".json",
    ".txt", ".lgb", ".joblib", ".pickle", ".pkl", ".keras", ".h5",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """How a user's model is to be read; every part can be said, and is found out where it is not.

    Parameters
    ----------
    outputs : str, default "auto"
        Of networks, as in `TorchModel`.
    units : {"auto", "scaled", "own"}, default "auto"
        Of tables: whether it takes features as the data scales them, or in the columns' own units. auto:
        whichever is right far more often; a tie is an error.
    reject : int, optional
        The class that means "I will not say".
    mean, std : str, default ""
        Of networks: the normalisation it expects, A|B|C, a number a channel.

    Examples
    --------
    >>> Reading(units="own").reject is None
    True
    """

    outputs: str = "auto"
    units: Literal["auto", "scaled", "own"] = "auto"
    reject: Amount | None = None
    mean: str = ""
    std: str = ""

    def __post_init__(self) -> None:
        check_fields(self)


def brought(text: str) -> tuple[str, Mapping[str, object]]:
    """The file or the reference that a model's text begins with, and its options; empty for other names."""
    ending = "|".join(re.escape(suffix) for suffix in SUFFIXES)
    found = re.fullmatch(rf"(.*(?:{ending}))(?:,(.*))?", text, re.IGNORECASE | re.DOTALL)
    if found is not None and "(" in found[1]:
        found = None
    where, _, options = text.partition(",") if found is None else (found[1], "", found[2] or "")
    if found is None and not is_reference(where):
        return "", {}
    if found is not None and found[1].partition(":")[0] in MODELS:
        return "", {}
    return where, split_options(options, text)


def is_reference(text: str) -> bool:
    """Whether a text means `package.module:function` rather than `name:key=value`."""
    head, colon, name = text.partition(":")
    known = head in MODELS or "(" in text
    return bool(colon) and not known and name.replace(".", "").isidentifier()
