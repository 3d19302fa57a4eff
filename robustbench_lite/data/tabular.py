"""Tables: features scaled to [0, 1] by the training split, with what may change and in which steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidData, InvalidParameter
from robustbench_lite.data.data import Options, Raw
from robustbench_lite.data.split import divide


@dataclass(frozen=True)
class Table:
    """A table: x (n, d) float64, y (n,), what its classes, features and itself are called."""

    x: Tensor
    y: Tensor
    class_names: tuple[str, ...]
    features: Sequence[str]
    name: str


def scaled(table: Table, options: Options, integer: Sequence[str] = (), fixed: Sequence[str] = ()) -> Raw:
    """One split of a table, its features scaled by the smallest and largest of the training split.

    The box of a feature is [0, 1], widened where the test split goes beyond it; integer features move in
    whole steps and fixed ones not at all.
    """
    x, y, features, what = table.x, table.y, table.features, table.name
    train, test = divide(y, options.seed)
    for field, names in (("integer", integer), ("fixed", fixed)):
        unknown = [name for name in names if name not in features]
        if unknown:
            raise InvalidParameter(field, "|".join(unknown), f"columns of {what}: {', '.join(features)}")
    least, most = x[train].amin(0), x[train].amax(0)
    units = torch.where(most > least, most - least, 1.0)
    z = ((x - least) / units).float()
    beyond = z[test]
    low, high = beyond.amin(0).clamp_max(0.0), beyond.amax(0).clamp_min(1.0)
    wide = [name for name, a, b in zip(features, low.tolist(), high.tolist(), strict=True) if a < 0 or b > 1]
    note = f"the test split goes beyond the training split in {', '.join(wide)}: their box is widened"
    spacing = None
    if integer:
        whole = torch.tensor([name in integer for name in features])
        spacing = torch.where(whole, 1 / units, 0.0)
    mask = torch.tensor([name not in fixed for name in features]) if fixed else None
    rows = train if options.split == "train" else test
    return Raw(
        take=lambda i: z[rows][i],
        y=y[rows],
        class_names=table.class_names,
        place=lambda i: f"{what}, row {int(rows[i])}",
        domain=Domain(low, high, mask, spacing, pixel_dim=None),
        units=units,
        notes=(note,) if wide else (),
    )


def csv(options: Options, path: str, label: str, integer: str = "", fixed: str = "") -> Raw:
    """A file of numbers with a header; label: the class's column; integer, fixed: columns, A|B|C."""
    file = Path(path).expanduser()
    try:
        table = pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise InvalidData(f"{path}: cannot be read as CSV: {' '.join(str(error).split())}") from error
    if label not in table.columns:
        raise InvalidParameter("label", label, f"a column of {path}: {', '.join(map(str, table.columns))}")
    if len(table) < 2:
        raise InvalidData(f"{path}: has {len(table)} rows; two or more are needed")
    empty = table.isna().any(axis=1)
    if empty.any():
        raise InvalidData(f"{path}, row {int(empty.to_numpy().argmax())}: has an empty cell")
    inputs = table.drop(columns=[label])
    if inputs.empty:
        raise InvalidData(f"{path}: has no columns beside {label!r}")
    for column in inputs.columns:
        if not pd.api.types.is_numeric_dtype(inputs[column]):
            raise InvalidData(f"{path}: column {column!r} is not numeric; encode it first")
    number, names = pd.factorize(table[label], sort=True)
    y = torch.from_numpy(number).long()
    if len(names) < 2 or int(y.bincount().min()) < 2:
        raise InvalidData(f"{path}: column {label!r} needs two classes or more, each with two rows or more")
    x = torch.from_numpy(inputs.to_numpy(dtype="float64").copy())
    features = [str(c) for c in inputs.columns]
    listed = [[part for part in text.split("|") if part] for text in (integer, fixed)]
    class_names = tuple(str(name) for name in names)
    return scaled(Table(x, y, class_names, features, path), options, *listed)
