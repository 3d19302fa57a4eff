"""Asking a model: in pieces that fit in memory, the truth in reference precision, the search in its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from robustbench_lite.core.errors import RobustError
from robustbench_lite.core.guard import foreign, is_out_of_memory
from robustbench_lite.core.model import Model, fast_arithmetic, reference_precision
from robustbench_lite.core.random import Stream

Objective = Callable[[Tensor, slice], Tensor]
Answer = TypeVar("Answer")


class OutOfMemory(RobustError):
    """Not even one sample fits in the device's memory."""


@dataclass
class Oracle:
    """A model as attacks and the judge may ask it.

    search: a faster copy that gradients are taken of (None: the model itself); what it believes is only a
    candidate. chunk: rows a call, halved for good whenever memory runs out. eot: draws that a stochastic
    model's answers are averaged over (expectation over transformation, Athalye et al. 2018). scorer: what
    scores are compared by (None: `search`): bfloat16 does not tell which of two near points is better.
    Answers have the draws first, (D, n, K); D is 1 where the model does not draw.
    """

    model: Model
    search: Model | None = None
    chunk: int = 1 << 30
    eot: int = 1
    scorer: Model | None = None

    @property
    def own_face_is_truth(self) -> bool:
        """Whether the scores that come with the model's own gradient are the truth."""
        return self.model.gradient_is_truth and not self.model.stochastic

    @property
    def face_is_truth(self) -> bool:
        """Whether the scores that come with a gradient are the truth."""
        return self.search is None and self.own_face_is_truth

    def truth(self, x: Tensor, stream: Stream | None = None, draws: int | None = None) -> Tensor:
        """True scores (D, n, K): `draws` (None: `eot`) fresh ones of a stochastic model, by the stream."""
        count = (draws or self.draws) if self.model.stochastic else 1
        with torch.no_grad(), reference_precision():
            return torch.cat(list(self._pieces(len(x), lambda s: self._answers(x[s], stream, s, count))), 1)

    def proposed(self, x: Tensor) -> Tensor:
        """Scores (1, n, K) by the copy that scores are compared by: only a candidate's."""
        face = self.scorer or self.search or self.model
        with torch.no_grad(), self._arithmetic(face), self._guard("scores"):
            return torch.cat(list(self._pieces(len(x), lambda s: face.scores(x[s]))))[None]

    def gradient(
        self, x: Tensor, objective: Objective, stream: Stream | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient (n, …) of the objective, its value (n,) and the scores (D, n, K) it was computed from."""
        return self.gradient_through(x, lambda z, s: z, objective, stream)

    def gradient_through(
        self,
        z: Tensor,
        render: Callable[[Tensor, slice], Tensor],
        objective: Objective,
        stream: Stream | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same with respect to z (n, …), of which `render` makes the inputs of some rows."""

        def piece(s: slice) -> tuple[Tensor, Tensor, Tensor]:
            gradient, value, scores = z.new_zeros(()), z.new_zeros(()), list[Tensor]()
            for draw in range(self.draws):
                leaf = z[s].detach().requires_grad_()
                face = _drawn(self.search or self.model, stream, s, draw)
                with torch.enable_grad(), self._arithmetic(face):
                    x = render(leaf, s)
                    with self._guard("scores"):
                        answer = face.gradient_scores(x)
                    one = objective(answer, s)
                    with self._guard("their gradient"):
                        (slope,) = torch.autograd.grad(one.sum(), leaf)
                gradient, value = (
                    (slope, one.detach()) if not draw else (gradient + slope, value + one.detach())
                )
                scores.append(answer.detach())
            if self.draws > 1:
                gradient, value = gradient / self.draws, value / self.draws
            return gradient, value, torch.stack(scores)

        gradients, values, scores = zip(*self._pieces(len(z), piece), strict=True)
        return torch.cat(gradients), torch.cat(values), torch.cat(scores, 1)

    def jacobian(
        self, x: Tensor, classes: Tensor, against: Tensor | None = None, stream: Stream | None = None
    ) -> tuple[Tensor, Tensor]:
        """Gradients (n, C, …) of the scores of the named classes (n, C), and all scores (1, n, K).

        Of their lead over a class (n,), where `against` names one. In the model's own precision: who asks
        solves for the boundary. Of one draw of a stochastic model.
        """

        def piece(s: slice) -> tuple[Tensor, Tensor]:
            leaf = x[s].detach().requires_grad_()
            with torch.enable_grad(), reference_precision(), self._guard("gradients of scores"):
                scores = _drawn(self.model, stream, s, 0).gradient_scores(leaf)
                chosen = scores.gather(1, classes[s])
                if against is not None:
                    chosen = chosen - scores.gather(1, against[s, None])
                last = classes.shape[1] - 1
                rows = [
                    torch.autograd.grad(chosen[:, c].sum(), leaf, retain_graph=c < last)[0]
                    for c in range(classes.shape[1])
                ]
            return torch.stack(rows, 1), scores.detach()

        gradients, scores = zip(*self._pieces(len(x), piece), strict=True)
        return torch.cat(gradients), torch.cat(scores)[None]

    @property
    def draws(self) -> int:
        """Forward passes that one answer takes."""
        return self.eot if self.model.stochastic else 1

    @property
    def precision(self) -> str:
        """What gradients are computed in."""
        return (self.search or self.model).precision

    def _arithmetic(self, face: Model) -> AbstractContextManager[None]:
        """The truth is never computed in TensorFloat-32; a search copy may be."""
        exact = face is self.model or self.search is None or face.precision == "float32"
        return reference_precision() if exact else fast_arithmetic()

    def _guard(self, what: str) -> AbstractContextManager[None]:
        return foreign(self.model.name, what)

    def _answers(self, x: Tensor, stream: Stream | None, s: slice, count: int) -> Tensor:
        with self._guard("scores"):
            if stream is None or not self.model.stochastic:
                return self.model.scores(x)[None]
            fresh = stream.fold("fresh")
            return torch.stack(
                [self.model.draw(Stream(fresh.fold(draw).key[s])).scores(x) for draw in range(count)]
            )

    def _pieces(self, n: int, ask: Callable[[slice], Answer]) -> Iterator[Answer]:
        start = 0
        while start < n or (n == 0 and start == 0):
            stop = min(n, start + self.chunk)
            try:
                answer = ask(slice(start, stop))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if stop - start <= 1:
                    what = f"model {self.model.name!r}: one sample does not fit in the memory of"
                    raise OutOfMemory(f"{what} {self.model.device}") from error
                self.chunk = (stop - start) // 2
            else:
                yield answer
                start = max(stop, 1)


def _drawn(face: Model, stream: Stream | None, s: slice, draw: int) -> Model:
    return face if stream is None or not face.stochastic else face.draw(Stream(stream.fold(draw).key[s]))


def saved_bytes_per_sample(model: Model, x: Tensor) -> int:
    """Bytes that a backward pass keeps for one sample of x (n, …), as autograd reports them."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def size(n: int) -> int:
        saved.clear()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            outputs = model.gradient_scores(x[:1].expand(n, *x.shape[1:]).clone().requires_grad_())
        total = sum(saved.values())
        del outputs
        return total

    return max(size(3) - size(2), x[0].nbytes)  # the difference leaves the weights out
