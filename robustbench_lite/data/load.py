"""`load_data`: a data set by name, by path, or from what the user already has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from robustbench_lite.core.errors import InvalidParameter, require
from robustbench_lite.core.registry import arguments, given, load, look_up, read_name
from robustbench_lite.data.data import Data, Options, Raw, finish

DataLike = str | Data | Dataset[tuple[Tensor, int]] | tuple[Tensor, Tensor]


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
        torch `Dataset` of (image, class), a pair (x, y), or `Data`. x is (n, d), (n, H, W) or (n, C, H, W),
        uint8 or floating point in [0, 1]; y (n,) whole numbers.
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
    if isinstance(data, Data):
        order = torch.arange(len(data)) if samples is None else _some(data, samples, seed)
        return data[order]
    options = Options(split, seed, None if data_dir is None else Path(data_dir).expanduser(), download)
    if not isinstance(data, str):
        return finish("own data", _own(data), samples, seed)
    name = read_name("data", data)
    entry = look_up("data", name.head)
    values = given(entry, name)
    classes = values.pop("classes", None)
    function = cast(Callable[..., Raw], load(entry.where, "data"))
    options_of_it = arguments(function, values, skip=1)
    chosen = str(classes).split("|") if classes else None

    @functools.cache
    def training() -> Data:
        raw = function(replace(options, split="train"), **options_of_it)
        return finish(data, raw, None, seed, chosen)

    return finish(data, function(options, **options_of_it), samples, seed, chosen, training)


def _own(data: object) -> Raw:
    from robustbench_lite.data.arrays import as_inputs, from_dataset
    from robustbench_lite.data.data import in_memory

    if isinstance(data, tuple) and len(data) == 2:
        x, y = (torch.as_tensor(part).cpu() for part in data)
        if len(x) != len(y) or y.dim() != 1 or y.is_floating_point():
            raise InvalidParameter(
                "data", f"x {tuple(x.shape)}, y {y.dtype} {tuple(y.shape)}", "(n, …), (n,)"
            )
        classes = [str(c) for c in range(int(y.max()) + 1)] if len(y) else []
        return in_memory(as_inputs(x.numpy(), "own data"), y, classes, "own data")
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return from_dataset(cast("Dataset[tuple[Tensor, int]]", data))
    raise InvalidParameter("data", type(data).__name__, "a name, a torch Dataset, a pair (x, y) or Data")


def _some(data: Data, samples: int, seed: int) -> Tensor:
    require(samples >= 1, "samples", samples, "at least 1")
    raw = Raw(lambda i: data.x[i], data.y, data.class_names, str, data.domain)
    return finish(data.name, raw, samples, seed).ids
