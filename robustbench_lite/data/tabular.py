"""Tables: their columns as features scaled by the training split, with what may change and in which steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidData, InvalidParameter
from robustbench_lite.core.guard import one_line
from robustbench_lite.core.orders import Order
from robustbench_lite.core.parameters import Share, check_fields
from robustbench_lite.data.columns import SECOND, Column, Columns, date_of, plain
from robustbench_lite.data.data import Options, Raw
from robustbench_lite.data.split import divide

FLOAT = 2.0**-24  # what float32 may be off by, as a share of 1
MOST_VALUES = 100  # of a column of text; one with more is a name or a number, and stays as it is
Names = Sequence[str]
Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table: frame (n rows), y (n,), what its classes and itself are called."""

    frame: pd.DataFrame
    y: Tensor
    class_names: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Kinds:
    """What a user said of columns: those in whole steps, that stay, that are one choice; what each costs.

    order: pairs of which the first may not pass the second.
    """

    integer: Names = ()
    fixed: Names = ()
    onehot: Sequence[Names] = ()
    cost: Mapping[str, float] = field(default_factory=dict)
    order: Pairs = ()


def scaled(table: Table, options: Options, kinds: Kinds = Kinds(), share: float | None = 0.3) -> Raw:
    """One split of a table, its numbers scaled by the smallest and largest of the training split.

    share: of the rows for testing; None: all of them, which then are what it is scaled by.

    The box of a number is [0, 1], or as high as its cost, widened where the test split goes beyond it;
    integer columns move in whole steps, fixed ones not at all, and a category is one choice of its values.
    """
    frame, y, what = table.frame, table.y, table.name
    every = torch.arange(len(y))
    train, test = (every, every) if share is None else divide(y, options.seed, what, share)
    columns, notes = columns_of(frame, train, kinds, what)
    z = columns.scaled(frame).float()
    beyond = z[test]
    low, high = beyond.amin(0).clamp_max(0.0), torch.maximum(beyond.amax(0), columns.top.float())
    pairs = zip(columns.features, low.tolist(), (high / columns.top.float()).tolist(), strict=True)
    wide = [name for name, a, b in pairs if a < 0 or b > 1]
    note = f"the test split goes beyond the training split in {', '.join(wide)}: their box is widened"
    rows = train if options.split == "train" else test
    orders, told = _orders(frame, columns, kinds.order, what)
    domain = Domain(low, high, columns.mask, columns.spacing, None, columns.groups, orders)
    return Raw(
        take=lambda i: z[rows][i],
        y=y[rows],
        class_names=table.class_names,
        place=lambda i: f"{what}, row {int(rows[i])}",
        domain=domain,
        columns=columns,
        rows=rows,
        notes=(*((note,) if wide else ()), *notes, *told),
    )


def columns_of(frame: pd.DataFrame, train: Tensor, kinds: Kinds, what: str) -> tuple[Columns, list[str]]:
    """The columns of a table, scaled by its training rows; and what a reader should know of them."""
    names = [str(name) for name in frame.columns]
    asked = [name for group in kinds.onehot for name in group]
    said = {
        "integer": kinds.integer,
        "fixed": kinds.fixed,
        "onehot": asked,
        "cost": list(kinds.cost),
        "order": [name for pair in kinds.order for name in pair],
    }
    for option, given in said.items():
        unknown = [name for name in given if name not in names]
        if unknown:
            raise InvalidParameter(option, "|".join(unknown), f"columns of {what}: {', '.join(names)}")
    for name in kinds.integer:
        if not _whole(frame[name]):
            raise InvalidParameter("integer", name, f"a column of whole numbers; {what} has others in it")
    groups = [tuple(group) for group in kinds.onehot]
    for group in groups:
        if not _one_hot(frame[list(group)]):
            allowed = "columns of which exactly one is 1 in every row"
            raise InvalidParameter("onehot", "|".join(group), allowed)
    found = _groups(frame, set(asked) | set(kinds.fixed))
    notes = [
        f"{what}: exactly one of {', '.join(group)} is 1 in every row: they are taken as one choice"
        for group in found
    ]
    made: list[Column] = []
    member_of = {name: group for group in [*groups, *found] for name in group}
    kept: list[str] = []
    whole: list[str] = []
    for name in names:
        if name in member_of:
            group = member_of[name]
            if name == group[0]:
                made.append(Column("|".join(group), values=group, members=group))
            continue
        held = frame[name]
        if pd.api.types.is_numeric_dtype(held) and not pd.api.types.is_bool_dtype(held):
            column = _number(name, held, train, kinds)
            made.append(column)
            whole += [name] * (not column.step and not column.fixed and _whole(held))
            continue
        date = date_of(held)
        if date:
            made.append(_number(name, held, train, kinds, date))
            continue
        values = tuple(sorted({plain(value) for value in held}, key=lambda v: (v is None, str(v))))
        many = len(values) > MOST_VALUES
        kept += [name] * many
        made.append(Column(name, values=values, fixed=many or name in kinds.fixed))
    if kept:
        told = ", ".join(kept)
        notes.append(f"{what}: {told} hold more than {MOST_VALUES} different texts, and stay as they are")
    if whole:
        told = "|".join(whole)
        notes.append(f"{what}: whole numbers may become fractions, unless the data says integer={told}")
    dates = [c for c in made if c.date and not c.fixed]
    if dates:
        told = ", ".join(c.name for c in dates)
        coarse = max(c.width for c in dates) * FLOAT / SECOND
        times = f", and with times as float32 holds them, to {coarse:.0f} s" * any(not c.step for c in dates)
        notes.append(f"{what}: {told} are dates, which move in whole days{times}")
    gaps = [c.name for c in made if c.gaps]
    if gaps:
        notes.append(f"{what}: {', '.join(gaps)} have empty cells, which stay empty")
    priced = [replace(column, cost=_cost_of(column, kinds.cost, what)) for column in made]
    if kinds.cost:
        notes.append(f"{what}: eps and distances are in units of cost; the zoo's models are trained in these")
    return Columns(tuple(priced)), notes


