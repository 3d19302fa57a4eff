"""What networks return, as scores: which part of it they are, and what kind of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from robustbench_lite.core.errors import InvalidModel, InvalidParameter

Kind = Literal["logits", "probabilities", "sigmoid"]
Entry = str | int | None
ALLOWED = "logits|probabilities|sigmoid|key:NAME|index:N"
EXPECTED = (
    "scores (n, K), (n, K, H, W) for a label a pixel or (n, L) for labels (n, L), one number (n,), or a "
    "tuple, mapping or object that holds one of these"
)
USUAL = ("logits", "scores", "output", "outputs", "out", "pred", "prediction", "predictions", "y")
CLEARLY = 0.05  # of accuracy: how much better a reading has to be to be taken
SQUASHING = ("Sigmoid", "Softmax", "Exp")  # operations that end in [0, 1]
SHAPING = ("View", "Squeeze", "Unsqueeze", "Select", "Slice", "Index", "Clone", "ToCopy", "Alias", "Reshape")
MOST = 8  # readings that are tried


@dataclass(frozen=True)
class Reading:
    """How a network's output becomes scores.

    entry: the key or place of the tensor in it; None: it is one. kind: what its numbers are. positions: the
    shape of an answer that has a class at every position; (): one class a sample. labels: whether positions
    are labels that are there or not, of which the output has one number each.
    """

    entry: Entry = None
    kind: Kind | None = None
    positions: tuple[int, ...] = ()
    labels: bool = False

    def chosen(self, output: object) -> Tensor | None:
        """The tensor (n, K, *positions), (n, L), (n, 1) or (n,) of an output; None where there is none."""
        found = output if self.entry is None else dict(entries(output)).get(self.entry)
        if not isinstance(found, Tensor) or not found.is_floating_point():
            return None
        if self.labels:
            return found if found.shape[1:] == self.positions else None
        fits = found.shape[2:] == self.positions if self.positions else found.dim() in (1, 2)
        return found if fits else None

    def scores(self, output: Tensor) -> Tensor:
        """Scores (n, K, *positions): of probabilities their logarithms, of sigmoids their log-odds.

        Of labels (n, 2, L): 0 for each that is not there, and its number.
        """
        scores = output.float() if output.dtype != torch.float64 else output
        if self.kind == "probabilities":
            scores = scores.clamp_min(1e-38).log()
        elif self.kind == "sigmoid":
            scores = scores.clamp_min(1e-38).log() - (1 - scores).clamp_min(1e-38).log()
        return torch.stack([torch.zeros_like(scores), scores], 1) if self.labels else two_columns(scores)


def parse_reading(text: str) -> Reading:
    """What `outputs` says; raises `InvalidParameter`."""
    head, colon, rest = text.partition(":")
    match head:
        case "auto" if not colon:
            return Reading()
        case "logits" | "probabilities" | "sigmoid" if not colon:
            return Reading(None, head)
        case "key" if rest:
            return Reading(rest)
        case "index" if rest.isascii() and rest.isdigit():
            return Reading(int(rest))
    raise InvalidParameter("outputs", text, f"auto or one of {ALLOWED}")


class EntryOf(nn.Module):
    """A module of which only one entry of the output counts."""

    def __init__(self, module: nn.Module, reading: Reading) -> None:
        super().__init__()
        self.module, self.reading = module, reading

    def forward(self, x: Tensor) -> object:
        return self.reading.chosen(self.module(x))


def entries(output: object) -> Iterator[tuple[str | int, object]]:
    """The parts of an output by key or place."""
    if isinstance(output, dict):
        yield from ((key, value) for key, value in output.items() if isinstance(key, str | int))
    elif isinstance(output, tuple | list):
        if hasattr(output, "_fields"):
            yield from zip(output._fields, output, strict=True)
        yield from enumerate(output)
    elif not isinstance(output, Tensor) and hasattr(output, "__dict__"):
        yield from vars(output).items()


def possible(output: object, rows: int, asked: Reading, classes: int | None) -> list[Reading]:
    """The readings of an output to so many rows, the likeliest first; none where none fits.

    asked: what a user said of it. classes: of several tensors, those of so many columns come before others.
    """
    if isinstance(output, Tensor) or asked.entry is not None:
        places: list[Entry] = [asked.entry]
    else:
        places = list(_unlike({**_usual(output), **dict(entries(output))}))
    found = {place: replace(asked, entry=place).chosen(output) for place in places}
    fitting = {place: part for place, part in found.items() if part is not None and len(part) == rows}
    exact = {place: part for place, part in fitting.items() if classes == asked.scores(part).shape[1]}
    readings = []
    for place, part in (exact or fitting).items():
        single = asked.labels or part.dim() == 1 or part.shape[1] == 1
        kind = asked.kind or kind_of(part.flatten() if asked.labels else part)
        kind = "sigmoid" if single and kind == "probabilities" else kind
        readings.append(replace(asked, entry=place, kind=kind))
        if single and asked.kind is None and between_0_and_1(part):
            readings.append(replace(asked, entry=place, kind="logits" if kind == "sigmoid" else "sigmoid"))
    return readings[:MOST]


def best_of(shares: Sequence[float | None]) -> int:
    """Which reading is taken: the first, unless another is clearly right more often."""
    best = 0
    for place, share in enumerate(shares):
        if share is not None and share > (shares[best] or 0.0) + CLEARLY:
            best = place
    return best


def told_reading(reading: Reading, share: float | None, sure: bool) -> tuple[str, ...]:
    """What a reader should know of the reading that was taken; sure: whether no other was possible."""
    if reading.kind == "probabilities" and sure and reading.entry is None:
        return ("its outputs are probabilities; their logarithms serve as scores",)
    if sure and reading.kind == "logits":
        return ()
    which = "its output is" if reading.entry is None else f"of its outputs {reading.entry!r} is"
    right = "" if share is None else f" (right for {share:.0%} of the samples tried)"
    return (f"{which} taken as {reading.kind}{right}; outputs={ALLOWED} says otherwise",)


def _usual(output: object) -> dict[str | int, object]:
    found = dict(entries(output))
    return {key: found[key] for key in USUAL if key in found}


def _unlike(found: dict[str | int, object]) -> dict[str | int, object]:
    """Each object under the first key that names it: a named tuple gives each entry twice."""
    kept: dict[str | int, object] = {}
    for key, value in found.items():
        if not any(value is other for other in kept.values()):
            kept[key] = value
    return kept


def as_scores(output: object) -> Tensor:
    """Scores (n, K) of a tensor (n, K), (n, 1) or (n,), in float32 or float64."""
    found = Reading().chosen(output)
    if found is None:
        raise InvalidModel(f"returns {told(output)}; must be {EXPECTED}")
    return Reading().scores(found)


def two_columns(scores: Tensor) -> Tensor:
    """Scores (n, K, …); of one logit (n, 1, …) or (n,) those of both classes, 0 and the logit."""
    single = scores[:, None] if scores.dim() == 1 else scores
    return single if single.shape[1] > 1 else torch.cat([torch.zeros_like(single), single], 1)


def told(output: object) -> str:
    """A foreign output in a few words."""
    if isinstance(output, Tensor):
        return f"{str(output.dtype).removeprefix('torch.')} {tuple(output.shape)}"
    return type(output).__name__


def between_0_and_1(outputs: Tensor) -> bool:
    """Whether all numbers lie there, but for rounding."""
    return bool(((outputs >= -1e-5) & (outputs <= 1 + 1e-5)).all())


def kind_of(outputs: Tensor) -> Kind:
    """What the numbers of outputs (n, K) or (n,) are, by what made them and what they look like."""
    inside = between_0_and_1(outputs)
    if outputs.dim() == 1 or outputs.shape[1] == 1:
        maker = _maker(outputs)
        squashed = inside if maker is None else maker.startswith(SQUASHING)
        return "sigmoid" if squashed and inside else "logits"
    # AutoAttack's check: in [0, 1], and rows that sum to 1.
    room = 1e-5 if outputs.dtype in (torch.float32, torch.float64) else 2e-2
    whole = bool(((outputs.float().sum(1) - 1).abs() < room).all())
    return "probabilities" if inside and whole else "logits"


def _maker(outputs: Tensor) -> str | None:
    """The operation that made numbers, as autograd calls it; None outside a graph."""
    node = outputs.grad_fn
    while node is not None and node.name().removeprefix("Unsafe").startswith(SHAPING) and node.next_functions:
        node = node.next_functions[0][0]
    return None if node is None else node.name()
