"""Compositional pattern networks: small networks that draw an image from its coordinates (Stanley 2007)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import per_row

INPUTS = 4  # across, down, distance from the middle, one
HIDDEN = 16  # nodes a network may grow, at most


@dataclass(frozen=True)
class Genomes:
    """n networks of N nodes in an order that connections only go forward in.

    weight (n, N, N): from a row's node to a column's; linked (n, N, N); alive (n, N): inputs, outputs and
    what has grown; kind (n, N): 0 sine, 1 sigmoid, 2 Gaussian, 3 linear. The last nodes are the outputs.
    """

    weight: Tensor
    linked: Tensor
    alive: Tensor
    kind: Tensor
    outputs: int

    @classmethod
    def simplest(cls, stream: Stream, shape: tuple[int, ...]) -> Genomes:
        """Networks without hidden nodes for images of a shape, one a key."""
        outputs = shape[0] if len(shape) == 3 else 1
        nodes = INPUTS + HIDDEN + outputs
        place = torch.arange(nodes, device=stream.key.device)
        ends = (place < INPUTS) | (place >= nodes - outputs)
        linked = (place < INPUTS)[:, None] & (place >= nodes - outputs)
        count = len(stream.key)
        return cls(
            2 * stream.fold("weight").gaussian((nodes, nodes)),
            linked.expand(count, -1, -1).clone(),
            ends.expand(count, -1).clone(),
            stream.fold("kind").integers(4, (nodes,)),
            outputs,
        )

    def __getitem__(self, rows: Tensor) -> Genomes:
        return Genomes(self.weight[rows], self.linked[rows], self.alive[rows], self.kind[rows], self.outputs)

    def where(self, rows: Tensor, other: Genomes) -> Genomes:
        """The other's networks in some rows (a mask), these in the rest."""
        mine, theirs = (
            [getattr(genomes, name) for name in ("weight", "linked", "alive", "kind")]
            for genomes in (self, other)
        )
        weight, linked, alive, kind = (
            torch.where(per_row(rows, a), b, a) for a, b in zip(mine, theirs, strict=True)
        )
        return Genomes(weight, linked, alive, kind, self.outputs)

    def images(self, shape: tuple[int, ...]) -> Tensor:
        """What the networks draw (n, *shape), in [0, 1]."""
        height, width = shape[1:] if len(shape) == 3 else (1, math.prod(shape))
        down, across = (
            torch.linspace(-1, 1, size, device=self.weight.device) * (size > 1) for size in (height, width)
        )
        down, across = torch.meshgrid(down, across, indexing="ij")
        given = torch.stack([across, down, (across**2 + down**2).sqrt(), torch.ones_like(across)]).flatten(1)
        nodes = self.weight.shape[1]
        value = torch.zeros(len(self.weight), nodes, given.shape[1], device=given.device)
        value[:, :INPUTS] = given
        weight = torch.where(self.linked, self.weight, 0.0)
        for node in range(INPUTS, nodes):
            total = torch.einsum("ni,nip->np", weight[:, :node, node], value[:, :node])
            kinds = torch.stack([total.sin(), total.sigmoid(), (-total.square()).exp(), total], 1)
            one = kinds.gather(1, self.kind[:, node, None, None].expand(-1, 1, total.shape[1]))[:, 0]
            value[:, node] = torch.where(self.alive[:, node, None], one, 0.0)
        drawn = (value[:, nodes - self.outputs :].clamp(-1, 1) + 1) / 2
        return drawn.reshape(len(self.weight), *shape)

    def mutated(self, stream: Stream) -> Genomes:
        """Children: connections added (.5), cut (.3) and changed (.5), nodes added (.5) and removed (.2)."""
        chance = stream.fold("chance").uniform((5,))
        linked, alive, kind, weight = self.linked.clone(), self.alive.clone(), self.kind.clone(), self.weight
        nodes = weight.shape[1]
        place = torch.arange(nodes, device=weight.device)
        hidden = (place >= INPUTS) & (place < nodes - self.outputs)
        rows = torch.arange(len(weight), device=weight.device)

        new = _one_of(~alive & hidden, stream.fold("new")) & (chance[:, 3] < 0.5)[:, None]
        split = _one_of(linked, stream.fold("split"))
        grown = new.any(1) & split.flatten(1).any(1)
        start, end = split.any(2).int().argmax(1), split.any(1).int().argmax(1)
        node = new.int().argmax(1)
        fits = grown & (start < node) & (node < end)
        weight = weight.clone()
        alive |= new & fits[:, None]
        weight[rows, start, node] = torch.where(fits, 1.0, weight[rows, start, node])
        weight[rows, node, end] = torch.where(fits, weight[rows, start, end], weight[rows, node, end])
        linked[rows, start, node] |= fits
        linked[rows, node, end] |= fits
        linked &= ~(split & fits[:, None, None])

        gone = _one_of(alive & hidden, stream.fold("gone")) & (chance[:, 4] < 0.2)[:, None]
        alive &= ~gone
        linked &= ~(gone[:, :, None] | gone[:, None, :])

        forward = (place[:, None] < place) & (place >= INPUTS) & (place < nodes - self.outputs)[:, None]
        legal = forward & alive[:, :, None] & alive[:, None, :] & ~linked
        linked |= _one_of(legal, stream.fold("link")) & (chance[:, 0] < 0.5)[:, None, None]
        linked &= ~(_one_of(linked, stream.fold("cut")) & (chance[:, 1] < 0.3)[:, None, None])
        touched = (stream.fold("touch").uniform((nodes, nodes)) < 0.3) & (chance[:, 2] < 0.5)[:, None, None]
        weight = weight + torch.where(touched, stream.fold("by").gaussian((nodes, nodes)), 0.0)
        return Genomes(weight, linked, alive, kind, self.outputs)


def _one_of(legal: Tensor, stream: Stream) -> Tensor:
    """One True of each row of a mask (n, …), at random; none where there is none."""
    draw = torch.where(legal, stream.uniform(tuple(legal.shape[1:])), -1.0).flatten(1)
    best = draw.argmax(1, keepdim=True)
    chosen = torch.zeros_like(draw, dtype=torch.bool).scatter(1, best, draw.gather(1, best) >= 0)
    return chosen.view_as(legal)
