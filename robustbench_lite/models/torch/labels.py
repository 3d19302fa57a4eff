"""Networks that name their classes: the data's classes are found among them by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustbench_lite.data.data import Data


class InOrder(nn.Module):
    """A network's scores with its classes in another order."""

    order: Tensor

    def __init__(self, network: nn.Module, order: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("order", order)

    def forward(self, x: Tensor) -> Tensor:
        output = self.network(x)
        scores: Tensor = getattr(output, "logits", output)
        return scores[:, self.order]


def by_name(
    network: nn.Module, labels: Sequence[str] | None, data: Data
) -> tuple[nn.Module, tuple[str, ...]]:
    """A network whose first classes are the data's, where it knows all of them by name; and a note.

    labels: what it calls its classes in order, synonyms divided by commas; None: it does not tell. A name
    counts whatever its case, an underscore as a space.
    """
    if labels is None or all(name.isdecimal() for name in data.class_names):
        return network, ()
    place: dict[str, int] = {}
    for names in ([[label] for label in labels], [label.split(",") for label in labels]):  # whole ones first
        claimed: dict[str, set[int]] = {}
        for number, synonyms in enumerate(names):
            for name in synonyms:
                claimed.setdefault(_plain(name), set()).add(number)
        for name, numbers in claimed.items():
            if len(numbers) == 1:  # what several are called tells none of them
                place.setdefault(name, next(iter(numbers)))
    found = [place.get(_plain(name), -1) for name in data.class_names]
    known = [number for number in found if number >= 0]
    if not known:
        return network, ()
    if len(set(known)) < len(found):
        some = ", ".join(name for name, number in zip(data.class_names, found, strict=True) if number < 0)
        why = f"not {some}" if some else "several by one"
        told = f"it knows {len(known)} of {len(found)} classes by name, {why}: all are taken by number"
        return network, (told,)
    if found == list(range(len(found))):
        return network, ()
    rest = sorted(set(range(len(labels))) - set(found))
    shown = ", ".join(f"{name} = {n}" for name, n in list(zip(data.class_names, found, strict=True))[:10])
    return InOrder(network, torch.tensor(found + rest)), (f"its classes by name: {shown}",)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
