"""Arrays in an .npz file, and what a torch `Dataset` yields."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidData, InvalidParameter
from robustbench_lite.core.guard import foreign
from robustbench_lite.core.npz import read_arrays
from robustbench_lite.core.parameters import Fraction
from robustbench_lite.data.data import Options, Raw, in_memory, of_labels
from robustbench_lite.data.given import classes, label_sets, numbers
from robustbench_lite.data.split import one_of


def npz(options: Options, path: str, split: Fraction | None = None) -> Raw:
    """Arrays x and y, all of it for testing; x_train and y_train beside them make the training split.

    y (n,) are classes, or one hot; 0 and 1 (n, L) with any number of ones in a row are labels.

    split: the share of x and y that is for testing, where there is no x_train.
    """
    arrays = read_arrays(Path(path).expanduser())
    ready = "x_train" in arrays
    if ready and split is not None:
        raise InvalidParameter("split", split, f"left out: {path} has x_train")
    wanted = {"test": ("x", "y"), "train": ("x_train", "y_train")} if ready else {"test": ("x", "y")}
    missing = [name for names in wanted.values() for name in names if name not in arrays]
    if missing:
        raise InvalidData(f"{path}: has arrays {', '.join(sorted(arrays))}; {', '.join(missing)} missing")
    x_name, y_name = wanted.get(options.split, ("x", "y"))
    x = as_inputs(numbers(arrays[x_name], f"{path}: {x_name}"), f"{path}: {x_name}")
    if not len(x):
        raise InvalidData(f"{path}: {x_name} has no samples")
    every = [arrays[name] for _, name in wanted.values()]
    alike = every[0].ndim == 2 and len({part.shape[1:] for part in every}) == 1
    sets = label_sets(np.concatenate(every)) if alike else None
    if sets is not None:
        own = sets[: len(every[0])] if y_name == "y" else sets[len(every[0]) :]
        if len(own) != len(x):
            raise InvalidData(f"{path}: {y_name} has {len(own)} rows; {x_name} has {len(x)}")
        none = torch.zeros(len(x), dtype=torch.int64)
        rows = torch.arange(len(x)) if ready else one_of(options.split, none, options.seed, path, split)
        return of_labels(x[rows], own[rows], path)
    y, named = classes(arrays[y_name], len(x), f"{path}: {y_name}")
    most = int(y.max())
    for _, name in wanted.values():  # the classes are those of both splits
        other, others = classes(arrays[name], len(arrays[name]), f"{path}: {name}")
        if others != named:
            raise InvalidData(f"{path}: y and y_train name different classes")
        most = max(most, int(other.max()) if len(other) else 0)
    class_names = named or [str(c) for c in range(most + 1)]
    rows = torch.arange(len(y)) if ready else one_of(options.split, y, options.seed, path, split)
    return in_memory(x[rows], y[rows], class_names, path)


def as_inputs(x: Tensor, what: str) -> Tensor:
    """Images or features as float32 (n, C, H, W) or (n, d); uint8 becomes [0, 1], channels come first."""
    if x.dim() not in (2, 3, 4):
        raise InvalidData(f"{what}: x has shape {tuple(x.shape)}; must be (n, d), (n, H, W) or (n, C, H, W)")
    if not x.is_floating_point() and x.dtype != torch.uint8 and x.numel() and not _zeros_and_ones(x):
        raise InvalidData(f"{what}: x is {told(x)}; must be uint8, or numbers in [0, 1]")
    if not x[:1].numel() and len(x):
        raise InvalidData(f"{what}: x has shape {tuple(x.shape)}: samples without a feature")
    inputs = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    if inputs.dim() == 3:
        return inputs[:, None]
    if inputs.dim() == 4 and Domain().pixel_axis(inputs.shape[1:]) == 2:
        return inputs.permute(0, 3, 1, 2).contiguous()
    return inputs.contiguous()


def told(x: Tensor) -> str:
    """A tensor's type of number in a word."""
    return str(x.dtype).removeprefix("torch.")


def _zeros_and_ones(x: Tensor) -> bool:
    return bool(((x == 0) | (x == 1)).all())


def from_dataset(dataset: Dataset[tuple[object, ...]], what: str = "dataset") -> Raw:
    """All samples of a torch `Dataset` of (image, label, …)."""
    images: list[Tensor] = []
    labels: list[object] = []
    for index in range(len(dataset)):  # type: ignore[arg-type]
        with foreign(what, f"reading sample {index}"):
            sample = dataset[index]
        if not isinstance(sample, tuple | list) or len(sample) < 2:
            raise InvalidData(f"{what}, sample {index}: is {type(sample).__name__}; must be (image, class)")
        image = numbers(sample[0], f"{what}, sample {index}")
        if images and (image.shape, image.dtype) != (images[0].shape, images[0].dtype):
            one, other = (f"{told(i)} {tuple(i.shape)}" for i in (images[0], image))
            raise InvalidData(f"{what}, sample {index}: has shape {other}; those before have {one}")
        images.append(image)
        labels.append(numbers(sample[1], what).tolist() if isinstance(sample[1], Tensor) else sample[1])
    if not images:
        raise InvalidData(f"{what}: has no samples")
    sets = label_sets(labels)
    if sets is not None:
        return of_labels(as_inputs(torch.stack(images), what), sets, what)
    y, names = classes(labels, len(labels), f"{what}: labels")
    known = getattr(dataset, "classes", None) or names or range(int(y.max()) + 1)
    return in_memory(as_inputs(torch.stack(images), what), y, [str(c) for c in known], what)
