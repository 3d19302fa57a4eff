"""Parameters: their types and ranges, declared beside the fields they belong to and checked in one place.

Imports nothing heavy, so that a wrong number is told before torch starts.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from robustbench_lite.core.errors import InvalidParameter, UnknownName


@dataclass(frozen=True)
class Range:
    """The numbers from low to high; an end that is open is not among them."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'above' if self.open_low else 'at least'} {self.low:g}"
        if self.open_low and self.open_high:
            return f"between {self.low:g} and {self.high:g}"
        return (
            f"in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"
        )


Count = Annotated[int, Range(1)]  # steps, restarts, queries
Amount = Annotated[int, Range(0)]  # a count that may be none
Seed = Annotated[int, Range(0, 2**63 - 1)]
Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
LENGTH = "length"  # the mark of a parameter in the units of x, whose default grows with the box
Length = Annotated[float, Range(0, open_low=True), LENGTH]
Share = Annotated[float, Range(0, 1, open_low=True)]  # above 0, at most 1
Fraction = Annotated[float, Range(0, 1, open_low=True, open_high=True)]  # between 0 and 1
Probability = Annotated[float, Range(0, 1)]
LossName = Literal["ce", "dlr", "margin", "houdini"]  # see core.losses
Size = NonNegative | Literal["min"]  # of a ball; min: the smallest that succeeds


def parse_number(text: str, field_name: str = "eps") -> float:
    """A number as people write budgets: `0.1`, `1e-3` or `8/255`."""
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / (float(bottom) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise InvalidParameter(field_name, text, "a number such as 0.1 or 8/255") from None


def hints_of(owner: object) -> dict[str, object]:
    """The types of a dataclass's fields or of a function's arguments, with their ranges."""
    return get_type_hints(owner, include_extras=True)


def check_fields(thing: Any) -> None:
    """Raise `InvalidParameter` for the first field of a dataclass that is outside its declared range."""
    hints = hints_of(type(thing))
    for field in fields(thing):
        value, options = getattr(thing, field.name), _options(hints[field.name])
        if isinstance(value, str) and not any(kind in (str, object) for kind, _ in options):
            raise InvalidParameter(field.name, value, _described(options))
        converted(field.name, value, hints[field.name])


def checked(owner: str, values: Mapping[str, object], hints: Mapping[str, object]) -> dict[str, object]:
    """Values, given as text or as they are, as what their hints ask for."""
    found: dict[str, object] = {}
    for key, value in values.items():
        if key not in hints:
            raise UnknownName(f"parameter of {owner}", key, hints)
        found[key] = converted(key, value, hints[key])
    return found


def converted(field: str, value: object, hint: object) -> object:
    """A value as its hint asks for it; raises `InvalidParameter` naming field, value and what is allowed."""
    options = _options(hint)
    kinds = {kind for kind, _ in options}
    if isinstance(value, str):
        value = _from_text(field, value, options)
    elif isinstance(value, bool):
        if bool not in kinds and object not in kinds:
            raise InvalidParameter(field, value, _described(options))
    elif isinstance(value, numbers.Integral):  # NumPy's too
        value = float(value) if float in kinds and int not in kinds else int(value)
    for kind, limit in options:
        if isinstance(limit, Range) and isinstance(value, int | float) and not isinstance(value, bool):
            if kind is int and not isinstance(value, int):
                continue
            if not (isinstance(value, int) or math.isfinite(value)):
                raise InvalidParameter(field, value, f"finite, and {limit}")
            if value not in limit or (isinstance(value, int) and abs(value) >= 2**63):
                raise InvalidParameter(field, value, str(limit) if value not in limit else "below 2**63")
            return value
        if isinstance(limit, tuple) and value in limit:
            return value
        if limit is None and isinstance(kind, type) and isinstance(value, kind):
            return value
    raise InvalidParameter(field, value, _described(options))


def _options(hint: object) -> list[tuple[object, Range | tuple[object, ...] | None]]:
    """The plain types a hint stands for, each with its range or its list of values."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return [option for part in get_args(hint) for option in _options(part)]
    if origin is Annotated:
        kind, *marks = get_args(hint)
        limit = next((mark for mark in marks if isinstance(mark, Range)), None)
        return [(inner, limit or own) for inner, own in _options(kind)]
    if origin is Literal:
        return [(str, get_args(hint))]
    return [(origin or hint, None)]


def _from_text(
    field: str, text: str, options: list[tuple[object, Range | tuple[object, ...] | None]]
) -> object:
    kinds = {kind for kind, _ in options}
    lowered = text.strip().lower()
    listed = [limit for _, limit in options if isinstance(limit, tuple)]
    if any(text in limit for limit in listed):
        return text
    if type(None) in kinds and lowered in ("none", "auto"):
        return None
    if bool in kinds and lowered in ("true", "false", "yes", "no"):
        return lowered in ("true", "yes")
    if int in kinds and re.fullmatch(r"[+-]?[0-9]+", lowered):
        return int(lowered)
    if float in kinds:
        return parse_number(text, field)
    if (str in kinds or object in kinds) and not listed:
        return text
    raise InvalidParameter(field, text, _described(options))


def described(hint: object) -> str:
    """A type and its range in words: `int, at least 1`."""
    words = {type(None): "none"}
    parts = []
    for kind, limit in _options(hint):
        name = words.get(kind, getattr(kind, "__name__", str(kind)))  # type: ignore[call-overload]
        told = ", ".join(map(str, limit)) if isinstance(limit, tuple) else str(limit)
        parts.append(f"one of {told}" if isinstance(limit, tuple) else f"{name}, {told}" if limit else name)
    return " or ".join(parts)


def _described(options: list[tuple[object, Range | tuple[object, ...] | None]]) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    said = [
        f"one of {', '.join(map(str, limit))}"
        if isinstance(limit, tuple)
        else words.get(kind, getattr(kind, "__name__", str(kind)))  # type: ignore[call-overload]
        for kind, limit in options
    ]
    return " or ".join(said)
