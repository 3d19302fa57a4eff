"""What a user has in memory, as tensors: arrays, frames, lists and sparse matrices; labels of any kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.core.errors import InvalidData

MOST_CLASSES = 100_000  # a larger label is a number of something else
TAKES = "an array, a tensor, a DataFrame or a list of numbers"


def numbers(values: object, what: str) -> Tensor:
    """Numbers of any kind as a dense tensor on the CPU, outside any graph, in their own type.

    Raises `InvalidData` for what holds none.
    """
    if isinstance(values, Tensor):
        try:
            dense = values.detach().to_dense() if values.layout is not torch.strided else values.detach()
            return dense.cpu()
        except (RuntimeError, NotImplementedError) as error:
            raise InvalidData(f"{what}: cannot be read: {str(error).splitlines()[0]}") from None
    if hasattr(values, "toarray"):  # SciPy's sparse matrices
        values = values.toarray()
    if values is None or isinstance(values, str | bytes | dict | set):
        raise InvalidData(f"{what} is {type(values).__name__}; must be {TAKES}")
    try:
        array = values.to_numpy() if isinstance(values, pd.DataFrame | pd.Series) else np.asarray(values)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except Exception as error:  # arrays are made by whatever the object defines
        raise InvalidData(f"{what}: is no table of numbers ({_first(error)}); must be {TAKES}") from None
    if array.dtype.kind not in "buif":
        raise InvalidData(f"{what}: holds {array.dtype}; must be {TAKES}")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype in (np.dtype("longdouble"), np.dtype("uint16"), np.dtype("uint32"), np.dtype("uint64")):
        native = native.astype(np.float64)
    return torch.from_numpy(np.array(native, order="C"))


def classes(values: object, n: int, what: str) -> tuple[Tensor, tuple[str, ...] | None]:
    """Labels of n samples as classes (n,) int64, and their names where the labels are no numbers from 0.

    Whole numbers of any type are classes as they are, one-hot rows the place of their 1; text, dates and
    the pair -1 and 1 are numbered in their order. Raises `InvalidData`.
    """
    if isinstance(values, Tensor):
        values = numbers(values, what).numpy()
    if values is None or isinstance(values, str | bytes | dict | set):
        raise InvalidData(f"{what} is {type(values).__name__}; must be {n} classes")
    try:
        array = np.asarray(values)
        array = array.astype(str) if array.dtype.kind == "O" and _all_text(array) else array
    except Exception as error:  # arrays are made by whatever the object defines
        raise InvalidData(f"{what}: cannot be read as classes ({_first(error)})") from None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape[:1] != (n,) or array.ndim > 2:
        raise InvalidData(f"{what} has shape {array.shape}; must be ({n},) classes, as many as samples")
    if array.dtype.kind == "O":
        array = array.astype(str)
    if array.dtype.kind == "f":
        whole = (array == np.round(array)) & np.isfinite(array)
        if not whole.all():
            row = int((~whole.reshape(n, -1).all(1)).argmax())
            raise InvalidData(f"{what}, sample {row}: {array[row]} is no class; must be whole numbers")
        array = array.astype(np.int64)
    if array.ndim == 2:
        return _from_one_hot(array, what), None
    if array.dtype.kind in "USM" or set(np.unique(array[:n]).tolist()) == {-1, 1}:
        number, names = pd.factorize(array, sort=True)
        return torch.from_numpy(number.astype(np.int64)), tuple(str(name) for name in names)
    if array.dtype.kind not in "iub":
        raise InvalidData(f"{what} holds {array.dtype}; must be {n} classes")
    if n and int(array.max()) >= MOST_CLASSES:
        raise InvalidData(
            f"{what}: {int(array.max())} is no class; they are numbered from 0, below {MOST_CLASSES}"
        )
    return torch.from_numpy(array.astype(np.int64)), None


def labels_of_positions(values: object, n: int, what: str, shape: tuple[int, ...] | None = None) -> Tensor:
    """Labels (n, *shape) of answers with positions, -1 where there is none; shape None: any.

    Raises `InvalidData` for what is no such thing, and for a sample without a label.
    """
    found = numbers(values, what)
    fits = found.dim() > 1 and found.shape == (n, *(found.shape[1:] if shape is None else shape))
    if found.is_floating_point() or not fits:
        allowed = f"({n}, …)" if shape is None else (n, *shape)
        held = f"{str(found.dtype).removeprefix('torch.')} {tuple(found.shape)}"
        raise InvalidData(f"{what} is {held}; must be whole numbers {allowed}, a class a position")
    labels = found.long()
    if labels.numel() and int(labels.min()) < -1:
        raise InvalidData(f"{what}: class {int(labels.min())}; must be at least 0, or -1 where there is none")
    empty = (labels < 0).flatten(1).all(1)
    if bool(empty.any()):
        raise InvalidData(f"{what}, sample {int(empty.long().argmax())}: has no label at any position")
    return labels


def label_sets(values: object) -> Tensor | None:
    """Labels (n, L) that are there (1) or not (0), -1 where nobody knows; None for what is no such thing.

    Of -1 and 1 alone the first means not there. Where no row has more than one label they are classes, one
    hot.
    """
    try:
        array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except Exception:  # arrays are made by whatever the object defines
        return None
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "iubf":
        return None
    found = torch.from_numpy(array.astype(np.float64))
    if not bool(((found == 0) | (found == 1) | (found == -1)).all()):
        return None
    if not bool(((found == 1).sum(1) > 1).any()):
        return None
    return found.long() if bool((found == 0).any()) else found.long().clamp_min(0)


def numbered(values: object, labels: Sequence[object], n: int) -> Tensor | None:
    """Labels (n,) as places among an estimator's own; None where they are not all of these."""
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    place = {label: i for i, label in enumerate(labels)}
    if array.shape != (n,):
        return None
    found = [place.get(value, -1) for value in array.tolist()]
    return None if -1 in found else torch.tensor(found)


def _from_one_hot(array: np.ndarray, what: str) -> Tensor:
    ones = (array == 1).sum(1) == 1
    good = ones & ((array == 0) | (array == 1)).all(1)
    if not good.all():
        row = int((~good).argmax())
        count = int((array[row] != 0).sum())
        raise InvalidData(f"{what}, sample {row}: has {count} of {array.shape[1]} classes; must have one")
    return torch.from_numpy(array.argmax(1).astype(np.int64))


def _all_text(array: np.ndarray) -> bool:
    return all(isinstance(value, str) for value in array.ravel())


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:150]
