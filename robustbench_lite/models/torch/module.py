"""Any torch network as a model, left unchanged: ours is a frozen copy in eval mode."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from robustbench_lite.core.errors import InvalidModel, Unsupported, require
from robustbench_lite.core.guard import foreign
from robustbench_lite.core.model import Access, Effort, Model, probes, reference_precision
from robustbench_lite.core.random import Stream
from robustbench_lite.core.settings import Precision
from robustbench_lite.core.structure import Layers
from robustbench_lite.data.data import Data
from robustbench_lite.models.checks import (
    answers_twice_alike,
    draws_alone,
    gradient_fault,
    in_batches_of,
    needs_its_batch,
    rows_taken,
)
from robustbench_lite.models.code import module_facts, tensor_facts
from robustbench_lite.models.torch.accelerate import accelerated, repays
from robustbench_lite.models.torch.draws import DrawsBySample
from robustbench_lite.models.torch.fast import faster, resolved
from robustbench_lite.models.torch.frozen import frozen, kind_of_number
from robustbench_lite.models.torch.layers import layers_of
from robustbench_lite.models.torch.outputs import (
    EXPECTED,
    EntryOf,
    Reading,
    best_of,
    parse_reading,
    possible,
    told,
    told_reading,
)

TRIED = 256  # samples by which readings of an output are told apart


class TorchModel(Model):
    """A classifier made of a `torch.nn.Module` that takes (n, *input_shape) and returns scores.

    The module is left unchanged: the model is a frozen copy in eval mode, which computes in the module's own
    type of number. It may return (n, K) scores, (n, K, H, W) for data with a class a pixel, (n, L) for data
    with labels that are there or not, one number (n, 1) or (n,) for two classes, or a tuple, mapping or
    object that holds one of these. A module that answers differently from call to call is marked
    `stochastic`, one without a gradient gets `Access.SCORE`, one that changes its input in place is given
    copies, one that takes batches of one size only is asked in such; all this is told in `notes`.

    Parameters
    ----------
    module : torch.nn.Module
    input_shape : sequence of int
        Of one sample, such as (3, 32, 32).
    name : str, optional
        What reports call it; by default the module's class.
    mean, std : sequence of float, optional
        Per-channel normalisation it expects, applied to inputs in [0, 1]; both or neither, std above 0. For
        one that takes 0 to 255 and no normalisation, mean 0 and std 1 / 255.
    outputs : str, default "auto"
        What it returns: `logits`, `probabilities` or `sigmoid` (one number, class 1 above 0.5); or `key:NAME`
        or `index:N`, the part of it that counts. auto: what a trial shows, by shape, range and accuracy.
        Logarithms of probabilities and log-odds of sigmoids serve as scores.
    device : str or torch.device, default "cpu"
    data : Data, optional
        What it is for, whose task is the model's: of several tensors in an output the one of so many columns
        counts, and where several readings are possible, the one that is right more often on these samples.

    Raises
    ------
    InvalidModel
        Where the module does not accept such inputs, returns something else or NaN, or scores a sample
        differently alone and in a batch.
    InvalidParameter
        For a setting outside what is allowed.

    Examples
    --------
    >>> TorchModel(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), (1, 8, 8)).num_classes
    10
    """

    family = "network"

    def __init__(
        self,
        module: nn.Module,
        input_shape: Sequence[int],
        *,
        name: str = "",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        outputs: str = "auto",
        device: torch.device | str = "cpu",
        data: Data | None = None,
    ) -> None:
        asked = parse_reading(outputs)
        require((mean is None) == (std is None), "std", std, "given together with mean")
        self.device = torch.device(device)
        self.name = name or type(module).__name__
        made, self.notes = frozen(module, self.name)
        self.module = made.to(self.device)
        self.input_shape = tuple(input_shape)
        channels = [-1, *[1] * (len(self.input_shape) - 1)]
        shift = torch.tensor([0.0] if mean is None else mean).reshape(channels)
        scale = torch.tensor([1.0] if std is None else std).reshape(channels)
        require(bool((scale > 0).all()), "std", std, "above 0")
        self._factor = (1 / scale).to(self.device)
        self._offset = (-shift / scale).to(self.device)
        self._plain = mean is None
        self._stream: Stream | None = None
        self._cast: torch.dtype | None = None
        self._copies: dict[tuple[Precision, bool | None], TorchModel | None] = {}
        self._spoils, self._rows = False, 0
        self._layers: Layers | Literal[False] | None = None
        self.num_classes = 0
        own = kind_of_number(self.module)
        if own != torch.float32:
            self._cast, self.precision = own, str(own).removeprefix("torch.")
            self.notes += (f"it computes in {self.precision}, and is judged so",)
        self._reading = Reading()
        if data is not None:
            self.task = data.task
            labels = data.task.kind == "multilabel"
            asked = replace(asked, positions=tuple(data.y.shape[1:]), labels=labels)
        self._read(asked, data)
        self._examine()

    def scores(self, x: Tensor) -> Tensor:
        x = self.as_taken(x, self._cast)
        if self._stream is None:
            return self._in_batches(x)
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(int(self._stream.key.sum().item()) & 0x7FFFFFFFFFFFFFFF)
            with DrawsBySample(self._stream):
                return self._in_batches(x)

    @property
    def structure(self) -> Layers | None:
        """The steps of a feed-forward network of rectified units whose answers are its scores; else None."""
        if self._layers is None:
            self._layers = self._read_layers()
        return self._layers or None

    def _read_layers(self) -> Layers | Literal[False]:
        held = self.stochastic or self.outputs != "logits" or self._cast is not None or self._rows
        if held or self._reading.positions:
            return False
        try:
            with foreign(self.name, "reading its layers"):
                layers = layers_of(self.module, self.input_shape, self._factor, self._offset)
        except (Unsupported, InvalidModel) as error:
            self.unread = str(error)
            return False
        return layers if layers.classes == self.num_classes else False

    @property
    def outputs(self) -> str:
        """What its numbers are taken for: logits, probabilities or sigmoid."""
        return self._reading.kind or "logits"

    def _in_batches(self, x: Tensor) -> Tensor:
        """Scores (n, K) of inputs as the module takes them, in batches of the size that it takes."""
        if not self._rows:
            return self._asked(x)
        none = (0, self.num_classes, *self._reading.positions)
        return in_batches_of(self._rows, self._asked, x) if len(x) else x.new_zeros(none)

    def _asked(self, x: Tensor) -> Tensor:
        """Scores (n, K) of one call."""
        output = self._called(x)
        chosen = self._reading.chosen(output)
        if chosen is None or len(chosen) != len(x):
            raise self._unread(output, len(x))
        scores = self._reading.scores(chosen)
        if scores.shape[1] != self.num_classes:
            raise InvalidModel(f"{self.name}: gave {self.num_classes} scores, now {scores.shape[1]}")
        return scores

    def _unread(self, output: object, rows: int) -> InvalidModel:
        return InvalidModel(f"{self.name}: returns {told(output)} for {rows} inputs; must be {EXPECTED}")

    def _called(self, x: Tensor) -> object:
        with foreign(self.name, f"a forward pass of {str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"):
            return self.module(x.clone() if self._spoils else x)

    def for_search(self, precision: Precision, effort: Effort) -> TorchModel | None:
        """A copy folded, channels last, in fewer bits, compiled; None where none is wanted, or it fails.

        What draws at random is never compiled: a recording would draw the same again and again.

        Parameters
        ----------
        precision : {"auto", "float32", "tf32", "bfloat16"}
        effort : Effort
            What the search is about to spend.

        Returns
        -------
        TorchModel or None
        """
        chosen = resolved(precision, self.module, self.device)
        if (chosen == "float32" and not effort.compile) or self._cast is not None or self._rows:
            return None
        plain = self._copy(chosen)
        on_cpu = self.device.type == "cpu"
        if plain is None or self.stochastic or effort.compile is False or (effort.compile is None and on_cpu):
            return plain
        x = self.as_taken(self._inputs(), plain._cast)
        key = chosen, repays(plain.module, x, effort)
        if key not in self._copies:
            quick = copy.copy(plain)
            quick.module = accelerated(plain.module, x, kernels=key[1])
            self._copies[key] = quick
        return self._copies[key]

    def _copy(self, precision: Precision) -> TorchModel | None:
        """A copy folded, channels last and in fewer bits; None where it fails."""
        if (precision, None) in self._copies:
            return self._copies[precision, None]
        fast = copy.copy(self)
        x = self._inputs()
        fast.module = faster(self.module, precision, self.as_taken(x, None))
        fast._cast = torch.bfloat16 if precision == "bfloat16" else torch.float32
        fast.precision = str(precision)
        try:
            broken = gradient_fault(fast, x) is not None
        except (RuntimeError, TypeError, ValueError, InvalidModel):  # what cannot be cast searches as it is
            broken = True
        self._copies[precision, None] = None if broken else fast
        return self._copies[precision, None]

    def draw(self, stream: Stream) -> Model:
        """A stochastic module whose draws come from each row's own key.

        Draws whose first axis is not the samples come from one generator, seeded by all rows at once; then
        `batch_draws` says that what a sample meets depends on its neighbours.

        Parameters
        ----------
        stream : Stream
            One key a row of the inputs that follow.

        Returns
        -------
        Model
            Itself where it does not draw.
        """
        if not self.stochastic:
            return self
        fixed = copy.copy(self)
        fixed._stream = stream
        return fixed

    def to(self, device: torch.device | str) -> TorchModel:
        moved = copy.copy(self)
        moved.device = torch.device(device)
        moved._copies, moved._layers = {}, None
        moved.module = frozen(self.module, self.name)[0].to(moved.device)
        moved._factor, moved._offset = self._factor.to(moved.device), self._offset.to(moved.device)
        return moved

    def facts(self) -> bytes:
        digest = hashlib.sha256(f"{self.module!r} {self._reading}".encode())
        digest.update(module_facts(self.module))
        normalisation = [("factor", self._factor), ("offset", self._offset)]
        for key, value in [*sorted(self.module.state_dict().items()), *normalisation]:
            for part in (key.encode(), *tensor_facts(value)):
                digest.update(part)
        return digest.digest()

    def as_taken(self, x: Tensor, cast: torch.dtype | None = None) -> Tensor:
        """Inputs in [0, 1] as the module takes them."""
        x = x if self._plain else x * self._factor + self._offset
        if cast is None:
            return x
        return x.to(cast, memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)

    def _inputs(self) -> Tensor:
        """Four inputs: black, white, grey and noise."""
        return probes(self.input_shape).to(self.device)

    def _read(self, asked: Reading, data: Data | None) -> None:
        """Find out in which batches the module is asked and how its output is read; what is odd is noted."""
        x = self.as_taken(self._inputs(), self._cast)
        with torch.no_grad(), reference_precision():
            self._rows = rows_taken(self._called, x)
            x = x[torch.arange(self._rows or len(x), device=x.device) % len(x)]
            given = x.clone()
            output = self._called(given)
            self._spoils = not torch.equal(given, x)
            output = self._in_a_graph(x, output)
            readings = possible(output, len(x), asked, None if data is None else data.num_classes)
            if not readings:
                raise self._unread(output, len(x))
            several = len(readings) > 1
            shares = [self._share_right(one, output, data) if several else None for one in readings]
            best = best_of(shares)
            self._take(readings[best], output)
        self.notes += ("it changes its input in place, and is given copies",) * self._spoils
        self.notes += (f"it takes batches of {self._rows} only, and is asked in such",) * bool(self._rows)
        self.notes += told_reading(readings[best], shares[best], sure=not several)
        if self._reading.entry is not None:  # from here on the module returns this entry alone
            self.module = EntryOf(self.module, self._reading)
            self._reading = replace(self._reading, entry=None)

    def _in_a_graph(self, x: Tensor, output: object) -> object:
        """The output with the operations that made it; as it is where there is no gradient."""
        try:
            with torch.enable_grad():
                return self._called(x.detach().requires_grad_())
        except InvalidModel:
            return output

    def _take(self, reading: Reading, output: object) -> None:
        self._reading = reading
        chosen = reading.chosen(output)
        self.num_classes = 0 if chosen is None else reading.scores(chosen).shape[1]

    def _share_right(self, reading: Reading, output: object, data: Data | None) -> float | None:
        """How many samples are right by a reading; None where there are none, or it does not fit them."""
        if data is None:
            return None
        self._take(reading, output)
        x, y = data.x[:TRIED], data.y[:TRIED]
        try:
            right = self.prediction(self.scores(x.to(self.device))).cpu() == y
        except InvalidModel:
            return None
        return float(right.float().mean())

    def _examine(self) -> None:
        """What it cannot do is marked, with the reason; what would falsify results is refused."""
        x = self._inputs()
        with torch.no_grad(), reference_precision():
            if not bool(self.scores(x).isfinite().all()):
                raise InvalidModel(f"{self.name}: returns NaN or infinite scores for inputs in [0, 1]")
        if not answers_twice_alike(self, x):
            self.stochastic = True
            self.batch_draws = not draws_alone(self, x)
            beside = ", and what it draws for a sample depends on its batch" if self.batch_draws else ""
            self.notes += (
                f"it answers the same input differently from call to call{beside}; average with --eot",
            )
        elif needs_its_batch(self, x):
            raise InvalidModel(
                f"{self.name}: scores a sample differently alone and in a batch; "
                "switch its batch statistics off (module.eval(), track_running_stats)"
            )
        fault = gradient_fault(self, x)
        if fault is not None:
            self.access, self.limits = Access.SCORE, fault
            self.notes += (f"{fault}: only attacks that need none can run",)
