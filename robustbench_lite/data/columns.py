"""The columns of a table, and the features that stand for them: numbers scaled, categories one-hot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

NATIVE = "datetime64"
DATES = {r"\d{4}-\d\d-\d\d": "%Y-%m-%d", r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d": "%Y-%m-%d{}%H:%M:%S"}
EPOCH, DAY, SECOND = pd.Timestamp("1970-01-01"), pd.Timedelta(days=1), 1 / 86_400


def date_of(held: pd.Series) -> str:
    """How the cells of a column write dates: a format, `datetime64`, or empty for a column of others."""
    if pd.api.types.is_datetime64_any_dtype(held):
        return NATIVE if getattr(held.dt, "tz", None) is None else ""
    cells = held.dropna()
    if not len(cells) or not all(isinstance(cell, str) for cell in cells):
        return ""
    for pattern, format_ in DATES.items():
        if cells.str.fullmatch(pattern).all():
            written = format_.format(cells.iloc[0][10:11])
            good = pd.to_datetime(cells, format=written, errors="coerce").notna().all()
            return written if good else ""
    return ""


@dataclass(frozen=True)
class Column:
    """One column.

    A number is one feature, (value - low) / width · cost; where cells may be empty a second one says so. A
    category is a feature for each of its values, exactly one of which is not 0 but the cost. A category that
    is held fixed is one feature, its place among the values.

    Parameters
    ----------
    name : str
    low, width : float, default 0.0 and 1.0
        The value that becomes 0, and how much further the one that becomes 1 is.
    step : float, default 0.0
        Of its values, in its own units; 0: continuous.
    values : tuple, default ()
        Of a category; a number has none.
    fixed : bool, default False
        Whether it may not change.
    gaps : bool, default False
        Whether cells may be empty.
    members : tuple of str, default ()
        The 0/1 columns of the file that the values of this category stand for; its name is theirs together.
    cost : float, default 1.0
        What it costs to move a number from low to low + width, or a feature of a category, in units of eps.
    date : str, default ""
        Of a column of dates how they are written, as `date_of` says; its numbers are days since 1970.
    """

    name: str
    low: float = 0.0
    width: float = 1.0
    step: float = 0.0
    values: tuple[object, ...] = ()
    fixed: bool = False
    gaps: bool = False
    members: tuple[str, ...] = ()
    cost: float = 1.0
    date: str = ""

    @property
    def one_hot(self) -> bool:
        """Whether it is a feature for each value."""
        return bool(self.values) and not self.fixed

    @property
    def unit(self) -> float:
        """How much of the column's own a step of 1 in its first feature is."""
        return 1 / self.cost if self.one_hot else self.width / self.cost

    @property
    def features(self) -> list[str]:
        """What its features are called."""
        if self.members:
            return list(self.members)
        if self.one_hot:
            return [f"{self.name}={value}" for value in self.values]
        return [self.name, f"{self.name} is missing"] if self.gaps else [self.name]

    def scaled(self, frame: pd.DataFrame) -> np.ndarray:
        """Its features (n, k) in a table; a value that a category does not have is an empty choice."""
        if self.members:
            return self.cost * np.asarray(frame[list(self.members)], dtype=np.float64)
        held = frame[self.name]
        if self.values:
            place = {value: i for i, value in enumerate(self.values)}
            chosen: np.ndarray = np.array([place.get(plain(value), -1) for value in held])
            if self.one_hot:
                return self.cost * np.asarray(chosen[:, None] == np.arange(len(self.values)), np.float64)
            return chosen[:, None] / max(1, len(self.values) - 1)
        number = self.numbers(held)
        empty = np.isnan(number)
        value = np.where(empty, 0.0, (number - self.low) / self.unit)
        return np.stack([value, empty.astype(np.float64)], 1) if self.gaps else value[:, None]

    def own(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of the file that features (n, k) float64 stand for."""
        if self.members:
            chosen = (x.argmax(1)[:, None] == np.arange(len(self.members))).astype(np.int64)
            return {name: chosen[:, i] for i, name in enumerate(self.members)}
        if self.values:
            at = x.argmax(1) if self.one_hot else np.round(x[:, 0] * (len(self.values) - 1)).astype(int)
            return {self.name: np.array([self.values[i] for i in at], dtype=object)}
        moved = self.unit * x[:, 0]
        value = self.low + (self.step * np.round(moved / self.step) if self.step else moved)
        value = np.where(x[:, 1] > 0.5, np.nan, value) if self.gaps else value
        return {self.name: self._dates(value) if self.date else value}

    def numbers(self, held: pd.Series) -> np.ndarray:
        """Cells of a number, or of a date, in its own units (n,) float64; NaN where they are empty."""
        if self.date:
            held = (pd.to_datetime(held, format=None if self.date == NATIVE else self.date) - EPOCH) / DAY
        number: np.ndarray = held.to_numpy(dtype=np.float64, na_value=np.nan)
        return number

    def _dates(self, days: np.ndarray) -> np.ndarray:
        """Days since 1970 as they are written, to the second."""
        seconds = pd.Series(np.round(days / SECOND), dtype="Float64").astype("Int64")
        dates = EPOCH + pd.to_timedelta(seconds, unit="s")
        if self.date == NATIVE:
            native: np.ndarray = dates.to_numpy()
            return native
        written: np.ndarray = dates.dt.strftime(self.date).to_numpy(dtype=object)
        return written


@dataclass(frozen=True)
class Columns:
    """All columns of a table, in order.

    Examples
    --------
    >>> table = Columns((Column("age", 20.0, 60.0, step=1.0), Column("city", values=("A", "B"))))
    >>> table.features
    ['age', 'city=A', 'city=B']
    >>> x = table.scaled(pd.DataFrame({"age": [50], "city": ["B"]}))
    >>> x
    tensor([[0.5000, 0.0000, 1.0000]], dtype=torch.float64)
    >>> table.own(x).to_dict("records")
    [{'age': 50.0, 'city': 'B'}]
    """

    columns: tuple[Column, ...]

    @property
    def features(self) -> list[str]:
        """What the features are called."""
        return [name for column in self.columns for name in column.features]

    @property
    def numeric(self) -> bool:
        """Whether every column is a number, with its value in every row."""
        return all(not (c.values or c.gaps or c.date) or bool(c.members) for c in self.columns)

    @property
    def textual(self) -> bool:
        """Whether a column holds anything but numbers."""
        return any((c.values and not c.members) or c.date for c in self.columns)

    @property
    def low(self) -> Tensor:
        """The own value of each feature at 0 (d,)."""
        return self._each([c.low if i == 0 else 0.0 for c in self.columns for i in range(len(c.features))])

    @property
    def units(self) -> Tensor:
        """The size of one unit of each feature in the column's own units (d,)."""
        every = ((c, i) for c in self.columns for i in range(len(c.features)))
        return self._each([c.unit if i == 0 or c.one_hot else 1.0 for c, i in every])

    @property
    def top(self) -> Tensor:
        """Where each feature's box ends (d,), as far as the rows it is scaled by go."""
        every = ((c, i) for c in self.columns for i in range(len(c.features)))
        return self._each([c.cost if i == 0 or c.one_hot else 1.0 for c, i in every])

    @property
    def priced(self) -> bool:
        """Whether a column costs more or less than others."""
        return any(column.cost != 1 for column in self.columns)

    @property
    def spacing(self) -> Tensor | None:
        """The steps of the features (d,), 0 where they have none; None where none has."""
        steps = [
            c.cost if c.one_hot else (c.step / c.unit if i == 0 else 0.0)
            for c in self.columns
            for i in range(len(c.features))
        ]
        return self._each(steps) if any(steps) else None

    @property
    def groups(self) -> Tensor | None:
        """The choice that each feature belongs to (d,), -1 for none; None where there is none."""
        found = [place if c.one_hot else -1 for place, c in enumerate(self.columns) for _ in c.features]
        return torch.tensor(found) if max(found) >= 0 else None

    @property
    def mask(self) -> Tensor | None:
        """Which features may change (d,); None where all may. What is missing stays missing."""
        free = [(not c.fixed and i == 0) or c.one_hot for c in self.columns for i in range(len(c.features))]
        return None if all(free) else torch.tensor(free)

    def scaled(self, frame: pd.DataFrame) -> Tensor:
        """The features (n, d) float64 of a table."""
        return torch.from_numpy(np.concatenate([c.scaled(frame) for c in self.columns], 1))

    def own(self, x: Tensor) -> pd.DataFrame:
        """The table that features (n, d) stand for, in its own units."""
        found: dict[str, np.ndarray] = {}
        for column, part in self._parts(x):
            found |= column.own(part)
        return pd.DataFrame(found)

    def array(self, x: Tensor) -> np.ndarray:
        """The same as an array (n, columns) float64, empty cells NaN; for tables of numbers."""
        return np.array(self.own(x), dtype=np.float64)

    def _parts(self, x: Tensor) -> Iterator[tuple[Column, np.ndarray]]:
        values, at = x.detach().cpu().double().numpy(), 0
        for column in self.columns:
            width = len(column.features)
            yield column, values[:, at : at + width]
            at += width

    def _each(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)


def plain(value: object) -> object:
    """A cell's value, every kind of empty cell as None."""
    return None if pd.isna(value) else value  # type: ignore[call-overload]