def _orders(
    frame: pd.DataFrame, columns: Columns, pairs: Pairs, what: str
) -> tuple[tuple[Order, ...], list[str]]:
    """Of each pair of columns the order of their features, and a note where rows do not keep it."""
    place: dict[str, tuple[int, Column]] = {}
    at = 0
    for column in columns.columns:
        place[column.name] = at, column
        at += len(column.features)
    made, notes = [], []
    for low, high in pairs:
        text = f"{low}<={high}"
        numbers = [place[name] for name in (low, high) if name in place and not place[name][1].values]
        if low == high or len(numbers) < 2 or bool(numbers[0][1].date) != bool(numbers[1][1].date):
            raise InvalidParameter("order", text, f"two columns of {what}, both of numbers or both of dates")
        (first, one), (second, other) = numbers
        if one.gaps or other.gaps:
            raise InvalidParameter("order", text, "columns without empty cells")
        made.append(Order(first, second, one.unit, other.unit, other.low - one.low))
        broken = int((one.numbers(frame[low]) > other.numbers(frame[high])).sum())
        if broken:
            notes.append(f"{what}: {text} does not hold in {broken} rows, where it may not get worse")
    return tuple(made), notes


def _cost_of(column: Column, cost: Mapping[str, float], what: str) -> float:
    """What a column costs, 1 where nothing is said of it; of 0/1 columns that are one choice what all do."""
    said = {name: cost[name] for name in column.members or (column.name,) if name in cost}
    if said and column.fixed:
        raise InvalidParameter("cost", "|".join(said), f"columns of {what} that may change")
    if len(set(said.values())) > 1:
        told = "|".join(f"{name}:{number:g}" for name, number in said.items())
        raise InvalidParameter("cost", told, "one cost for all columns of one choice")
    return next(iter(said.values()), 1.0)


def _number(name: str, held: pd.Series, train: Tensor, kinds: Kinds, date: str = "") -> Column:
    """A column of numbers, or of dates as `date_of` calls them."""
    column = Column(name, fixed=name in kinds.fixed, date=date)
    number = column.numbers(held)
    known = number[~np.isnan(number)]
    seen = number[train.numpy()]
    seen = seen[~np.isnan(seen)]
    least, most = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    width = most - least if most > least else 1.0
    whole_days = bool(date) and bool((known == np.round(known)).all())
    step = float(whole_days or name in kinds.integer)
    return replace(column, low=least, width=width, step=step, gaps=bool(np.isnan(number).any()))


def _whole(held: pd.Series) -> bool:
    """Whether a column holds whole numbers, and some."""
    if not pd.api.types.is_numeric_dtype(held) or pd.api.types.is_bool_dtype(held):
        return False
    numbers = held.dropna()
    return len(numbers) > 0 and bool((numbers == numbers.round()).all())


def _one_hot(part: pd.DataFrame) -> bool:
    """Whether exactly one of several columns is 1 in every row, and the others 0."""
    try:
        numbers = part.astype("float64").to_numpy()
    except (TypeError, ValueError):
        return False
    return bool(((numbers == 0) | (numbers == 1)).all() and (numbers.sum(1) == 1).all())


def _groups(frame: pd.DataFrame, taken: set[str]) -> list[tuple[str, ...]]:
    """Columns that begin alike, up to the last _ or =, and of which exactly one is 1 in every row."""
    alike: dict[str, list[str]] = {}
    for name in map(str, frame.columns):
        head = max(name.rpartition("_")[0], name.rpartition("=")[0], key=len)
        if head and name not in taken:
            alike.setdefault(head, []).append(name)
    return [tuple(names) for names in alike.values() if len(names) > 1 and _one_hot(frame[names])]


