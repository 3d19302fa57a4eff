"""Splits of data that comes in one piece."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.core.errors import InvalidData


def divide(y: Tensor, seed: int, what: str, test_size: float = 0.3) -> tuple[Tensor, Tensor]:
    """Indices of a training and a test split, the classes in equal shares, fixed by the seed.

    Raises `InvalidData` where a class has too few samples for both.
    """
    from sklearn.model_selection import train_test_split

    counts = y.bincount()
    few = ((counts > 0) & (counts < 2)).nonzero()
    if len(few):
        raise InvalidData(f"{what}: class {int(few[0])} has one sample; dividing them takes two at least")
    try:
        train, test = train_test_split(
            torch.arange(len(y)).numpy(),
            test_size=test_size,
            stratify=y.numpy(),
            random_state=seed % 2**32,
        )
    except ValueError as error:
        raise InvalidData(f"{what}: {len(y)} samples are too few to divide: {error}") from None
    return torch.from_numpy(train).sort().values, torch.from_numpy(test).sort().values


def one_of(options_split: str, y: Tensor, seed: int, what: str, share: float | None) -> Tensor:
    """The rows of one split of data in one piece: all are for testing, unless a share of them is asked for.

    Raises `InvalidData` where a training split is asked for and all are for testing.
    """
    if share is None:
        if options_split == "train":
            raise InvalidData(
                f"{what}: has no training split, so no model can be trained on it; bring a model of your "
                "own, or say which share is for testing, such as split=0.3"
            )
        return torch.arange(len(y))
    train, test = divide(y, seed, what, share)
    return train if options_split == "train" else test
