"""Splits of data that comes in one piece."""

from __future__ import annotations

import torch
from torch import Tensor


def divide(y: Tensor, seed: int, test_size: float = 0.3) -> tuple[Tensor, Tensor]:
    """Indices of a training and a test split, the classes in equal shares, fixed by the seed."""
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        torch.arange(len(y)).numpy(), test_size=test_size, stratify=y.numpy(), random_state=seed
    )
    return torch.from_numpy(train).sort().values, torch.from_numpy(test).sort().values
