"""How people write numbers and names; light enough for the command line to import at once."""

from __future__ import annotations

import re

from robustbench_lite.core.errors import InvalidParameter


def parse_number(text: str, field_name: str = "eps") -> float:
    """A number as people write budgets: `0.1`, `1e-3` or `8/255`."""
    top, slash, bottom = text.partition("/")
    try:
        number = float(top) / (float(bottom) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise InvalidParameter(field_name, text, "a number such as 0.1 or 8/255") from None
    return number


def parse_name(text: str) -> tuple[str, dict[str, str]]:
    """`name:key=value,key=value` -> the name and its parameters as text."""
    name, colon, rest = text.strip().partition(":")
    parameters: dict[str, str] = {}
    for item in rest.split(",") if colon else []:
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not re.fullmatch(r"\w+", key):
            raise InvalidParameter(name or "name", text, "name or name:key=value,key=value")
        if key in parameters:
            raise InvalidParameter(key, value, f"given once in {text!r}")
        parameters[key] = value
    return name, parameters
