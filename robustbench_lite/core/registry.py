"""Names: one static table a kind, third parties' entry points, and one grammar for every name.

Reading a table imports neither torch nor the thing a name stands for.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from types import UnionType
from typing import TypeVar, Union, get_args, get_origin, get_type_hints

from robustbench_lite.core.errors import InvalidParameter, RobustError, UnknownName
from robustbench_lite.core.text import parse_number

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Entry:
    """A line of a table: where the thing lives (`module:Name`) and what a reader needs to choose it."""

    name: str
    where: str
    summary: str
    access: str = ""
    norms: str = ""
    paper: str = ""


def entries(kind: str, table: Mapping[str, Entry]) -> dict[str, Entry]:
    """The table of a kind (attacks, models, defenses, data) with what installed packages add to it."""
    known = dict(table)
    for point in entry_points(group=f"robustbench_lite.{kind}"):
        known.setdefault(point.name, Entry(point.name, point.value, f"from {point.module}"))
    return known


def load(where: str, kind: str) -> object:
    """The object that `module:Name` stands for."""
    module, colon, name = where.partition(":")
    if not colon or not module or not name:
        raise InvalidParameter(kind, where, "package.module:name")
    try:
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise RobustError(f"{kind} {where!r} cannot be imported: {error}") from error
    return found


def look_up(kind: str, table: Mapping[str, Entry], name: str) -> Entry:
    """The entry of a name; raises `UnknownName` with the nearest ones."""
    known = entries(kind, table)
    if name not in known:
        raise UnknownName(kind.removesuffix("s"), name, known)
    return known[name]


def build(cls: type[Thing], parameters: Mapping[str, object]) -> Thing:
    """An instance of a dataclass from parameters, as text or as values; each checked against its field."""
    hints = get_type_hints(cls)
    known = {f.name: hints[f.name] for f in fields(cls) if f.init}  # type: ignore[arg-type]
    return cls(**_checked(cls.__name__, parameters, known))


def arguments(
    function: Callable[..., object], parameters: Mapping[str, object], skip: int
) -> dict[str, object]:
    """Parameters for a function's arguments after the first `skip`; each checked against its type."""
    hints = get_type_hints(function)
    signature = list(inspect.signature(function).parameters.values())[skip:]
    name = getattr(function, "__name__", "function")
    values = _checked(name, parameters, {p.name: hints[p.name] for p in signature})
    for p in signature:
        if p.default is p.empty and p.name not in values:
            raise InvalidParameter(p.name, None, f"given, as in {name}:{p.name}=…")
    return values


def _checked(owner: str, parameters: Mapping[str, object], known: Mapping[str, object]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in parameters.items():
        if key not in known:
            raise UnknownName(f"parameter of {owner}", key, known)
        values[key] = _convert(key, value, known[key])
    return values


def _convert(field: str, value: object, hint: object) -> object:
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if isinstance(value, str):
        return _from_text(field, value, options)
    kinds = tuple(option for option in options if isinstance(option, type))
    if isinstance(value, bool) and bool not in kinds:
        raise InvalidParameter(field, value, _names(options))
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if int not in kinds else value
    if kinds and not isinstance(value, kinds):
        raise InvalidParameter(field, value, _names(options))
    return value


def _from_text(field: str, text: str, options: tuple[object, ...]) -> object:
    lowered = text.lower()
    if type(None) in options and lowered in ("none", "auto"):
        return None
    if bool in options and lowered in ("true", "false", "yes", "no"):
        return lowered in ("true", "yes")
    if int in options and re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if float in options:
        return parse_number(text, field)
    if str in options:
        return text
    raise InvalidParameter(field, text, _names(options))


def _names(options: tuple[object, ...]) -> str:
    readable = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        type(None): "none",
    }
    return " or ".join(
        readable.get(o, getattr(o, "__name__", str(o))) for o in options if isinstance(o, type)
    )
