"""Training a network: one cycle of the learning rate, the order of samples from the seed, any objective."""

from __future__ import annotations

import copy
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from robustbench_lite.core.errors import RobustError
from robustbench_lite.core.model import reference_precision
from robustbench_lite.core.random import Stream
from robustbench_lite.data.data import Data

SMOOTHING = 0.05  # of the labels
KEPT_EVERY = 20.0  # seconds of training that a kill may cost, at the least an epoch
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: epochs of batches of samples; rate: the highest learning rate.

    momentum: SGD with it (Nesterov); None: AdamW. augment: random flips and shifts by up to 4 pixels. fast:
    bfloat16 and channels-last on a GPU that has them, for networks whose training takes minutes. average: the
    decay of an exponential mean of the weights, which is what is kept (0: the last weights).
    """

    epochs: int
    batch: int = 128
    rate: float = 5e-3
    momentum: float | None = None
    augment: bool = False
    fast: bool = False
    average: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Samples of one training step.

    x (n, …), y (n,); rows (n,): their places in the training data; stream: a key a sample and epoch; done:
    the share of the training that lies behind; number: of the batch, from 0 on.
    """

    x: Tensor
    y: Tensor
    rows: Tensor
    stream: Stream
    done: float
    number: int = 0


class Objective:
    """What a training minimises: by default cross-entropy with smoothed labels.

    replays: how many steps are taken on each batch.
    """

    replays: ClassVar[int] = 1

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The loss () of a module in training mode on a batch."""
        return functional.cross_entropy(module(batch.x).float(), batch.y, label_smoothing=SMOOTHING)

    def before_step(self, module: nn.Module) -> None:
        """Called when the gradients are there, before the optimiser takes its step."""

    def state(self) -> dict[str, Tensor]:
        """What it carries from batch to batch, for a training that is to go on after a kill."""
        return {}

    def go_on(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` told."""


Look = Callable[[nn.Module], float]  # at the weights after an epoch, in eval mode; the best are kept


class Average:
    """An exponential mean of a module's weights and statistics."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module)
        self.decay, self.steps = decay, 0

    def take(self, module: nn.Module) -> None:
        """Another step's weights; the first ones count less, as they would be forgotten anyway."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for mine, new in zip(
                self.module.state_dict().values(), module.state_dict().values(), strict=True
            ):
                if mine.is_floating_point():
                    mine.lerp_(new, 1 - decay)
                else:
                    mine.copy_(new)


def fit_network(
    module: nn.Module,
    data: Data,
    schedule: Schedule,
    seed: int,
    report: Callable[[float], None],
    objective: Objective | None = None,
    look: Look | None = None,
    partial: Path | None = None,
) -> None:
    """Train a module in place, on the device that it is on.

    objective: what is minimised. look: a number for the weights after each epoch, of which the best are kept
    (None: the last). partial: a file that what has been done is kept in, to go on from after a kill.

    Raises `RobustError` where the loss is no longer a number.
    """
    device = next(module.parameters()).device
    objective = objective or Objective()
    generator = torch.Generator().manual_seed(seed)
    per_epoch = -(-len(data) // schedule.batch)
    steps = schedule.epochs * per_epoch * objective.replays
    optimiser = _optimiser(module, schedule)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.rate, total_steps=steps)
    x, y = data.x.to(device), data.y.to(device)
    fast = schedule.fast and device.type == "cuda"
    if fast:
        module.to(memory_format=torch.channels_last)
    average = Average(module, schedule.average) if schedule.average else None
    kept = _Kept(partial, module, optimiser, rates, average, objective)
    saved = time.monotonic()
    with reference_precision(), torch.random.fork_rng():
        first = kept.read()
        for epoch in range(schedule.epochs):
            order = torch.randperm(len(data), generator=generator)
            if epoch < first:
                continue
            module.train()
            for place, rows in enumerate(torch.split(order, schedule.batch)):
                number = epoch * per_epoch + place
                done = number / (schedule.epochs * per_epoch)
                stream = Stream.of(seed, data.ids[rows].to(device)).fold("training", epoch)
                held = x[rows.to(device)]
                if schedule.augment:
                    held = shifted_and_flipped(held, Stream.of(seed, data.ids[rows]).fold("augment", epoch))
                batch = Batch(held, y[rows.to(device)], rows, stream, done, number)
                for _ in range(objective.replays):
                    optimiser.zero_grad(set_to_none=True)
                    with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                        loss = objective.loss(module, batch)
                    torch.autograd.backward(loss)
                    objective.before_step(module)
                    optimiser.step()
                    rates.step()
                    if average is not None:
                        average.take(module)
                report(done)
            if not bool(loss.isfinite()):
                raise RobustError(
                    f"the training diverged in epoch {epoch + 1}: its loss is {float(loss.detach())}"
                )
            if look is not None:
                with torch.random.fork_rng(devices=[]):
                    kept.see(look((average.module if average is not None else module).eval()))
            if time.monotonic() - saved > KEPT_EVERY:
                kept.write(epoch + 1)
                saved = time.monotonic()
    kept.give_best()
    module.to(memory_format=torch.contiguous_format)
    module.eval()
    report(1.0)


