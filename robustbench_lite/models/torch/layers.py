"""A module as the steps of a network that bounds can be propagated through."""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.guard import one_line
from robustbench_lite.core.structure import Layers, Step, Taken, outcomes

AFFINE = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout,
)  # fmt: skip
RESHAPES = {"flatten", "view", "reshape", "contiguous", "unflatten"}
POOLS: set[Any] = {functional.avg_pool2d, functional.adaptive_avg_pool2d}
TRIED = 16  # inputs on which steps and module are compared
SUMS = {operator.add, operator.iadd, torch.add}
SCALES = {operator.mul, torch.mul, operator.truediv, torch.div, operator.sub, torch.sub}


@dataclass(frozen=True)
class Scaled:
    """x -> x * factor + offset."""

    factor: Tensor
    offset: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, …) -> (n, …)."""
        return x * self.factor + self.offset

    def step(self, source: int) -> Step:
        """As a step of a network."""
        return Step("affine", (source,), self, Scaled(self.factor.abs(), 0 * self.offset))


@dataclass(frozen=True)
class Shaped:
    """x -> x in another shape of one sample."""

    shape: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, …) -> (n, *shape)."""
        return x.reshape(len(x), *self.shape)

    def step(self, source: int) -> Step:
        """As a step of a network."""
        return Step("affine", (source,), self, self)


