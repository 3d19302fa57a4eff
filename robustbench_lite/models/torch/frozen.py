"""A frozen copy of a module that people bring, also of those that cannot be copied as they are."""

from __future__ import annotations

import contextlib
import copy

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.guard import one_line

BOOKS = ("_parameters", "_buffers", "_modules")


def frozen(module: nn.Module, name: str) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy in eval mode whose parameters want no gradient, and what a reader should know of it.

    Kept activations are let go, what cannot be copied (a lock, a file) is shared, and a compiled module gives
    way to what was compiled. A module that cannot be copied even so is used as it is, where it already is in
    eval mode. Raises `InvalidModel`.
    """
    module = getattr(module, "_orig_mod", module)
    if any(is_lazy(p) for p in (*module.parameters(), *module.buffers())):
        raise InvalidModel(f"{name}: has lazy parameters without values; call it once, and train it, before")
    try:
        made, notes = copy.deepcopy(module, _shared(module)), ()
    except Exception as error:  # a copy runs whatever the module's parts define for it
        if any(part.training for part in module.modules()):
            raise InvalidModel(
                f"{name}: cannot be copied ({one_line(error)}), nor used as it is while in training mode; "
                "call eval() on it"
            ) from error
        return module, (f"it cannot be copied ({one_line(error)}), and is used as it is",)
    evaluating(made)
    for parameter in made.parameters():
        with contextlib.suppress(RuntimeError):  # TorchScript's copies are no leaves
            parameter.requires_grad_(False)
    return made, notes


def evaluating(module: nn.Module) -> None:
    """Every part in eval mode; torch.export's modules refuse the call, and know one mode only."""
    try:
        module.eval()
    except NotImplementedError:
        for part in module.modules():
            part.training = False


def kind_of_number(module: nn.Module) -> torch.dtype:
    """The type that a module computes in: of its first floating point parameter or buffer."""
    held = (*module.parameters(), *module.buffers())
    return next((p.dtype for p in held if p.is_floating_point()), torch.float32)


def _shared(module: nn.Module) -> dict[int, object]:
    """What a copy takes over as it is, by identity: values inside a graph without it, the uncopyable."""
    memo: dict[int, object] = {}
    for part in module.modules():
        for key, value in vars(part).items():
            if key in BOOKS:
                continue
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
            elif not isinstance(value, nn.Module | Tensor) and not key.startswith("_"):
                try:
                    copy.deepcopy(value)
                except Exception:  # its own words for "no"
                    memo[id(value)] = value
    return memo
