"""Code that a config names: what a user has named himself is remembered, other code is asked about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from robustbench_lite.core.registry import read_name
from robustbench_lite.models.cache import cache_folder
from robustbench_lite.models.names import brought, is_reference
from robustbench_lite.runs.config import Config


def references(config: Config) -> list[str]:
    """The code that a config names, beside what installed packages register."""
    return [where for text in config.models for where in _named(text) if is_reference(where)]


def _named(text: str) -> Iterator[str]:
    """What a model's text may call: itself, the network its weights are for, and what it wraps."""
    where, _ = brought(text)
    if where:
        yield where
        return
    name = read_name("models", text)
    yield str(name.parameters.get("network", ""))
    for inner in name.inner:
        yield from _named(inner.text)


def remember(names: Iterable[str]) -> None:
    """Note that the user has named this code himself, in this working directory."""
    known = _known()
    new = [mark for mark in map(_mark, names) if mark not in known]
    try:
        if new:
            _file().parent.mkdir(parents=True, exist_ok=True)
            with _file().open("a", encoding="utf-8") as opened:
                opened.writelines(f"{mark}\n" for mark in new)
    except OSError:  # then it is asked about once more
        return


def unknown(names: Sequence[str]) -> list[str]:
    """Those that the user has never named himself."""
    known = _known()
    return [name for name in names if _mark(name) not in known]


def _mark(name: str) -> str:
    return hashlib.sha256(f"{Path.cwd()} {name}".encode()).hexdigest()


def _file() -> Path:
    return cache_folder() / "trusted"


def _known() -> set[str]:
    try:
        return set(_file().read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        return set()
