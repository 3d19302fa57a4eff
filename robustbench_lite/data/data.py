"""What a data set is: tensors in a domain, with stable sample ids; everything checked once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidData, InvalidParameter, Unsupported, require
from robustbench_lite.core.random import Stream


@dataclass(frozen=True)
class Options:
    """What a loader may need: which split, the seed of splits made here, where files are, may it download."""

    split: str = "test"
    seed: int = 0
    data_dir: Path | None = None
    download: bool = False


@dataclass(frozen=True)
class Raw:
    """One split as its source has it.

    take: inputs (m, …) for indices (m,); y (n,) int64; place: what an index is called in errors. units: the
    size of one scaled unit of each feature, in the feature's own units.
    """

    take: Callable[[Tensor], Tensor]
    y: Tensor
    class_names: tuple[str, ...]
    place: Callable[[int], str]
    domain: Domain = field(default_factory=Domain)
    units: Tensor | None = None
    notes: tuple[str, ...] = ()


def in_memory(x: Tensor, y: Tensor, class_names: Sequence[str], what: str) -> Raw:
    """Tensors that are all there already."""
    return Raw(lambda i: x[i], y.long(), tuple(class_names), lambda i: f"{what}, sample {i}")


@dataclass(frozen=True)
class Data:
    """Samples x (n, …) float32 in the domain, classes y (n,) int64, ids (n,) int64 stable across subsets.

    units: the size of one scaled unit of each feature in its own units, for tables. training: the training
    split of the same data.
    """

    name: str
    x: Tensor
    y: Tensor
    ids: Tensor
    class_names: tuple[str, ...]
    domain: Domain = field(default_factory=Domain)
    units: Tensor | None = None
    notes: tuple[str, ...] = ()
    source: Callable[[], Data] | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __getitem__(self, rows: slice | Tensor) -> Data:
        return replace(self, x=self.x[rows], y=self.y[rows], ids=self.ids[rows])

    def training(self) -> Data:
        """The training split; raises `Unsupported` for data that has none."""
        if self.source is None:
            raise Unsupported(f"data {self.name!r} has no training split, so no model can be trained on it")
        return self.source()

    def fingerprint(self) -> str:
        """sha256 of samples, labels, ids and the domain."""
        digest = hashlib.sha256(f"{tuple(self.x.shape)} {self.class_names}".encode())
        for tensor in (self.x, self.y, self.ids):
            digest.update(tensor.contiguous().numpy().tobytes())
        digest.update(self.domain.fingerprint().encode())
        return digest.hexdigest()


def finish(
    name: str,
    raw: Raw,
    samples: int | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    source: Callable[[], Data] | None = None,
) -> Data:
    """Choose classes and samples, load them and check every one.

    samples: how many, chosen by a hash of (seed, id) so that a larger choice contains a smaller one.
    Raises `InvalidData` naming the file or index at fault.
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
        order = Stream.of(seed, ids).fold("samples").uniform((), torch.float64).argsort()
        ids = ids[order[:samples]].sort().values
    if not len(ids):
        raise InvalidData(f"{name}: has no samples of the classes {'|'.join(names)}")
    x = raw.take(ids)
    _check(x, ids, raw)
    return Data(name, x, y[ids], ids, names, raw.domain, raw.units, raw.notes, source)


def _check(x: Tensor, ids: Tensor, raw: Raw) -> None:
    if x.dtype != torch.float32 or x.dim() < 2:
        raise InvalidData(
            f"{raw.place(0)}: {x.dtype} {tuple(x.shape)}; must be float32 (n, features) or (n, C, H, W)"
        )
    good = raw.domain.inside(x)
    if not bool(good.all()):
        row = int((~good).nonzero()[0])
        low, high = float(x[row].min()), float(x[row].max())
        allowed = "NaN" if low != low else f"values from {low:g} to {high:g}"
        raise InvalidData(f"{raw.place(int(ids[row]))}: {allowed}; must lie in the box, [0, 1] for images")
