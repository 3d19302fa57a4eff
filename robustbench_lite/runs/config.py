"""What a run is: one description, the same from TOML, flags and Python."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from robustbench_lite.core.errors import RobustError

PRESET_MODELS = ("linear", "logistic", "svm", "knn", "tree", "cnn")
PRESET_ATTACKS = ("noise", "exact", "fgsm", "iterative")
PRESET_THREATS = ("linf:0.1", "l2:1")


class Config(BaseModel):
    """Every choice of a run; a list multiplies the cells, one for every combination."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = "digits"
    data_dir: Path | None = None
    download: bool = False
    samples: int | None = Field(default=500, ge=1)
    seed: int = 0
    models: tuple[str, ...] = Field(default=PRESET_MODELS, min_length=1)
    attacks: tuple[str, ...] = Field(default=PRESET_ATTACKS, min_length=1)
    threats: tuple[str, ...] = Field(default=PRESET_THREATS, min_length=1)
    goals: tuple[str, ...] = Field(default=("untargeted",), min_length=1)
    transfer: bool = False
    device: str = "auto"
    batch_size: int | None = Field(default=None, ge=1)
    budget: int | None = Field(default=None, ge=1)
    eot: int = Field(default=1, ge=1)
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    compile: bool | None = None
    time_limit: float | None = Field(default=None, gt=0)
    eight_bit: bool = False
    pictures: bool = True

    @field_validator("samples", mode="before")
    @classmethod
    def _all(cls, value: object) -> object:
        """None and `all` are the same; a file can say the latter only."""
        return None if value == "all" else value


def make(values: dict[str, object]) -> Config:
    """A checked config; raises `RobustError` naming every fault at once."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors()]
        raise RobustError("config: " + "; ".join(faults)) from None


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
    values["samples"] = values["samples"] or "all"
    lines = [f"{k} = {_value(v)}" for k, v in values.items() if v is not None]
    lines += ["", "[resolved]"]
    lines += [f"{json.dumps(key)} = {_value(value)}" for key, value in resolved.items()]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """JSON's strings, numbers, booleans and lists are TOML's."""
    return json.dumps(value, ensure_ascii=False)
