"""Arrays in an .npz file, and what a torch `Dataset` yields."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from robustbench_lite.core.errors import InvalidData
from robustbench_lite.data.data import Options, Raw, in_memory
from robustbench_lite.data.split import divide


def npz(options: Options, path: str) -> Raw:
    """Arrays x and y; x_train and y_train beside them make a training split of their own."""
    arrays = read_npz(path)
    ready = "x_train" in arrays
    names = ("x_train", "y_train") if ready and options.split == "train" else ("x", "y")
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InvalidData(f"{path}: has arrays {', '.join(sorted(arrays))}; {', '.join(missing)} missing")
    x, y = as_inputs(arrays[names[0]], path), arrays[names[1]]
    if y.ndim != 1 or y.dtype.kind not in "iu" or len(y) != len(x):
        raise InvalidData(f"{path}: {names[1]} is {y.dtype} {y.shape}; must be {len(x)} whole numbers")
    labels = torch.from_numpy(y.astype(np.int64))
    if not len(y):
        raise InvalidData(f"{path}: has no samples")
    classes = [str(c) for c in range(max(int(arrays[n].max()) for n in ("y", "y_train") if n in arrays) + 1)]
    if not ready:
        train, test = divide(labels, options.seed)
        rows = train if options.split == "train" else test
        x, labels = x[rows], labels[rows]
    return in_memory(x, labels, classes, path)


def read_npz(path: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; never unpickles."""
    try:
        with np.load(Path(path).expanduser(), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise InvalidData(f"{path}: cannot be read as .npz: {error}") from error


def as_inputs(x: np.ndarray, what: str) -> Tensor:
    """Images or features as float32 (n, C, H, W) or (n, d); uint8 becomes [0, 1], channels come first."""
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        raise InvalidData(f"{what}: x is {x.dtype}; must be uint8, or float in [0, 1]")
    if x.ndim not in (2, 3, 4):
        raise InvalidData(f"{what}: x has shape {x.shape}; must be (n, d), (n, H, W) or (n, C, H, W)")
    inputs = torch.from_numpy(np.ascontiguousarray(x))
    inputs = inputs.float() / 255 if x.dtype == np.uint8 else inputs.float()
    if inputs.dim() == 3:
        return inputs[:, None]
    if inputs.dim() == 4 and inputs.shape[1] not in (1, 3) and inputs.shape[3] in (1, 3):
        return inputs.permute(0, 3, 1, 2).contiguous()
    return inputs


def from_dataset(dataset: Dataset[tuple[Tensor, int]], what: str = "dataset") -> Raw:
    """All samples of a torch `Dataset` of (image, label) pairs."""
    images: list[Tensor] = []
    labels: list[int] = []
    for index in range(len(dataset)):  # type: ignore[arg-type]
        image, label = dataset[index]
        if not isinstance(image, Tensor):
            raise InvalidData(f"{what}, sample {index}: is {type(image).__name__}; must be a tensor")
        if images and image.shape != images[0].shape:
            one, other = tuple(images[0].shape), tuple(image.shape)
            raise InvalidData(f"{what}, sample {index}: has shape {other}; those before have {one}")
        images.append(image.float() / 255 if image.dtype == torch.uint8 else image.float())
        labels.append(int(label))
    if not images:
        raise InvalidData(f"{what}: has no samples")
    names = getattr(dataset, "classes", None) or range(max(labels) + 1)
    return in_memory(torch.stack(images), torch.tensor(labels), [str(c) for c in names], what)
