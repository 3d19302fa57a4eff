"""The code that a model runs, as bytes to hash: functions, what they close over, and plain attributes."""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, complex, str, bytes, type(None))
LIBRARIES = ("torch", "torchvision", "numpy", "sklearn", "builtins")


def function_facts(function: object, seen: set[int] | None = None) -> Iterator[bytes]:
    """What determines a function: its code with all constants, defaults, closure, what it calls nearby."""
    seen = set() if seen is None else seen
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType) or id(code) in seen:
        return
    seen.add(id(code))
    yield from _code(code)
    held = [*(getattr(function, "__defaults__", None) or ())]
    held += (getattr(function, "__kwdefaults__", None) or {}).values()
    for cell in getattr(function, "__closure__", None) or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    reach = getattr(function, "__globals__", {})
    held += [reach[name] for name in code.co_names if name in reach]
    for value in held:
        yield from value_facts(value, seen)


def value_facts(value: object, seen: set[int]) -> Iterator[bytes]:
    """A plain value, an array or a function of the user's; nothing of anything else."""
    if isinstance(value, PLAIN):
        yield repr(value).encode()
    elif isinstance(value, Tensor):
        yield from tensor_facts(value)
    elif isinstance(value, np.ndarray):
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, set | frozenset):  # in an order that is the same in every process
        yield repr(sorted(map(repr, value))).encode()
    elif isinstance(value, tuple | list | dict):
        if id(value) in seen:  # it may hold itself
            return
        seen.add(id(value))
        for one in itertools.chain(*value.items()) if isinstance(value, dict) else value:
            yield from value_facts(one, seen)
    elif isinstance(value, types.FunctionType | types.MethodType) and _own(value.__module__):
        yield from function_facts(value, seen)


def tensor_facts(value: Tensor) -> Iterator[bytes]:
    """The bytes of a tensor, in its own type of number."""
    yield str(value.dtype).encode()
    yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def module_facts(module: nn.Module) -> bytes:
    """The code and the plain attributes of a module and its parts, where they are not a library's."""
    parts: list[bytes] = []
    seen: set[int] = set()
    for name, part in module.named_modules():
        parts.append(f"{name} {type(part).__qualname__}".encode())
        for cls in type(part).__mro__:
            if _own(cls.__module__):
                for attribute in vars(cls).values():
                    parts += function_facts(getattr(attribute, "fget", attribute), seen)
        for key, value in sorted(vars(part).items()):
            if not key.startswith("_") and key != "training":
                parts += [key.encode(), *value_facts(value, seen)]
    return b"|".join(parts)


def _code(code: types.CodeType) -> Iterator[bytes]:
    yield code.co_code
    yield repr(code.co_names).encode()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        else:
            yield from value_facts(constant, set())


def _own(module: str | None) -> bool:
    """Whether a module is the user's, or this project's, rather than a library."""
    return (module or "").partition(".")[0] not in LIBRARIES
