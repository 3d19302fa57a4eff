"""Threats by name."""

from __future__ import annotations

from dataclasses import replace

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.text import parse_number
from robustbench_lite.core.threat import Norm
from robustbench_lite.threats.ball import Lp
from robustbench_lite.threats.box import Box


def parse_threat(text: str, domain: Domain | None = None) -> Lp | Box:
    """The threat a text names: `linf:8/255`, `l2:0.5`, `l1:12`, `l0:1`, `l2:min` or `box`."""
    allowed = "norm:eps with norm l0, l1, l2 or linf, such as linf:8/255, l2:0.5, l0:1, l2:min; or box"
    domain = domain or Domain()
    name, _, size = text.strip().lower().partition(":")
    if name == "box" and not size:
        return Box(domain)
    if name not in set(Norm) or not size:
        raise InvalidParameter("threat", text, allowed)
    return Lp(Norm(name), None if size == "min" else parse_number(size), domain)


def with_domain(threat: Lp | Box, domain: Domain) -> Lp | Box:
    """The threat inside another domain."""
    return replace(threat, domain=domain)
