"""What a data set is: tensors in a domain, with stable sample ids; everything checked once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from robustbench_lite.core.dense import MultiLabel
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidData, InvalidParameter, Unsupported, require
from robustbench_lite.core.random import Stream
from robustbench_lite.core.task import NOTHING, Classification, Task
from robustbench_lite.data.columns import Columns

PIECE = 1024  # samples looked at together: they may be more than memory holds


@dataclass(frozen=True)
class Options:
    """What a loader may need.

    Parameters
    ----------
    split : {"test", "train"}, default "test"
    seed : int, default 0
        Of splits made here.
    data_dir : Path, optional
        Where files are.
    download : bool, default False
        Whether it may download.
    """

    split: str = "test"
    seed: int = 0
    data_dir: Path | None = None
    download: bool = False


@dataclass(frozen=True)
class Raw:
    """One split as its source has it.

    Parameters
    ----------
    take : callable
        Indices (m,) int64 -> inputs (m, …) float32.
    y : Tensor
        (n,) int64, classes.
    class_names : tuple of str
    place : callable
        What an index is called in errors.
    domain : Domain, default the box [0, 1]
    columns : Columns, optional
        What the features of a table stand for.
    notes : tuple of str
        What a reader of results should know.
    task : Task, default Classification()
    answers : callable, optional
        Indices (m,) -> labels (m, …) int64 of tasks whose answer has positions, -1 where one has no label;
        y is then not looked at.
    rows : Tensor, optional
        (n,) int64: the numbers that samples have where they come from, which become their ids; None: 0, 1, …

    Examples
    --------
    >>> in_memory(torch.zeros(2, 3), torch.tensor([0, 1]), ["no", "yes"], "mine").place(1)
    'mine, sample 1'
    """

    take: Callable[[Tensor], Tensor]
    y: Tensor
    class_names: tuple[str, ...]
    place: Callable[[int], str]
    domain: Domain = field(default_factory=Domain)
    columns: Columns | None = None
    notes: tuple[str, ...] = ()
    task: Task = field(default_factory=Classification)
    answers: Callable[[Tensor], Tensor] | None = None
    rows: Tensor | None = None


def in_memory(x: Tensor, y: Tensor, class_names: Sequence[str], what: str) -> Raw:
    """Tensors that are all there already."""
    return Raw(lambda i: x[i], y.long(), tuple(class_names), lambda i: f"{what}, sample {i}")


def of_labels(x: Tensor, y: Tensor, what: str) -> Raw:
    """Tensors with labels (n, L) that are there or not."""
    names = tuple(map(str, range(y.shape[1])))
    return Raw(
        lambda i: x[i], torch.zeros(len(y), dtype=torch.int64), names, lambda i: f"{what}, sample {i}",
        task=MultiLabel(), answers=lambda i: y[i],
    )  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Samples in a domain, with ids that are stable across subsets.

    `load_data` makes and checks them. Rows are chosen by a slice, a mask or indices, and keep their ids.

    Parameters
    ----------
    name : str
    x : Tensor
        (n, …) float32, in the domain.
    y : Tensor
        (n,) int64, classes; (n, …) where an answer has positions, -1 where one has no label.
    ids : Tensor
        (n,) int64, stable across subsets.
    class_names : tuple of str
    domain : Domain, default the box [0, 1]
    columns : Columns, optional
        What the features of a table stand for, and their own units.
    notes : tuple of str
        What a reader of results should know.
    source : callable, optional
        Makes the training split of the same data; None: there is none.
    task : Task, default Classification()
        What y means.

    Examples
    --------
    >>> from robustbench_lite.data.load import load_data
    >>> digits = load_data("digits", samples=5)
    >>> len(digits), digits.num_classes, digits[:2].x.shape
    (5, 10, torch.Size([2, 1, 8, 8]))
    """

    name: str
    x: Tensor
    y: Tensor
    ids: Tensor
    class_names: tuple[str, ...]
    domain: Domain = field(default_factory=Domain)
    columns: Columns | None = None
    notes: tuple[str, ...] = ()
    source: Callable[[], Data] | None = None
    task: Task = field(default_factory=Classification)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def num_classes(self) -> int:
        """Of how many classes the scores of a model for this data are."""
        return self.task.values or len(self.class_names)

    def __getitem__(self, rows: slice | Tensor) -> Data:
        return replace(self, x=self.x[rows], y=self.y[rows], ids=self.ids[rows])

    @property
    def units(self) -> Tensor | None:
        """The size of one unit of each feature of a table in its own units (d,); None for other data."""
        return None if self.columns is None else self.columns.units

    def training(self) -> Data:
        """The training split.

        Raises
        ------
        Unsupported
            For data that has none.
        """
        if self.source is None:
            raise Unsupported(f"data {self.name!r} has no training split, so no model can be trained on it")
        return self.source()

    def fingerprint(self) -> str:
        """sha256 of samples, labels, ids and the domain."""
        digest = hashlib.sha256(f"{tuple(self.x.shape)} {self.class_names}".encode())
        for part in (*torch.split(self.x, PIECE), self.y, self.ids):
            digest.update(part.contiguous().numpy().tobytes())
        digest.update(self.domain.fingerprint().encode())
        if self.y.dim() > 1:
            digest.update(repr(self.task).encode())
        return digest.hexdigest()


