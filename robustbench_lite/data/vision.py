"""The image sets that torchvision knows."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import torch
from torch import Tensor

from robustbench_lite.core.errors import InvalidData
from robustbench_lite.data.data import Options, Raw


def mnist(options: Options) -> Raw:
    """LeCun et al. 1998."""
    return _load("MNIST", options)


def fashionmnist(options: Options) -> Raw:
    """Xiao et al. 2017."""
    return _load("FashionMNIST", options)


def cifar10(options: Options) -> Raw:
    """Krizhevsky 2009."""
    return _load("CIFAR10", options)


def cifar100(options: Options) -> Raw:
    """Krizhevsky 2009."""
    return _load("CIFAR100", options)


def svhn(options: Options) -> Raw:
    """Netzer et al. 2011."""
    return _load("SVHN", options)


def _load(name: str, options: Options) -> Raw:
    root = options.data_dir or Path(platformdirs.user_cache_dir("robustbench-lite")) / "data"
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise InvalidData(
            f"{name}: torchvision cannot be imported; does it match the installed torch? ({error})"
        ) from error
    which = {"split": options.split} if name == "SVHN" else {"train": options.split == "train"}
    try:
        found = getattr(datasets, name)(root, download=options.download, **which)
    except (RuntimeError, OSError) as error:
        hint = "give its folder with --data-dir, or allow --download"
        raise InvalidData(f"{name}: not found under {root}; {hint} ({error})") from error
    images = torch.as_tensor(found.data)
    if images.dim() == 3:
        images = images[:, None]
    elif name.startswith("CIFAR"):
        images = images.permute(0, 3, 1, 2)
    y = torch.as_tensor(found.labels if name == "SVHN" else found.targets).long()
    classes = getattr(found, "classes", None) or [str(c) for c in range(10)]
    short = [str(c).split(" - ")[0] if name == "MNIST" else str(c) for c in classes]

    def take(rows: Tensor) -> Tensor:
        return images[rows].float().div_(255)

    return Raw(take, y, tuple(short), lambda i: f"{name} {options.split}, sample {i}")
