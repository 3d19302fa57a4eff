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


def with_first(text: str, key: str | None) -> str:
    """`npz:PATH,…` as `npz:path=PATH,…`, where the first parameter may go without its key."""
    name, colon, rest = text.partition(":")
    bare = bool(colon and rest and key) and "=" not in rest.partition(",")[0]
    return f"{name}:{key}={rest}" if bare else text


def split_outside(text: str) -> list[str]:
    """The parts of a text between commas that are in no brackets and part no parameters.

    `cnn,svm:most=100,seed=1,ensemble(a,b)` -> `cnn`, `svm:most=100,seed=1`, `ensemble(a,b)`.
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    whole: list[str] = []
    for part in parts:
        if whole and "=" in part.partition(":")[0] and ":" in whole[-1]:
            whole[-1] += f",{part}"
        else:
            whole.append(part.strip())
    return whole


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
