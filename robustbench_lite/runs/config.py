"""What a run is: one description, the same from TOML, flags and Python."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from robustbench_lite.core.errors import RobustError, require
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.names import added_names
from robustbench_lite.core.registry import build, check_name
from robustbench_lite.core.settings import Search
from robustbench_lite.models.names import Reading, brought
from robustbench_lite.runs.suite import Named, every, read_suite

MODELS = ("linear", "logistic", "svm", "knn", "tree", "cnn")
ATTACKS = ("noise", "exact", "fgsm", "iterative")  # where only threats or goals are said
THREATS = ("linf:0.1", "l2:1")
GOALS = ("untargeted",)
SETTINGS = tuple(field.name for field in fields(Search))


class Config(BaseModel):
    """Every choice of a run: a suite, or lists of attacks, threats and goals that multiply.

    With neither, the suite is `lectures`; data, models, samples, transfer and settings that are not said
    are the suite's. In a file, and as flags, the settings of `search` stand beside the others by
    their own names. engine: `local` works in this process, or in `workers` of this machine; `ray` in as many
    on a cluster at `ray_address`, each with `worker_cpus` and `worker_gpus`. author: who a leaderboard names.
    stop_after: seconds after which no job is begun.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str | None = None
    data: str = "digits"
    data_dir: Path | None = None
    download: bool = False
    samples: int | None = Field(default=500, ge=1)
    models: tuple[str, ...] = Field(default=MODELS, min_length=1)
    attacks: tuple[str, ...] = ()
    threats: tuple[str, ...] = ()
    goals: tuple[str, ...] = ()
    transfer: bool = False
    author: str = ""
    pictures: bool = True
    engine: Literal["local", "ray"] = "local"
    workers: int = Field(default=1, ge=1)
    worker_cpus: int = Field(default=1, ge=1)
    worker_gpus: float | None = Field(default=None, ge=0)
    ray_address: str | None = None
    stop_after: float | None = Field(default=None, gt=0)
    search: Search = Field(default_factory=Search)

    @model_validator(mode="before")
    @classmethod
    def _of_the_suite(cls, values: dict[str, object]) -> dict[str, object]:
        """What a config leaves to its suite; raises `RobustError` for one that is not there."""
        given = [name for name in ("attacks", "threats", "goals") if name in values]
        lists = [name for name in given if values[name] != ()]  # the default, as `model_dump` writes it
        for name in lists:
            require(bool(values[name]), name, values[name], "one name at least")
        if lists and values.get("suite"):
            raise RobustError(f"config: a suite says its own {lists[0]}; leave out one of the two")
        if lists:
            return values
        suite = str(values.get("suite") or "lectures")
        held = read_suite(suite)
        told = {key: getattr(held, key) for key in ("data", "models", "transfer")}
        search = values.get("search", {})
        if held.search and isinstance(search, dict):
            values = {**values, "search": {**held.search, **search}}
        return {**{key: value for key, value in told.items() if value}, **values, "suite": suite}

    @property
    def limit(self) -> int | None:
        """How many samples at most: as said, or as the suite says; None: all."""
        told = self.suite is None or "samples" in self.model_fields_set
        return self.samples if told else read_suite(str(self.suite)).samples or self.samples

    @property
    def cells(self) -> list[Named]:
        """What every model meets, by name."""
        if self.suite is not None:
            return list(read_suite(self.suite).cells)
        return every(self.attacks or ATTACKS, self.threats or THREATS, self.goals or GOALS)

    @field_validator("samples", mode="before")
    @classmethod
    def _all(cls, value: object) -> object:
        """None and `all` are the same; a file can say the latter only."""
        return None if value == "all" else value


def make(values: dict[str, object]) -> Config:
    """A checked config; raises `RobustError` naming every fault at once."""
    settings = {name: values[name] for name in SETTINGS if name in values}
    others = {name: value for name, value in values.items() if name not in SETTINGS}
    switches = [f.name for f in fields(Search) if isinstance(f.default, bool) or f.name == "compile"]
    for name, value in settings.items():
        if isinstance(value, bool) and name not in switches:
            raise RobustError(f"config: {name} = {str(value).lower()}: must be a number or text")
    if settings:
        others["search"] = settings
    try:
        return Config.model_validate(others)
    except ValidationError as error:
        raise RobustError(
            "config: " + "; ".join(_fault(e["loc"], e["msg"]) for e in error.errors())
        ) from None


def _fault(where: tuple[int | str, ...], message: str) -> str:
    """A fault in a line; what a setting's own check says already names it."""
    said = message.removeprefix("Value error, ")
    place = ".".join(str(part) for part in where if part != "search")
    return said if said != message else f"{place}: {message.lower()}"


def check_names(config: Config) -> None:
    """Raise what is wrong with the names of a config, before anything heavy is imported."""
    cells = config.cells
    known = {
        "attacks": [cell.attack for cell in cells],
        "threats": [part for cell in cells for part in added_names(cell.threat.strip().lower())],
        "data": [config.data],
    }
    for kind, texts in known.items():
        for text in dict.fromkeys(texts):
            check_name(kind, text)
    for text in config.models:
        where, options = brought(text)
        if where:
            build(Reading, options)
        else:
            check_name("models", text)
    for text in dict.fromkeys(cell.goal for cell in cells):
        parse_goal(text)


def read(file: Path) -> dict[str, object]:
    """The values of a TOML file, of the shape of `Config`; the table `resolved` is left out."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RobustError(f"config {file}: {error}") from None
    values.pop("resolved", None)
    return values


def as_toml(config: Config, resolved: dict[str, object]) -> str:
    """The config and what it came to, as TOML that `read` takes back."""
    values = config.model_dump(mode="json")
    values |= values.pop("search")
    del values["stop_after"]  # of one sitting: a run that is gone on with has its own
    values["samples"] = config.limit or "all"
    lines = [f"{k} = {_value(v)}" for k, v in values.items() if v not in (None, "", [])]
    lines += ["", "[resolved]"]
    lines += [f"{json.dumps(key)} = {_value(value)}" for key, value in resolved.items()]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """JSON's strings, numbers, booleans and lists are TOML's."""
    return json.dumps(value, ensure_ascii=False)