class _Kept:
    """The best weights so far, and the file that a training is continued from."""

    def __init__(
        self,
        file: Path | None,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        rates: torch.optim.lr_scheduler.OneCycleLR,
        average: Average | None,
        objective: Objective,
    ) -> None:
        self.file, self.module, self.optimiser, self.rates = file, module, optimiser, rates
        self.average, self.objective = average, objective
        self.best: tuple[float, Mapping[str, Tensor]] | None = None

    @property
    def _weights(self) -> Mapping[str, Tensor]:
        held = self.module if self.average is None else self.average.module
        return {name: value.detach().clone() for name, value in held.state_dict().items()}

    def see(self, value: float) -> None:
        """Weights after an epoch and what they are worth."""
        if self.best is None or value >= self.best[0]:
            self.best = value, self._weights

    def give_best(self) -> None:
        """The module takes the weights that count."""
        self.module.load_state_dict(dict(self._weights if self.best is None else self.best[1]))
        if self.file is not None:
            self.file.unlink(missing_ok=True)

    def write(self, epochs: int) -> None:
        """Keep how far the training has come; where that cannot be kept, it is logged."""
        if self.file is None:
            return
        states: dict[str, Any] = {
            "epochs": epochs,
            "module": self.module.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rates": self.rates.state_dict(),
            "random": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "average": None
            if self.average is None
            else [self.average.module.state_dict(), self.average.steps],
            "best": None if self.best is None else [self.best[0], dict(self.best[1])],
            "objective": self.objective.state(),
        }
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.file.parent, suffix=".tmp")
            os.close(handle)
            torch.save(states, temporary)
            Path(temporary).replace(self.file)
        except OSError as error:
            log.warning("the training so far is not kept: %s", error)

    def read(self) -> int:
        """Take up what was kept; how many epochs are done. What cannot be read is begun anew."""
        if self.file is None or not self.file.exists():
            return 0
        parts: tuple[Any, ...] = (self.module, self.optimiser, self.rates)
        before = [copy.deepcopy(part.state_dict()) for part in parts]
        try:
            states = torch.load(self.file, weights_only=True, map_location="cpu")
            self.module.load_state_dict(states["module"])
            self.optimiser.load_state_dict(states["optimiser"])
            self.rates.load_state_dict(states["rates"])
            torch.set_rng_state(states["random"])
            if states["cuda"]:
                torch.cuda.set_rng_state_all(states["cuda"])
            if self.average is not None:
                self.average.module.load_state_dict(states["average"][0])
                self.average.steps = states["average"][1]
            self.best = None if states["best"] is None else (states["best"][0], states["best"][1])
            if states["objective"]:
                self.objective.go_on(states["objective"])
        except Exception as error:  # cut off, or of another revision
            log.warning("%s cannot be read, and the training begins anew: %s", self.file, error)
            self.file.unlink(missing_ok=True)
            for part, held in zip(parts, before, strict=True):
                part.load_state_dict(held)
            return 0
        log.info("going on after epoch %d", states["epochs"])
        return int(states["epochs"])


def shifted_and_flipped(x: Tensor, stream: Stream, most: int = 4) -> Tensor:
    """Images (n, C, H, W) each moved by up to `most` pixels, black coming in, and half of them mirrored."""
    n, _, height, width = x.shape
    draw = stream.integers(2 * most + 1, (2,)).to(x.device)
    mirrored = (stream.fold("mirror").integers(2, ()) == 1).to(x.device)
    padded = functional.pad(x, (most, most, most, most))
    rows = draw[:, :1] + torch.arange(height, device=x.device)
    columns = draw[:, 1:] + torch.arange(width, device=x.device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    each = torch.arange(n, device=x.device)[:, None, None]
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _optimiser(module: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    if schedule.momentum is None:
        return torch.optim.AdamW(module.parameters(), lr=schedule.rate, weight_decay=1e-2)
    return torch.optim.SGD(
        module.parameters(), schedule.rate, schedule.momentum, nesterov=True, weight_decay=5e-4
    )
