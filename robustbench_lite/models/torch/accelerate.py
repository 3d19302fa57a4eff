"""Compiled kernels and recorded graphs for a search copy, where the planned work repays them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from robustbench_lite.core.model import Effort, fast_arithmetic
from robustbench_lite.models.torch.outputs import as_scores

COMPILING = 40.0  # seconds that making kernels takes, on either device
SAVED = 0.3  # the share of a step that they save on a GPU; on CPUs nothing was gained
SIZES = (16, 64, 256, 1024, 4096)  # batches whose times tell where launching stops to matter
log = logging.getLogger(__name__)

Call = Callable[[Tensor], Tensor]


def repays(module: nn.Module, x: Tensor, effort: Effort) -> bool:
    """Whether kernels of its own save a module more than they cost; what was decided is logged.

    x (m, …): inputs as the module takes them.
    """
    if effort.compile is not None or not x.is_cuda:
        return bool(effort.compile)
    rows = min(effort.rows, SIZES[1])
    planned = _seconds(Scoring(module), x, rows) * effort.steps * effort.rows / rows
    answer = COMPILING < planned * SAVED < math.inf
    log.info(
        "compile: %s; of %.1f s of search it would save %.1f s and cost about %.0f s",
        "yes" if answer else "no", planned, planned * SAVED, COMPILING,
    )  # fmt: skip
    return answer


def accelerated(module: nn.Module, x: Tensor, kernels: bool) -> nn.Module:
    """The module with kernels of its own, if wanted, and on a GPU with small batches as recorded graphs."""
    made: nn.Module = compiled(Scoring(module), x) if kernels else Scoring(module)
    if x.is_cuda and (limit := launch_bound(lambda rows: _seconds(made, x, rows))):
        log.info("batches of at most %d are launched as recorded graphs", limit)
        return Padded(made, limit, cuda_graph)
    return made


def compiled(module: nn.Module, x: Tensor) -> nn.Module:
    """The module in kernels of its own for any number of rows; as it is where that fails, and logged."""
    began = time.perf_counter()
    made = Compiled(module)
    try:
        seconds_of_gradient(made, x)
    except Exception as error:  # the compiler runs the user's code on symbols, and calls other programs
        log.warning("compile: searching without, because %s: %s", type(error).__name__, str(error)[:200])
        return module
    log.info("compiled in %.1f s", time.perf_counter() - began)
    return made


class Scoring(nn.Module):
    """A module whose answer is scores (n, K), whatever it returns."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return as_scores(self.module(x))


class Compiled(nn.Module):
    """A module compiled once for every number of rows."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._call: Call = torch.compile(lambda x: module(x))

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 2:  # a size of one is compiled as a case of its own
            plain: Tensor = self.module(x)
            return plain
        torch._dynamo.maybe_mark_dynamic(x, 0)
        return self._call(x)


class Padded(nn.Module):
    """A module asked in batches of 2^k rows, by a call of its own for every size; rows added are cut off.

    record: makes the call for inputs of one size (n, …). limit: rows above which the module is asked as it
    is. A size that cannot be recorded is asked as it is, and logged.
    """

    def __init__(self, module: nn.Module, limit: int, record: Callable[[nn.Module, Tensor], Call]) -> None:
        super().__init__()
        self.module, self.limit, self._record = module, limit, record
        self._calls: dict[int, Call] = {}

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        if not (0 < n <= self.limit and x.requires_grad):
            plain: Tensor = self.module(x)
            return plain
        more = (1 << (n - 1).bit_length()) - n
        padded = torch.cat([x, x.detach()[-1:].expand(more, *x.shape[1:])])
        # A replay writes where the last one wrote, so what outlives the call is copied.
        padded.register_hook(torch.clone)  # type: ignore[no-untyped-call]
        return self._call(padded)(padded)[:n].clone()

    def _call(self, padded: Tensor) -> Call:
        size = len(padded)
        if size not in self._calls:
            self._calls[size] = self.module
            try:
                made = self._record(self.module, torch.rand_like(padded).requires_grad_())
                if _agree(made, self.module, torch.rand_like(padded)):
                    self._calls[size] = made
                else:
                    log.warning("batches of %d are not recorded: the recording says something else", size)
            except Exception as error:  # recording runs the user's code as it was not meant to be run
                log.warning("batches of %d are not recorded: %s", size, str(error)[:200])
        return self._calls[size]


def _agree(made: Call, module: Call, x: Tensor) -> bool:
    """Whether a recording gives the scores and the gradient of the module at x (n, …), asked twice over."""

    def asked(call: Call, points: Tensor) -> list[Tensor]:
        leaf = points.detach().requires_grad_()
        with torch.enable_grad():
            scores = call(leaf)
            (gradient,) = torch.autograd.grad(scores.float().square().sum(), leaf)
        return [scores.detach().float().clone(), gradient.float().clone()]

    pairs = [pair for p in (x, 1 - x) for pair in zip(asked(made, p), asked(module, p), strict=True)]
    return all(bool(((a - b).abs() <= 0.02 * b.abs().amax() + 1e-6).all()) for a, b in pairs)


def cuda_graph(module: nn.Module, sample: Tensor) -> Call:
    """The module's forward and backward pass for inputs like a sample, recorded once and replayed."""
    call = torch.cuda.make_graphed_callables(lambda x: module(x), (sample,))
    return cast(Call, call)


def launch_bound(seconds: Callable[[int], float]) -> int:
    """The largest batch that takes hardly longer than the smallest; 0 where size tells at once."""
    first, limit = seconds(SIZES[0]), 0
    for size in SIZES[1:]:
        if seconds(size) > 1.5 * first:
            break
        limit = size
    return limit


def _seconds(module: Call, x: Tensor, rows: int) -> float:
    """Seconds for so many rows; infinite where they do not fit in memory."""
    try:
        return seconds_of_gradient(module, x[torch.arange(rows, device=x.device) % len(x)])
    except torch.OutOfMemoryError:
        return math.inf


def seconds_of_gradient(module: Call, x: Tensor) -> float:
    """Seconds that a forward and a backward pass of inputs x (n, …) take, the better of two."""

    def once() -> float:
        leaf = x.detach().requires_grad_()
        began = time.perf_counter()
        with torch.enable_grad(), fast_arithmetic():
            torch.autograd.grad(module(leaf).float().sum(), leaf)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        return time.perf_counter() - began

    once()
    return min(once(), once())
