"""Threats by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.names import added_names
from robustbench_lite.core.registry import arguments, given, load, look_up, read_name
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.threats.composed import composed


def parse_threat(text: str | Threat | tuple[str, object], domain: Domain | None = None) -> Threat:
    """The threat that a text names, inside a domain.

    Parameters
    ----------
    text : str, Threat or tuple
        `linf:8/255`, `l2:0.5`, `l1:12`, `l0:1` (pixels), `l2:min` (the smallest perturbation), `box`,
        `rotation:15,shift=0.1`, `patch:5x5`, `fog:0.5`, or what an installed package adds; several one after
        another, `rotation:10+linf:2/255`; or a pair such as `("linf", 0.1)`. A `Threat` stays what it is.
    domain : Domain, optional
        The box, mask and steps of the data; None: [0, 1], or a ready threat's own.

    Raises
    ------
    UnknownName, InvalidParameter
        Where there is no such threat, or it has no such size.

    Examples
    --------
    >>> str(parse_threat("linf:8/255"))
    'linf:8/255'
    """
    if not isinstance(domain, Domain | None):
        raise InvalidParameter("domain", domain, "a Domain, such as Domain(0.0, 255.0)")
    if isinstance(text, tuple) and len(text) == 2:
        text = f"{text[0]}:{text[1]}"
    if not isinstance(text, str):
        if not hasattr(text, "contains"):
            raise InvalidParameter("threat", text, "text such as 'linf:8/255', or a Threat")
        return text if domain is None else text.within(domain)
    written = text.strip().lower()
    parts = added_names(written)
    if len(parts) > 1:
        return composed([parse_threat(part, domain) for part in parts], written)
    name = read_name("threats", written)
    entry = look_up("threats", name.head)
    make = cast(Callable[..., Threat], load(entry.where, "threat"))
    made: Any = make(domain or Domain(), **arguments(make, given(entry, name), skip=1))
    return cast(Threat, replace(made, text=written) if hasattr(made, "text") else made)


def doubts_of(threat: Threat) -> tuple[str, ...]:
    """What a reader should know of a threat: that it leaves nothing out, which is seldom meant."""
    low, high = (torch.as_tensor(side) for side in (threat.domain.low, threat.domain.high))
    if threat.norm is not Norm.LINF or (threat.eps or 0.0) < float((high - low).max()):
        return ()
    return (f"{threat} is as wide as the box, so that anything goes: was it meant in other units?",)
