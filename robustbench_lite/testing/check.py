"""A law on one thing: called, it raises `AssertionError` where the thing breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A law and what it is about; `check()` holds the thing to it.

    Parameters
    ----------
    title : str
        What is tested, as a test's id.
    law : callable
        Without arguments; raises `AssertionError`.
    """

    title: str
    law: Callable[[], None]

    def __call__(self) -> None:
        self.law()

    def __str__(self) -> str:
        return self.title