@dataclass(frozen=True)
class Pooled:
    """x -> an average over windows, by a function of torch and its settings."""

    function: Callable[..., Tensor]
    arguments: tuple[Any, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """x (n, C, H, W) -> (n, C, h, w)."""
        return self.function(x, *self.arguments)


def layers_of(module: nn.Module, shape: Sequence[int], factor: Tensor, offset: Tensor) -> Layers:
    """The steps of a module that takes x * factor + offset of inputs (n, *shape).

    Raises `Unsupported`, naming the layer, where bounds cannot be propagated through it.
    """
    try:
        plain = copy.deepcopy(module).eval()
        graph = fx.symbolic_trace(plain)
        sizes = _Recorder(graph).shapes(torch.zeros(2, *shape, device=factor.device) * factor + offset)
    except Exception as error:  # whatever a module does when it is copied or followed
        raise Unsupported(f"its steps cannot be read: {one_line(error)}") from None
    held = _Reader(graph, tuple(shape), sizes).read(Scaled(factor, offset))
    _compare(held, plain, factor, offset)
    return held


def _compare(held: Layers, module: nn.Module, factor: Tensor, offset: Tensor) -> None:
    """Raise `Unsupported` where the steps compute something else, as after a layer that changes its input."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TRIED, *held.shape, generator=generator).to(factor.device)
    x = x * torch.logspace(-1, 1, TRIED, device=x.device).reshape(-1, *[1] * len(held.shape))
    with torch.no_grad():
        theirs = module((x * factor + offset).clone())
        ours = outcomes(held, x)[-1]
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())):
        raise Unsupported("its steps, read one by one, compute something else")


class _Reader:
    """Reads a traced module node by node."""

    def __init__(
        self, graph: fx.GraphModule, shape: tuple[int, ...], sizes: dict[fx.Node, tuple[int, ...]]
    ) -> None:
        self.graph, self.shape, self.sizes = graph, shape, sizes
        self.modules = dict(graph.named_modules())
        self.steps: list[Step] = []
        self.place: dict[fx.Node, int] = {}

    def read(self, first: Scaled) -> Layers:
        self.first, self.classes = first, 0
        self.steps.append(first.step(0))
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                if self.place:
                    raise Unsupported("it takes several inputs")
                self.place[node] = 1
            elif node.op == "output":
                result = node.args[0]
                if not isinstance(result, fx.Node) or result not in self.place:
                    raise Unsupported("it returns several things")
                if len(self.sizes[result]) != 1:
                    raise Unsupported(f"it returns numbers of shape {self.sizes[result]} for a sample")
                self.classes = self.sizes[result][0]
                if self.place[result] != len(self.steps):
                    self._append(Shaped(self.sizes[result]).step(self.place[result]))
            elif node.op != "get_attr":
                self._read(node)
        return Layers(
            tuple(self.steps), self.shape, self.classes, self.first.factor.dtype, self.first.factor.device
        )

    def _append(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps)

    def _read(self, node: fx.Node) -> None:
        sources = [self.place[arg] for arg in node.args if isinstance(arg, fx.Node) and arg in self.place]
        if not sources:  # the size of something, or another number
            if node.target in ("size", "dim") or node.target in (getattr, operator.getitem):
                return
            raise Unsupported(f"{node.target} is no layer that bounds can be propagated through")
        if node.op == "call_method" and node.target in ("size", "dim"):
            return
        if node.op == "call_function" and node.target is getattr:
            return
        if node.op == "call_module":
            self.place[node] = self._module(self.modules[str(node.target)], sources[0], node)
        elif node.target in (functional.relu, torch.relu, "relu", "relu_", torch.relu_):
            self.place[node] = self._append(Step("relu", (sources[0],)))
        elif node.target is functional.leaky_relu:
            slope = node.kwargs.get("negative_slope", node.args[1] if len(node.args) > 1 else 0.01)
            self.place[node] = self._leaky(sources[0], float(slope))  # type: ignore[arg-type]
        elif node.kwargs and node.target in SUMS | SCALES:
            raise Unsupported(f"{getattr(node.target, '__name__', node.target)} with options has no bounds")
        elif node.target in SUMS and len(sources) == 2:
            self.place[node] = self._append(Step("add", tuple(sources)))
        elif node.target in SUMS | SCALES and len(sources) == 1:
            self.place[node] = self._append(self._constant(node).step(sources[0]))
        elif node.target in RESHAPES or node.target is torch.flatten:
            self.place[node] = self._append(Shaped(self.sizes[node]).step(sources[0]))
        elif node.target in POOLS and not node.kwargs:
            pooled = Pooled(node.target, tuple(node.args[1:]))  # type: ignore[arg-type]
            self.place[node] = self._append(Step("affine", (sources[0],), pooled, pooled))
        elif node.target is functional.max_pool2d:
            names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
            said: dict[str, Any] = {**dict(zip(names, node.args[1:], strict=False)), **node.kwargs}
            self.place[node] = self._largest(nn.MaxPool2d(**said), sources[0], node)
        else:
            name = getattr(node.target, "__name__", node.target)
            raise Unsupported(f"{name} is no layer that bounds can be propagated through")

    def _module(self, layer: nn.Module, source: int, node: fx.Node) -> int:
        if isinstance(layer, nn.ReLU):
            return self._append(Step("relu", (source,)))
        if isinstance(layer, nn.LeakyReLU):
            return self._leaky(source, float(layer.negative_slope))
        if isinstance(layer, nn.MaxPool2d):
            return self._largest(layer, source, node)
        changed = is_parametrized(layer) or layer._forward_pre_hooks or layer._forward_hooks
        if type(layer) not in AFFINE or changed or getattr(layer, "padding_mode", "zeros") != "zeros":
            raise Unsupported(f"{type(layer).__name__} is no layer that bounds can be propagated through")
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.running_mean is None:
            raise Unsupported(f"{type(layer).__name__} without running statistics depends on its batch")
        if getattr(layer, "padding", None) == "same":
            sizes: Any = getattr(layer, "kernel_size", ())
            if any(size % 2 == 0 for size in sizes):
                raise Unsupported("convolutions with even kernels and padding 'same' have no bounds")
        return self._append(Step("affine", (source,), layer, _magnitude(layer)))

    def _leaky(self, source: int, slope: float) -> int:
        if not 0 <= slope <= 1:
            raise Unsupported(f"LeakyReLU with slope {slope:g} has no bounds; it must be in [0, 1]")
        return self._append(Step("relu", (source,), slope=slope))

    def _constant(self, node: fx.Node) -> Scaled:
        """Arithmetic with a number or a buffer."""
        first, second = node.args[0], node.args[1]
        swapped = not (isinstance(first, fx.Node) and first in self.place)
        other = first if swapped else second
        if isinstance(other, fx.Node):
            if other.op != "get_attr":
                raise Unsupported(f"{node.target} of what is no constant has no bounds")
            other = operator.attrgetter(str(other.target))(self.graph)
        number = torch.as_tensor(other, dtype=torch.float32, device=self.first.factor.device)
        one, zero = torch.ones_like(number), torch.zeros_like(number)
        if node.target in SUMS:
            return Scaled(one, number)
        if node.target in (operator.sub, torch.sub):
            return Scaled(-one, number) if swapped else Scaled(one, -number)
        if node.target in (operator.mul, torch.mul):
            return Scaled(number, zero)
        if swapped:
            raise Unsupported("division by the input has no bounds")
        return Scaled(1 / number, zero)

    def _largest(self, pool: nn.MaxPool2d, source: int, node: fx.Node) -> int:
        """The maximum over windows as max(a, b) = b + relu(a - b), two by two."""
        window, stride, padding = (_pair(side) for side in (pool.kernel_size, pool.stride, pool.padding))
        before = self.sizes[node.args[0]]  # type: ignore[index]
        channels, height, width = before
        if any(padding) or _pair(pool.dilation) != (1, 1) or pool.ceil_mode or pool.return_indices:
            raise Unsupported("MaxPool2d with padding, dilation or ceil_mode has no bounds here")
        rows = (height - window[0]) // stride[0] + 1
        columns = (width - window[1]) // stride[1] + 1
        number = torch.arange(channels * height * width, device=self.first.factor.device).reshape(before)
        parts = []
        for down, right in itertools.product(range(window[0]), range(window[1])):
            tall = slice(down, down + stride[0] * (rows - 1) + 1, stride[0])
            wide = slice(right, right + stride[1] * (columns - 1) + 1, stride[1])
            parts.append(number[:, tall, wide].flatten())
        shape = (channels, rows, columns)
        one = torch.ones((), device=self.first.factor.device)
        waiting = [self._append(Taken(part, 1.0, shape).step(source)) for part in parts]
        while len(waiting) > 1:
            first, second, *waiting = waiting
            less = self._append(Scaled(-one, 0 * one).step(second))
            apart = self._append(Step("add", (first, less)))
            above = self._append(Step("relu", (apart,)))
            waiting.append(self._append(Step("add", (second, above))))
        return waiting[0]


class _Recorder(fx.Interpreter):
    """Notes the shape of every result, of one sample."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.sizes: dict[fx.Node, tuple[int, ...]] = {}

    def shapes(self, x: Tensor) -> dict[fx.Node, tuple[int, ...]]:
        """Of one sample, of every result that has some."""
        with torch.no_grad():
            self.run(x)
        return self.sizes

    def run_node(self, n: fx.Node) -> Any:
        """As the interpreter does."""
        result = super().run_node(n)
        if isinstance(result, Tensor) and result.dim():
            self.sizes[n] = tuple(result.shape[1:])
        return result


def _magnitude(layer: nn.Module) -> nn.Module:
    """A layer with every factor made positive and nothing added."""
    made = copy.deepcopy(layer)
    if isinstance(made, nn.BatchNorm1d | nn.BatchNorm2d):
        assert made.running_mean is not None
        made.running_mean.zero_()
    with torch.no_grad():
        for name, part in made.named_parameters():
            part.copy_(part.abs() if name == "weight" else torch.zeros_like(part))
    return made


def _pair(side: Any) -> tuple[int, int]:
    """One number for both sides, or two."""
    return (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
