"""Whatever gives scores, as a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor, nn


class Called(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.where = nn.Parameter(torch.empty(0), requires_grad=False)  # tells its device

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class _Bound(Protocol):
    """A method."""

    __self__: object


def as_module(model: Callable[[Tensor], Tensor]) -> nn.Module:
    """The module itself, or that a method such as `net.forward` belongs to, or one around a function."""
    if isinstance(model, nn.Module):
        return model
    owner = getattr(cast(_Bound, model), "__self__", None)
    if isinstance(owner, nn.Module) and getattr(model, "__name__", "") == "forward":
        return owner
    return Called(model)
