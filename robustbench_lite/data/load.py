"""`load_data`: a data set by name, by path, or from what the user already has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustbench_lite.core.errors import InvalidData, InvalidParameter, require
from robustbench_lite.core.parameters import Count, Seed, converted
from robustbench_lite.core.registry import arguments, given, load, look_up, read_name
from robustbench_lite.data.data import Data, Options, Raw, chosen, finish, in_memory, of_labels


class Reader(Protocol):
    """Data whose many options are the fields of a class."""

    def read(self, options: Options) -> Raw: ...


DataLike = str | Data | Dataset[tuple[Tensor, int]] | tuple[object, object]


def load_data(
    data: DataLike,
    split: str = "test",
    samples: int | None = None,
    data_dir: str | Path | None = None,
    seed: int = 0,
    download: bool = False,
) -> Data:
    """Samples of a data set, as tensors in [0, 1] with stable ids.

    Parameters
    ----------
    data : str, Data, torch Dataset or tuple
        A name (`digits`, `mnist:classes=3|7`, `folder:PATH,size=32`, `npz:PATH`, `csv:PATH,label=NAME`), a
        torch `Dataset` or `DataLoader` of (image, class, …), a pair (x, y), or `Data`. x is (n, d), (n, H, W)
        or (n, C, H, W): a tensor, an array, a DataFrame or a list, uint8 or in [0, 1]; y (n,) whole numbers
        or text, or one-hot rows, or (n, L) labels that are there or not.
    split : {"test", "train"}, default "test"
        Of a name.
    samples : int, optional
        How many, chosen by the seed, so that a larger choice contains a smaller one; None: all.
    data_dir : str or Path, optional
        Where torchvision's files are.
    seed : int, default 0
        Of the choice, and of splits made here.
    download : bool, default False
        Whether files may be downloaded.

    Returns
    -------
    Data

    Raises
    ------
    UnknownName
        For a name that is in no table.
    InvalidData
        For data that cannot be used; the message names the file and the index.
    InvalidParameter
        For a parameter outside what is allowed.

    Examples
    --------
    >>> load_data("digits", samples=5).x.shape
    torch.Size([5, 1, 8, 8])
    >>> load_data((torch.rand(4, 3), torch.tensor([0, 1, 1, 0]))).class_names
    ('0', '1')
    """
    require(split in ("test", "train"), "split", split, "test or train")
    seed = int(cast(int, converted("seed", seed, Seed)))
    samples = cast("int | None", converted("samples", samples, Count | None))
    if isinstance(data, Data):
        order = torch.arange(len(data)) if samples is None else _some(data, samples, seed)
        return data[order]
    options = Options(split, seed, None if data_dir is None else Path(data_dir).expanduser(), download)
    if not isinstance(data, str):
        return finish("own data", _own(data, options), samples, seed)
    name = read_name("data", data)
    entry = look_up("data", name.head)
    values = given(entry, name)
    classes = values.pop("classes", None)
    found = load(entry.where, "data")
    function, options_of_it = cast(Callable[..., Raw], found), dict[str, object]()
    if isinstance(found, type):
        function = cast(Reader, found(**arguments(found, values, skip=0))).read
    else:
        options_of_it = arguments(function, values, skip=1)
    wanted = str(classes).split("|") if classes else None

    def read(split: str, samples: int | None = None, source: Callable[[], Data] | None = None) -> Data:
        raw = function(replace(options, split=split), **options_of_it)
        return finish(data, raw, samples, seed, wanted, source)

    return read(split, samples, Once(functools.partial(read, "train")))


@dataclass
class Once:
    """What is read when first asked for, and kept; unlike a cached function it can be sent elsewhere."""

    read: Callable[[], Data]
    held: Data | None = None

    def __call__(self) -> Data:
        if self.held is None:
            self.held = self.read()
        return self.held


def _own(data: object, options: Options) -> Raw:
    """A pair (x, y), a torch `Dataset` or a `DataLoader` of pairs."""
    from robustbench_lite.data.arrays import as_inputs, from_dataset
    from robustbench_lite.data.given import classes, label_sets, numbers
    from robustbench_lite.data.tabular import labelled, scaled

    what = "own data"
    if isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], pd.DataFrame):
        frame = data[0].rename(columns=str).reset_index(drop=True)
        whole = frame.select_dtypes("number").shape[1] == frame.shape[1] and not frame.isna().any(axis=None)
        inside = whole and len(frame) and float(frame.min().min()) >= 0 and float(frame.max().max()) <= 1
        if not inside:  # a table in its own units
            number, names = classes(data[1], len(frame), f"{what}: y")
            labels = pd.Series(number.numpy() if names is None else np.array(names)[number.numpy()])
            return scaled(labelled(frame, labels, what, "y"), options, share=None)
    if isinstance(data, tuple | list) and len(data) == 2:
        x = as_inputs(numbers(data[0], f"{what}: x"), what)
        sets = label_sets(data[1])
        if sets is not None and len(sets) == len(x):
            return of_labels(x, sets, what)
        y, names = classes(data[1], len(x), f"{what}: y")
        if not len(y):
            raise InvalidData(f"{what}: has no samples")
        return in_memory(x, y, names or [str(c) for c in range(int(y.max()) + 1)], what)
    if isinstance(data, DataLoader):
        data = data.dataset
    if isinstance(data, Dataset) and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return from_dataset(cast("Dataset[tuple[object, ...]]", data))
    told = f"{type(data).__name__} of {len(data)}" if isinstance(data, tuple | list) else type(data).__name__
    raise InvalidParameter("data", told, "a name, a pair (x, y), a torch Dataset of pairs, or Data")


def _some(data: Data, samples: int, seed: int) -> Tensor:
    require(samples >= 1, "samples", samples, "at least 1")
    return chosen(torch.arange(len(data)), samples, seed)