@dataclass(frozen=True)
class CSV:
    """A file with a header. Columns of text are categories, of dates days, and cells may be empty.

    Parameters
    ----------
    path : str
    label : str
        The class's column.
    integer, fixed : str, default ""
        Columns A|B|C that move in whole steps, or not at all.
    onehot : str, default ""
        Columns A|B of which exactly one is 1; several such choices divided by a semicolon.
    cost : str, default ""
        A:2|B:0.5, what it costs to move a number over its whole range or to take another choice; 1 where
        nothing is said.
    order : str, default ""
        A<=B|C<=D: columns of which the first may not pass the second.
    split : float, default 0.3
        The share of the rows that is for testing; 1: all.
    """

    path: str
    label: str
    integer: str = ""
    fixed: str = ""
    onehot: str = ""
    cost: str = ""
    order: str = ""
    split: Share = 0.3

    def __post_init__(self) -> None:
        check_fields(self)

    def read(self, options: Options) -> Raw:
        """One split of it."""
        path, label = self.path, self.label
        try:
            file = Path(path).expanduser()
            table = read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
        except InvalidData:
            raise
        except Exception as error:  # pandas has many words for what is no table
            raise InvalidData(f"{path}: cannot be read as a table: {one_line(error)}") from error
        table.columns = [str(name) for name in table.columns]
        if label not in table.columns:
            raise InvalidParameter(
                "label", label, f"a column of {path}: {', '.join(map(str, table.columns))}"
            )
        groups = [_listed(part) for part in self.onehot.split(";") if part]
        costs, pairs = _costs(self.cost), _pairs(self.order)
        kinds = Kinds(_listed(self.integer), _listed(self.fixed), groups, costs, pairs)
        made = labelled(table.drop(columns=[label]), table[label], path, label)
        raw = scaled(made, options, kinds, None if self.split == 1 else self.split)
        told = f"{path}: {len(raw.y)} of {len(table)} rows are tested, the others train; split=1 tests all"
        return raw if self.split == 1 else replace(raw, notes=(told, *raw.notes))


def labelled(inputs: pd.DataFrame, labels: pd.Series, name: str, label: str) -> Table:
    """A table with its classes; raises `InvalidData` for what no table of samples is."""
    if len(inputs) < 2:
        raise InvalidData(f"{name}: has {len(inputs)} rows; two or more are needed")
    if inputs.shape[1] == 0:
        raise InvalidData(f"{name}: has no columns beside {label!r}")
    empty = labels.isna().to_numpy()
    if empty.any():
        raise InvalidData(f"{name}, row {int(empty.argmax())}: has no label in {label!r}")
    number, names = pd.factorize(labels, sort=True)
    y = torch.from_numpy(number).long()
    if len(names) < 2 or int(y.bincount().min()) < 2:
        raise InvalidData(f"{name}: column {label!r} needs two classes or more, each with two rows or more")
    numeric = inputs.select_dtypes("number")
    if bool(numeric.isin([float("inf"), float("-inf")]).any(axis=None)):
        row, column = (int(i[0]) for i in numeric.isin([float("inf"), float("-inf")]).to_numpy().nonzero())
        raise InvalidData(f"{name}, row {row}: {numeric.columns[column]} is infinite")
    return Table(inputs, y, tuple(str(c) for c in names), name)


def _costs(text: str) -> dict[str, float]:
    """A:2|B:0.5 as numbers above 0."""
    found = {}
    for part in _listed(text):
        name, _, number = part.rpartition(":")
        try:
            found[name] = float(number)
        except ValueError:
            raise InvalidParameter("cost", part, "COLUMN:NUMBER, several divided by |") from None
        if not 0 < found[name] < float("inf"):
            raise InvalidParameter("cost", part, "above 0 and finite; a column that may not change is fixed")
    return found


def _pairs(text: str) -> list[tuple[str, str]]:
    """A<=B|C<=D as pairs."""
    found = []
    for part in _listed(text):
        low, sign, high = (piece.strip() for piece in part.partition("<="))
        if not (low and sign and high) or "<=" in high:
            raise InvalidParameter("order", part, "COLUMN<=COLUMN, several divided by |")
        found.append((low, high))
    return found


def _listed(text: str) -> list[str]:
    return [part for part in text.split("|") if part]


def read_parquet(file: Path) -> pd.DataFrame:
    """A table of a Parquet file, as its CSV file would be read; raises `InvalidData` for other cells."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file).replace_schema_metadata()  # which says what pandas would make of it
    for place, column in enumerate(table.schema):
        kind = column.type
        wanted = kind
        if pa.types.is_decimal(kind):
            wanted = pa.float64()
        elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
            wanted = pa.timestamp("ns")
        elif pa.types.is_dictionary(kind):
            wanted = kind.value_type
        number = pa.types.is_integer(wanted) or pa.types.is_floating(wanted) or pa.types.is_boolean(wanted)
        text = pa.types.is_string(wanted) or pa.types.is_large_string(wanted)
        if not (number or text or pa.types.is_timestamp(wanted)):
            raise InvalidData(f"{file}: column {column.name} holds {kind}; must be numbers, text or dates")
        if wanted != kind:
            table = table.set_column(place, column.name, table.column(place).cast(wanted))
    found: pd.DataFrame = table.to_pandas()
    return found
