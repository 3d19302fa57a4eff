"""The errors a user can cause; each message names the thing, what was wrong and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONG = 100  # letters of a value that an error repeats


def shown(value: object) -> str:
    """A value in a line, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a user's object may not even tell what it is
        text = type(value).__name__
    return text if len(text) <= LONG else f"{text[:LONG]}…"


class RobustError(Exception):
    """Anything the user can put right; the command line prints its one line and exits with status 2."""


class InvalidParameter(RobustError, ValueError):
    """A parameter outside what is allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field} = {shown(value)}: must be {allowed}")


class UnknownName(RobustError, KeyError):
    """A name that is in no table; suggests the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
        self.message = f"unknown {kind} {shown(name)}; {hint}"
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class InvalidData(RobustError, ValueError):
    """Data that cannot be used; the message names the file and the index."""


class InvalidModel(RobustError, ValueError):
    """A model that breaks the contract of `Model`."""


class Unsupported(RobustError, ValueError):
    """A combination that cannot work, such as a gradient attack on a model that has no gradient."""


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """Raise `InvalidParameter` unless the condition holds."""
    if not condition:
        raise InvalidParameter(field, value, allowed)
