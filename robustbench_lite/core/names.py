"""The one grammar of names, for attacks, models, defenses, threats and data.

`name`, `name:value`, `name:key=value,key=value`, `name(inner,inner,key=value)`, each inner a name again. What
follows a colon or stands in brackets is the same: `svm:most=100` is `svm(most=100)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from robustbench_lite.core.errors import InvalidParameter

Declared = Callable[[str], Collection[str]]


@dataclass(frozen=True)
class Name:
    """A name as it was written: text; head, what it names; inner, the names in its brackets; parameters.

    first: the value that follows the colon without a key, as in `linf:8/255` or `torchvision:resnet50`.
    """

    text: str
    head: str
    inner: tuple[Name, ...] = ()
    parameters: dict[str, str] = field(default_factory=dict)
    first: str | None = None


def parse_name(text: str, declared: Declared = lambda head: ()) -> Name:
    """The name that a text writes.

    Parameters
    ----------
    text : str
        `pgd:steps=3`, `linf:8/255`, `ensemble(svm:most=500,knn)`, `jpeg(pgd_training(cnn),quality=75)`.
    declared : callable
        The parameters that a name takes itself: `key=value` in brackets belongs to the name before the
        brackets where that takes the key, else to the inner name it follows.

    Raises
    ------
    InvalidParameter
        Where the text is no name.

    Examples
    --------
    >>> parse_name("transformed(nets:lenet5,rotation=15)", lambda head: ["rotation"]).inner[0].text
    'nets:lenet5'
    """
    whole = text.strip()
    head, opener, rest = _head(whole)
    if not head or (opener == "(" and not rest.endswith(")")) or (opener == ":" and not rest):
        raise InvalidParameter(
            head or "name", text, "name, name:key=value,key=value or name(inner,key=value)"
        )
    parts = [] if not opener else _split(rest[:-1] if opener == "(" else rest, whole)
    own = declared(head)
    first: str | None = None
    inner: list[str] = []
    parameters: dict[str, str] = {}
    for place, written in enumerate(parts):
        part = written.strip()
        key, equals, value = (piece.strip() for piece in part.partition("="))
        keyed = bool(equals) and re.fullmatch(r"\w+", key) is not None
        if opener == "(" and not keyed:
            inner.append(part)
        elif opener == "(" and inner and key not in own and not inner[-1].endswith(")"):
            inner[-1] += ("," if ":" in inner[-1] else ":") + part
        elif keyed:
            if key in parameters:
                raise InvalidParameter(key, value, f"given once in {whole!r}")
            parameters[key] = value
        elif opener == ":" and part and not parameters and (place == 0 or first is not None):
            first = written.lstrip() if first is None else f"{first},{written}"  # a path may have commas
        else:
            raise InvalidParameter(head, text, "name, name:key=value,key=value or name(inner,key=value)")
    first = None if first is None else first.rstrip()
    return Name(whole, head, tuple(parse_name(part, declared) for part in inner), parameters, first)


def is_path(text: str) -> bool:
    """Whether a text that names nothing looks like a file or a folder: an ending, or a part of a path.

    Examples
    --------
    >>> is_path("mine.csv"), is_path("photos/cats"), is_path("logistc"), is_path("svm:most=500")
    (True, True, False, False)
    """
    where = text.partition(",")[0]
    return "/" in where or re.search(r"\.[A-Za-z]\w{0,9}$", where) is not None


def added_names(text: str) -> list[str]:
    """The names that a text adds up: `rotation:10+linf:2/255`.

    A plus before a digit belongs to a number.

    Examples
    --------
    >>> added_names("rotation:10+linf:1e+0")
    ['rotation:10', 'linf:1e+0']
    """
    return re.split(r"\+(?=[A-Za-z])", text)


def split_options(text: str, whole: str) -> dict[str, object]:
    """The options `key=value,key=value` that follow a file or a reference; raises `InvalidParameter`."""
    found: dict[str, object] = {}
    for part in filter(None, _split(text, whole)):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key in found:
            raise InvalidParameter("model", whole, "followed by key=value, each key once")
        found[key] = value
    return found


def _head(text: str) -> tuple[str, str, str]:
    """What stands before the first colon or bracket, that sign, and what follows it."""
    found = re.search(r"[:(]", text)
    if found is None:
        return text, "", ""
    return text[: found.start()].strip(), found.group(), text[found.end() :].strip()


def _split(text: str, whole: str) -> list[str]:
    """The parts between commas that are in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            break
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    if depth:
        raise InvalidParameter("name", whole, "with as many brackets closed as opened")
    return parts
