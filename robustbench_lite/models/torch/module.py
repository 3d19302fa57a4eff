"""Any torch network as a model, left unchanged: ours is a frozen copy in eval mode."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustbench_lite.core.errors import InvalidModel, require
from robustbench_lite.core.model import Access, Effort, Model, probes
from robustbench_lite.core.random import Stream
from robustbench_lite.core.settings import Precision
from robustbench_lite.models.checks import (
    answers_twice_alike,
    draws_alone,
    gradient_fault,
    needs_its_batch,
)
from robustbench_lite.models.code import module_facts, tensor_facts
from robustbench_lite.models.torch.accelerate import accelerated, repays
from robustbench_lite.models.torch.draws import DrawsBySample
from robustbench_lite.models.torch.fast import faster, resolved
from robustbench_lite.models.torch.outputs import as_scores

OUTPUTS = ("auto", "logits", "probabilities")


class TorchModel(Model):
    """A classifier made of a `torch.nn.Module` that takes (n, *input_shape) and returns scores.

    The module is left unchanged: the model is a frozen copy in eval mode. It may return (n, K) scores, one
    logit (n, 1) or (n,) (classes 0 and 1 then score 0 and the logit), a tuple or mapping whose first entry
    they are, or an object with `.logits`. A module that answers differently from call to call is marked
    `stochastic`, one without a gradient gets `Access.SCORE`; both are told in `notes`.

    Parameters
    ----------
    module : torch.nn.Module
    input_shape : sequence of int
        Of one sample, such as (3, 32, 32).
    name : str, optional
        What reports call it; by default the module's class.
    mean, std : sequence of float, optional
        Per-channel normalisation it expects, applied to inputs in [0, 1]; both or neither, std above 0.
    input_range : tuple of float, default (0.0, 1.0)
        The range it expects instead of [0, 1], applied before mean and std.
    outputs : {"auto", "logits", "probabilities"}, default "auto"
        What it returns; auto: whichever a trial shows. The logarithms of probabilities serve as scores.
    device : str or torch.device, default "cpu"

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
        input_range: tuple[float, float] = (0.0, 1.0),
        outputs: str = "auto",
        device: torch.device | str = "cpu",
    ) -> None:
        require(outputs in OUTPUTS, "outputs", outputs, f"one of {', '.join(OUTPUTS)}")
        require(input_range[0] < input_range[1], "input_range", input_range, "(low, high) with low < high")
        require((mean is None) == (std is None), "std", std, "given together with mean")
        self.device = torch.device(device)
        self.module = copy.deepcopy(module).eval().requires_grad_(False).to(self.device)
        self.name = name or type(module).__name__
        self.input_shape = tuple(input_shape)
        channels = [-1, *[1] * (len(self.input_shape) - 1)]
        low, high = input_range
        shift = torch.tensor([0.0] if mean is None else mean).reshape(channels)
        scale = torch.tensor([1.0] if std is None else std).reshape(channels)
        require(bool((scale > 0).all()), "std", std, "above 0")
        self._factor = ((high - low) / scale).to(self.device)
        self._offset = ((low - shift) / scale).to(self.device)
        self._plain = mean is None and input_range == (0.0, 1.0)
        self.outputs = "logits"
        self._stream: Stream | None = None
        self._cast: torch.dtype | None = None
        self._copies: dict[tuple[Precision, bool | None], TorchModel | None] = {}
        trial = self._try()
        self.num_classes = trial.shape[1]
        self.outputs = _kind(trial) if outputs == "auto" else outputs
        if self.outputs == "probabilities":
            self.notes = ("its outputs are probabilities; their logarithms serve as scores",)
        self._examine()

    def scores(self, x: Tensor) -> Tensor:
        x = self._as_taken(x, self._cast)
        scores = as_scores(self.module(x)) if self._stream is None else self._scores_drawn(x, self._stream)
        return scores.clamp_min(1e-38).log() if self.outputs == "probabilities" else scores

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
        if chosen == "float32" and not effort.compile:
            return None
        plain = self._copy(chosen)
        on_cpu = self.device.type == "cpu"
        if plain is None or self.stochastic or effort.compile is False or (effort.compile is None and on_cpu):
            return plain
        x = self._as_taken(self._inputs(), plain._cast)
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
        fast.module = faster(self.module, precision, self._as_taken(x, None))
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

    def _scores_drawn(self, x: Tensor, stream: Stream) -> Tensor:
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(int(stream.key.sum().item()) & 0x7FFFFFFFFFFFFFFF)
            with DrawsBySample(stream):
                return as_scores(self.module(x))

    def to(self, device: torch.device | str) -> TorchModel:
        moved = copy.copy(self)
        moved.device = torch.device(device)
        moved._copies = {}
        moved.module = copy.deepcopy(self.module).to(moved.device)
        moved._factor, moved._offset = self._factor.to(moved.device), self._offset.to(moved.device)
        return moved

    def facts(self) -> bytes:
        digest = hashlib.sha256(f"{self.module!r} {self.outputs}".encode())
        digest.update(module_facts(self.module))
        normalisation = [("factor", self._factor), ("offset", self._offset)]
        for key, value in [*sorted(self.module.state_dict().items()), *normalisation]:
            for part in (key.encode(), *tensor_facts(value)):
                digest.update(part)
        return digest.digest()

    def _as_taken(self, x: Tensor, cast: torch.dtype | None) -> Tensor:
        """Inputs in [0, 1] as the module takes them."""
        x = x if self._plain else x * self._factor + self._offset
        if cast is None:
            return x
        return x.to(cast, memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format)

    def _inputs(self) -> Tensor:
        """Four inputs: black, white, grey and noise."""
        return probes(self.input_shape).to(self.device)

    def _examine(self) -> None:
        """What it cannot do is marked, with the reason; what would falsify results is refused."""
        x = self._inputs()
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
            self.access = Access.SCORE
            self.notes += (f"{fault}: only attacks that need none can run",)

    def _try(self) -> Tensor:
        try:
            with torch.no_grad():
                scores = self.scores(self._inputs())
        except InvalidModel as error:
            raise InvalidModel(f"{self.name}: {error}") from None
        except (RuntimeError, ValueError, TypeError) as error:
            shape = (4, *self.input_shape)
            raise InvalidModel(f"{self.name}: does not accept a float32 input {shape}: {error}") from error
        if len(scores) != 4:
            raise InvalidModel(f"{self.name}: returns scores {tuple(scores.shape)} for 4 inputs")
        if not bool(scores.isfinite().all()):
            raise InvalidModel(f"{self.name}: returns NaN or infinite scores for inputs in [0, 1]")
        return scores


def _kind(scores: Tensor) -> str:
    """Whether scores look like probabilities (AutoAttack's check): in [0, 1], rows that sum to 1."""
    inside = bool(((scores >= -1e-5) & (scores <= 1 + 1e-5)).all())
    whole = bool(((scores.sum(1) - 1).abs() < 1e-5).all())
    return "probabilities" if inside and whole else "logits"
