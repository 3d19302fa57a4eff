"""The results of a run: records and their tables, for Python, the terminal, the page and exports alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from robustbench_lite.core.errors import RobustError, UnknownName
from robustbench_lite.records.folder import Folder
from robustbench_lite.reports.tables.catalogue import TABLES, Styled
from robustbench_lite.reports.tables.corruptions import of_attacks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = (
    "model",
    "attack",
    "threat",
    "goal",
    "samples",
    "clean",
    "success",
    "low",
    "high",
    "proven",
    "robust",
)


@dataclass(frozen=True)
class Results:
    """What a run found.

    Parameters
    ----------
    records : pandas.DataFrame
        One row a sample, job and judge.
    path : Path, optional
        The run's folder, where one was written.
    failures : mapping
        job -> traceback.
    refused : mapping
        job -> why it cannot be.
    notes : sequence of str
        What to know of data and models.
    class_names : sequence of str
    config : mapping
        What the run was asked for, and what that came to under `resolved`.
    flags : pandas.DataFrame
        What `robust diagnose` found.
    missing : sequence of str
        Keys of jobs whose records are gone, or not there yet.
    finished : bool
        Whether all jobs were gone through.
    """

    records: pd.DataFrame
    path: Path | None = None
    failures: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    class_names: Sequence[str] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    flags: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["raised"]))
    missing: Sequence[str] = ()
    finished: bool = True
    _tables: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> Results:
        """The results in a folder; raises `RobustError` where there is no run, or it cannot be read."""
        folder = Folder.open(path)
        told = folder.told()
        held = cls(
            folder.records(), path, told.failures, told.refused, tuple(told.notes), tuple(told.class_names)
        )
        return held.in_folder(folder)

    def in_folder(self, folder: Folder) -> Results:
        """These results with what their folder holds beside the records."""
        flags = folder.path / "tables" / "flags.csv"
        try:
            raised = pd.read_csv(flags) if flags.is_file() else pd.DataFrame(columns=["raised"])
        except (OSError, ValueError) as error:
            raise RobustError(f"{flags}: cannot be read: {error}") from None
        return replace(
            self,
            path=folder.path,
            config=folder.config(),
            flags=raised,
            missing=tuple(folder.missing()),
            finished=folder.told().finished,
        )

    @property
    def name(self) -> str:
        """What the run is called."""
        return "run" if self.path is None else self.path.resolve().name

    @property
    def folder(self) -> Folder | None:
        """The run's folder."""
        return None if self.path is None else Folder(self.path)

    def table(self, name: str = "summary") -> pd.DataFrame:
        """A table of the records by name, made once: `summary`, `worst_case`, … (`reports.tables`)."""
        if name not in TABLES:
            raise UnknownName("table", name, TABLES)
        if name not in self._tables:
            records = self.records if name == "corruptions" else of_attacks(self.records)
            self._tables[name] = TABLES[name](records)
        return Styled(self._tables[name])

    def to_html(self) -> str:
        """The summary and the notes as HTML; everything in it is escaped."""
        table = pd.DataFrame(self.table("summary"))
        shown = table.loc[:, [c for c in SHOWN if c in table]].to_html(
            index=False, float_format="{:.3f}".format
        )
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return f"{shown}<ul>{notes}</ul>"

    def _repr_html_(self) -> str:
        return self.to_html()

    def plot(self, threat: str | None = None) -> Figure:
        """The success rates of every attack on every model under one threat, as bars.

        Parameters
        ----------
        threat : str, optional
            None: the first that there is.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        UnknownName
            For a threat that was not run.
        """
        from robustbench_lite.reports.figures.rates import bars

        names = list(dict.fromkeys(self.records["threat"].astype(str)))
        chosen = threat or (names[0] if names else "")
        if chosen not in names:
            raise UnknownName("threat", chosen, names)
        part = self.table("summary")
        return bars(part.loc[part["threat"] == chosen], chosen)

    def class_name(self, number: object) -> str:
        """What a class is called."""
        place = int(str(number)) if str(number).lstrip("-").isdigit() else -1
        return self.class_names[place] if 0 <= place < len(self.class_names) else str(number)