def chosen(ids: Tensor, samples: int, seed: int) -> Tensor:
    """So many of some ids, by a hash, so that a larger choice contains a smaller one."""
    order = Stream.of(seed, ids).fold("samples").uniform((), torch.float64).argsort()
    return ids[order[:samples]].sort().values


def finish(
    name: str,
    raw: Raw,
    samples: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    source: Callable[[], Data] | None = None,
) -> Data:
    """Choose classes and samples, load them and check every one.

    Parameters
    ----------
    name : str
    raw : Raw
    samples : int, optional
        How many, at least 1, chosen by a hash of (seed, id) so that a larger choice contains a smaller one;
        None: all.
    seed : int, default 0
    classes : sequence of str, optional
        Two or more of the class names, which become classes 0, 1, … in this order; None: all.
    source : callable, optional
        Makes the training split.

    Returns
    -------
    Data

    Raises
    ------
    InvalidData
        Naming the file or index at fault.
    InvalidParameter
        For classes or samples that cannot be chosen.
    """
    if not len(raw.y):
        raise InvalidData(f"{name}: has no samples")
    ids = torch.arange(len(raw.y))
    wrong = ((raw.y < 0) | (raw.y >= len(raw.class_names))).nonzero()
    if len(wrong):
        index = int(wrong[0])
        allowed = f"0 to {len(raw.class_names) - 1}"
        raise InvalidData(f"{raw.place(index)}: label {int(raw.y[index])}; must be {allowed}")
    y, names = raw.y, raw.class_names
    if classes and raw.answers is not None:
        raise InvalidParameter("classes", "|".join(classes), f"left out: {name} labels positions")
    if classes:
        unknown = [c for c in classes if c not in names]
        if unknown or len(set(classes)) < 2:
            raise InvalidParameter("classes", "|".join(classes), f"two or more of {', '.join(names)}")
        number = torch.full((len(names),), -1)
        for new, one in enumerate(classes):
            number[names.index(one)] = new
        ids = ids[number[y] >= 0]
        y, names = number[y], tuple(classes)
    if samples is not None:
        require(samples >= 1, "samples", samples, "at least 1")
        ids = chosen(ids, samples, seed)
    if not len(ids):
        raise InvalidData(f"{name}: has no samples of the classes {'|'.join(names)}")
    x = raw.take(ids)
    _check(x, ids, raw)
    answers = y[ids] if raw.answers is None else _checked(raw.answers(ids), ids, raw)
    if raw.task.kind == "segmentation" and answers.shape[1:] != x.shape[2:]:
        own, other = tuple(answers.shape[1:]), tuple(x.shape[2:])
        raise InvalidData(f"{name}: masks of {own} pixels for images of {other}")
    ids = ids if raw.rows is None else raw.rows[ids]
    return Data(name, x, answers, ids, names, raw.domain, raw.columns, raw.notes, source, raw.task)


def _checked(y: Tensor, ids: Tensor, raw: Raw) -> Tensor:
    """Labels (n, …) of answers with positions; raises `InvalidData` for the first that cannot be."""
    values = raw.task.values or len(raw.class_names)
    wrong = ((y < NOTHING) | (y >= values)).flatten(1)
    empty = (y == NOTHING).flatten(1).all(1)
    if bool(wrong.any()):
        row = int(wrong.any(1).nonzero()[0])
        allowed = f"0 to {values - 1}, or -1 where there is none"
        label = int(y[row].flatten()[wrong[row]][0])
        raise InvalidData(f"{raw.place(int(ids[row]))}: label {label}; must be {allowed}")
    if bool(empty.any()):
        raise InvalidData(f"{raw.place(int(ids[int(empty.nonzero()[0])]))}: has no label at any position")
    return y.long()


def _check(x: Tensor, ids: Tensor, raw: Raw) -> None:
    if x.dtype != torch.float32 or x.dim() < 2:
        raise InvalidData(
            f"{raw.place(0)}: {x.dtype} {tuple(x.shape)}; must be float32 (n, features) or (n, C, H, W)"
        )
    good = torch.cat([raw.domain.inside(part) for part in torch.split(x, PIECE)])
    if not bool(good.all()):
        row = int((~good).nonzero()[0])
        low, high = float(x[row].min()), float(x[row].max())
        allowed = "NaN" if low != low else f"values from {low:g} to {high:g}"
        raise InvalidData(f"{raw.place(int(ids[row]))}: {allowed}; must lie in the box, [0, 1] for images")
