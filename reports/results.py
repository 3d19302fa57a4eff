"""A run's folder as a report reads it: data only, nothing of it is ever executed."""

from __future__ import annotations

import json
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel

from robustbench_lite.core.errors import RobustError
from robustbench_lite.records.schema import count, read, read_compact
from robustbench_lite.reports.tables.catalogue import TABLES

MANY = 1_000_000  # records beyond which names become categories and numbers shorter


class Told(BaseModel):
    """What notes.json holds."""

    refused: dict[str, str] = {}
    notes: list[str] = []
    class_names: list[str] = []
    files: list[str] | None = None


@dataclass(frozen=True)
class Folder:
    """What a run left: its records, its config with what that came to, and what was told beside them."""

    path: Path
    records: pd.DataFrame
    config: Mapping[str, object]
    failures: Mapping[str, str]
    refused: Mapping[str, str]
    notes: Sequence[str]
    class_names: Sequence[str]
    flags: pd.DataFrame
    own: frozenset[str] | None = None  # names of the run's own files; None: all there are
    _tables: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    def table(self, name: str) -> pd.DataFrame:
        """A table of the records by name, made once."""
        if name not in self._tables:
            self._tables[name] = TABLES[name](self.records)
        return self._tables[name]

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Raises `RobustError` for a folder that holds no run, or one that cannot be read."""
        files = sorted((path / "records").glob("*.parquet"), key=lambda f: (f.stat().st_mtime_ns, f.name))
        if not files:
            raise RobustError(f"{path} holds no run: there are no records in it")
        try:
            config = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
            told = Told.model_validate_json(_text(path / "notes.json"))
            own = None if told.files is None else frozenset(told.files)
            files = [file for file in files if own is None or file.stem in own]
            flags = path / "tables" / "flags.csv"
            return cls(
                path,
                read(files) if count(files) <= MANY else read_compact(files),
                config,
                {str(k): str(v) for k, v in json.loads(_text(path / "failures.json")).items()},
                told.refused,
                told.notes,
                told.class_names,
                pd.read_csv(flags) if flags.is_file() else pd.DataFrame(columns=["raised"]),
                own,
            )
        except (OSError, ValueError, tomllib.TOMLDecodeError) as error:
            raise RobustError(f"{path}: cannot be read: {error}") from None

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def class_name(self, number: object) -> str:
        """What a class is called."""
        place = int(str(number)) if str(number).lstrip("-").isdigit() else -1
        return self.class_names[place] if 0 <= place < len(self.class_names) else str(number)

    def pictures(self) -> Iterator[tuple[dict[str, list[object]], dict[str, np.ndarray]]]:
        """The facts and arrays of every cell that has something to show."""
        for arrays in self._arrays("pictures"):
            yield json.loads(str(arrays.pop("facts"))), arrays

    def learnt(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """What fitted attacks learnt: the cell's name and the arrays."""
        for arrays in self._arrays("learnt"):
            yield str(arrays.pop("cell")), arrays

    def _arrays(self, folder: str) -> Iterator[dict[str, np.ndarray]]:
        files = (self.path / folder).glob("*.npz")
        for file in sorted(files, key=lambda f: (f.stat().st_mtime_ns, f.name)):
            if folder == "pictures" and self.own is not None and file.stem not in self.own:
                continue
            try:
                with np.load(file, allow_pickle=False) as held:
                    arrays = {name: held[name] for name in held.files}
            except (OSError, ValueError, zipfile.BadZipFile) as error:
                raise RobustError(f"{file}: cannot be read: {error}") from None
            yield arrays


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.is_file() else "{}"
