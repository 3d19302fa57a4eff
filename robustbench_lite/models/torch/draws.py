"""What a network draws from torch's own generator, drawn from each sample's key instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from robustbench_lite.core.random import Stream

aten = torch.ops.aten


class DrawsBySample(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Draws whose first axis is the stream's rows are made of the rows' keys, in order of asking.

    whole: whether every draw could be made so; what could not be comes from torch's generator, which the
    caller seeds, and depends on the batch.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stream, self.asked, self.whole = stream, 0, True

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Answer a random operation from the keys, any other as it is."""
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        self.asked += 1
        known = DRAWS.get(func)
        shape = _shape(func, args)
        if known is None or not shape or shape[0] != len(self.stream.key):
            self.whole = False
            return func(*args, **kwargs)
        return known(self.stream.fold("draw", self.asked), shape, args, kwargs)


def _shape(func: Any, args: tuple[Any, ...]) -> tuple[int, ...]:
    if not args:
        return ()
    if isinstance(args[0], Tensor):
        return tuple(args[0].shape)
    return tuple(args[0]) if isinstance(args[0], list | tuple | torch.Size) else ()


Draw = Callable[[Stream, tuple[int, ...], tuple[Any, ...], dict[str, Any]], Any]


def _like(values: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    dtype = kwargs.get("dtype") or (
        args[0].dtype if isinstance(args[0], Tensor) else torch.get_default_dtype()
    )
    return values.to(dtype)


def _pair(args: tuple[Any, ...]) -> tuple[float, float]:
    """The two numbers of a distribution, 0 and 1 where they are not given."""
    return (args[1] if len(args) > 1 else 0.0), (args[2] if len(args) > 2 else 1.0)


def _uniform(stream: Stream, shape: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return _like(stream.uniform(shape[1:]), args, kwargs)


def _normal(stream: Stream, shape: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return _like(stream.gaussian(shape[1:]), args, kwargs)


def _uniform_(
    stream: Stream, shape: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    low, high = _pair(args)
    filled: Tensor = args[0].copy_(low + (high - low) * stream.uniform(shape[1:]))
    return filled


def _normal_(stream: Stream, shape: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    mean, deviation = _pair(args)
    filled: Tensor = args[0].copy_(mean + deviation * stream.gaussian(shape[1:]))
    return filled


def _bernoulli(
    stream: Stream, shape: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    chance = args[1] if len(args) > 1 else args[0]
    drawn: Tensor = (stream.uniform(shape[1:]) < chance).to(args[0].dtype)
    return drawn


def _bernoulli_(
    stream: Stream, shape: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    chance = args[1] if len(args) > 1 else 0.5
    filled: Tensor = args[0].copy_(stream.uniform(shape[1:]) < chance)
    return filled


def _dropout(
    stream: Stream, shape: tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    kept = stream.uniform(shape[1:]) >= args[1]
    return args[0] * kept / max(1 - args[1], 1e-12), kept


DRAWS: dict[Any, Draw] = {
    aten.rand.default: _uniform,
    aten.rand_like.default: _uniform,
    aten.randn.default: _normal,
    aten.randn_like.default: _normal,
    aten.uniform_.default: _uniform_,
    aten.normal_.default: _normal_,
    aten.bernoulli.default: _bernoulli,
    aten.bernoulli.p: _bernoulli,
    aten.bernoulli_.float: _bernoulli_,
    aten.bernoulli_.Tensor: _bernoulli_,
    aten.native_dropout.default: _dropout,
}
