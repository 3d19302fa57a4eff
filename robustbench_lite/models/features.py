"""`features(NETWORK,ESTIMATOR)`: any estimator on what a network's last layer is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidParameter, Unsupported
from robustbench_lite.core.model import Model
from robustbench_lite.core.random import Stream
from robustbench_lite.data.data import Data
from robustbench_lite.models.behind import Behind, Transformation
from robustbench_lite.models.torch.embedding import embedding, embeddings
from robustbench_lite.models.torch.module import TorchModel


@dataclass(frozen=True, eq=False)
class Embedding(Transformation):
    """What the last linear layer of a network is given."""

    network: TorchModel

    def apply(self, x: Tensor, stream: Stream) -> Tensor:
        return embedding(self.network, x)

    def to(self, device: torch.device) -> Embedding:
        return Embedding(self.network.to(device))

    def facts(self) -> bytes:
        return b"embedding " + self.network.fingerprint().encode()


def features(names: Sequence[str], data: Data, make: Callable[[str, Data], Model]) -> Model:
    """The estimator that the second name makes of the embedding of the first, differentiable end to end.

    Parameters
    ----------
    names : sequence of str
        A network's and an estimator's.
    data : Data
    make : callable
        (name, data) -> the model of a name, trained on the data where it is.

    Returns
    -------
    Model

    Raises
    ------
    InvalidParameter
        For any other number of names.
    Unsupported
        Where the first is no plain network.
    """
    if len(names) != 2:
        raise InvalidParameter("features", ", ".join(names), "a network and an estimator: features(cnn,svm)")
    network = make(names[0], data)
    if not isinstance(network, TorchModel) or network.stochastic:
        raise Unsupported(f"features({names[0]},…): must be a plain network, not a {network.family}")
    training = data.training()
    seen, known = (embeddings(network, part.x).cpu() for part in (data, training))
    every = torch.cat([seen, known])
    box = Domain(every.amin(0), every.amax(0), pixel_dim=None)
    learnt = replace(training, x=known, domain=box, columns=None)
    inside = replace(data, x=seen, domain=box, columns=None, source=lambda: learnt)
    estimator = make(names[1], inside)
    notes = (f"{names[1]} on the {seen.shape[1]} features of {names[0]}'s last layer",)
    return Behind(estimator, Embedding(network), f"features({','.join(names)})", data.x.shape[1:], notes)
