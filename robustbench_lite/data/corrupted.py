"""The published files of corrupted images: CIFAR-10-C, CIFAR-100-C, and others in their form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.core.errors import InvalidData
from robustbench_lite.core.parameters import Range
from robustbench_lite.data.data import Options, Raw

SEVERITIES = 5


def cifar10c(
    options: Options, path: str, kind: str = "gaussian_noise", severity: Annotated[int, Range(1, 5)] = 3
) -> Raw:
    """One corruption at one severity from a folder with `KIND.npy` and `labels.npy` (Hendrycks & Dietterich
    2019): uint8 (5 · n, 32, 32, 3), severity by severity. There is no training split: bring a trained model.
    """
    folder = Path(path).expanduser()
    if options.split == "train":
        raise InvalidData(f"cifar10c:{path} has no training split: bring a model that is trained")
    images, labels = _read(folder / f"{kind}.npy"), _read(folder / "labels.npy")
    named = labels.ndim == 1 and labels.dtype.kind in "iu" and len(labels) > 0 and int(labels.min()) >= 0
    shown = images.ndim == 4 and images.dtype == np.uint8 and len(images) % SEVERITIES == 0
    if not named or not shown or len(images) != len(labels):
        raise InvalidData(
            f"{folder / kind}.npy: {images.dtype} {images.shape} for labels {labels.dtype} {labels.shape}; "
            "must be uint8 images, as many as labels from 0 on, of five severities"
        )
    each = len(images) // SEVERITIES
    first = (severity - 1) * each
    y = torch.from_numpy(labels[first : first + each].astype(np.int64))

    def take(rows: Tensor) -> Tensor:
        chosen = torch.from_numpy(images[first + rows.numpy()])
        return chosen.permute(0, 3, 1, 2).float().div_(255)

    names = tuple(str(c) for c in range(int(labels.max()) + 1))
    return Raw(take, y, names, lambda i: f"{kind} at severity {severity}, sample {i}")


def _read(file: Path) -> np.ndarray:
    """The array of a file, not read before it is asked for."""
    if not file.is_file():
        beside = sorted(p.stem for p in file.parent.glob("*.npy")) if file.parent.is_dir() else []
        raise InvalidData(f"{file}: not found; the folder holds {', '.join(beside) or 'no .npy file'}")
    try:
        found: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidData(f"{file}: cannot be read: {error}") from None
    return found
