"""Suites: named lists of what a run does, each a TOML file in the package or a user's own."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustbench_lite.core.errors import RobustError, UnknownName

Attack = TypeVar("Attack")
Threat = TypeVar("Threat")


class Cell(BaseModel, Generic[Attack, Threat]):
    """One thing that every model meets.

    samples: at most so many of the run's; None: all. models: only these of the suite's; none: every model.
    reported: what a paper says of the same, shown beside ours.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    attack: Attack
    threat: Threat
    goal: str = "untargeted"
    samples: int | None = Field(default=None, ge=1)
    models: tuple[str, ...] = ()
    reported: str = ""


Named = Cell[str, str]


class Suite(BaseModel):
    """What a suite file holds: a line about it, the cells, and what a config leaves unsaid.

    search: settings by their names, in a table of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: str = ""
    data: str | None = None
    models: tuple[str, ...] = ()
    samples: int | None = Field(default=None, ge=1)
    transfer: bool = False
    search: dict[str, float | int | str | bool] = Field(default_factory=dict)
    cells: tuple[Named, ...] = Field(min_length=1)


def every(
    attacks: Sequence[Attack], threats: Sequence[Threat], goals: Sequence[str]
) -> list[Cell[Attack, Threat]]:
    """A cell for every combination."""
    return [Cell(attack=a, threat=t, goal=g) for t, a, g in product(threats, attacks, goals)]


def suites() -> list[str]:
    """The names of those in the package."""
    found = files(__package__).joinpath("suites").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in found if file.name.endswith(".toml"))


def read_suite(name: str) -> Suite:
    """A suite by its name, or in a user's file NAME.toml.

    Raises
    ------
    UnknownName
        Where there is none of that name.
    RobustError
        For a file that is no suite.
    """
    if name.endswith(".toml"):
        place, text = name, _text(Path(name).expanduser())
    elif name in suites():
        place, text = name, files(__package__).joinpath("suites", f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise UnknownName("suite", name, suites())
    try:
        return Suite.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RobustError(f"suite {place}: {error}") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
        raise RobustError(f"suite {place}: {faults}") from None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RobustError(f"suite {file}: {error}") from None
