"""Decision trees and sums of them: exact routing in float32, soft routing for gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.core.structure import Boxes, Trees
from robustbench_lite.models.sklearn.lifted import Core, Front

ROWS = 512  # samples routed at once: what stays in the cache


@dataclass(frozen=True)
class TreeCore(Core):
    """scores = start + the sum over trees of value[leaf], times factor.

    The nodes of all trees stand in one table: feature (m,), threshold (m,) float32, left (m,), value (m, K)
    float64. A sample goes left when x <= threshold, else to left + 1; a leaf leads to itself. roots (T,);
    depth: of the deepest. scale (d,): the spread of each feature, for the soft surrogate.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    value: Tensor
    roots: Tensor
    depth: int
    start: Tensor
    factor: float
    scale: Tensor
    kind: str  # what the scores are: "probabilities", "logits" or "margin"

    smooth = False

    @property
    def family(self) -> str:  # type: ignore[override]
        return "tree" if len(self.roots) == 1 else "forest" if self.kind == "probabilities" else "boosting"

    def leaves(self, z: Tensor) -> Tensor:
        """The leaf of every tree that each row falls into (n, T)."""
        n, d = z.shape
        x = z.float().flatten()
        # 32-bit indices and flat tables: what moves through memory is what this costs.
        feature, left = self.feature.int(), self.left.int()
        row = (torch.arange(n, dtype=torch.int32, device=z.device) * d).repeat_interleave(len(self.roots))
        node = self.roots.int().repeat(n)
        for _ in range(self.depth):
            value = x.index_select(0, row + feature.index_select(0, node))
            node = left.index_select(0, node) + (value > self.threshold.index_select(0, node))
        return node.reshape(n, len(self.roots))

    def scores(self, z: Tensor) -> Tensor:
        return self._binary(torch.cat([self._sum(part) for part in torch.split(z, ROWS)]))

    def surrogate(self, z: Tensor, temperature: float = 0.05) -> Tensor:
        """Soft routing: a sample goes left with probability sigmoid((threshold - x) / (temperature · scale)).

        The scores are the mean over the leaves so reached (soft decision trees, Frosst & Hinton 2017).
        """
        inner = (self.left != torch.arange(len(self.left), device=z.device)).nonzero()[:, 0]
        which = self.feature[inner]
        towards = (self.threshold[inner].double() - z[:, which]) / (temperature * self.scale[which])
        go_left = torch.sigmoid(towards)
        place = torch.full_like(self.left, -1)
        place[inner] = torch.arange(len(inner), device=z.device)
        level = self.roots
        total = torch.zeros(len(z), self.value.shape[1], dtype=z.dtype, device=z.device)
        probability = torch.ones(len(z), len(level), dtype=z.dtype, device=z.device)
        while len(level):
            leaf = place[level] < 0
            total = total + probability[:, leaf] @ self.value[level[leaf]].to(z.dtype)
            level, probability = level[~leaf], probability[:, ~leaf]
            share = go_left[:, place[level]]
            probability = torch.cat([probability * share, probability * (1 - share)], 1)
            level = torch.cat([self.left[level], self.left[level] + 1])
        # Where no tree has a split, the scores still hang on z, with a slope of 0.
        scores = self._binary(self.start + total * self.factor) + 0 * z[:, :1]
        return scores.clamp_min(1e-12).log() if self.kind == "probabilities" else scores

    def undecided(self, z: Tensor) -> Tensor:
        """Rows so near a tie that float32 sums leave them to the library's last operation (n,)."""
        if self.value.dtype == torch.float64:
            return super().undecided(z)
        first, second = self.scores(z).topk(2, dim=1).values.unbind(1)
        return first - second < 1e-6 * (1 + first.abs())

    def confidence(self, scores: Tensor) -> Tensor | None:
        if self.kind == "probabilities":
            return scores.amax(1)
        return scores.softmax(1).amax(1) if self.kind == "logits" else None

    def structure(self, front: Front | None) -> Boxes | Trees | None:
        """The leaves of one tree as boxes, several trees as they are; None behind what mixes features."""
        if front is not None:
            return None
        return self._boxes() if len(self.roots) == 1 else self._trees()

    def _trees(self) -> Trees:
        value, start = self.value.double(), self.start.double()[0]
        rank = torch.arange(value.shape[1], device=value.device)
        if value.shape[1] == 1:  # one margin, as in `_binary`
            value, start = (torch.cat([0 * part, part], -1) for part in (value, start))
            rank = torch.tensor([1, 0] if self.value.dtype == torch.float64 else [0, 1], device=value.device)
        return Trees(
            self.feature, self.left, self.threshold, value, self.roots, start, rank, self._rounding()
        )

    def _rounding(self) -> float:
        """What a sum of leaves may be off by: nothing where all are multiples of one part in 2^20."""
        leaf = self.left == torch.arange(len(self.left), device=self.left.device)
        largest = torch.where(leaf[:, None], self.value.double(), 0.0).abs().amax(1)
        most = sum(float(part.max()) for part in torch.tensor_split(largest, self.roots[1:].cpu()))
        parts = torch.cat([self.value[leaf].flatten(), self.start.flatten()]).double() * 2**20
        whole = bool((parts == parts.round()).all()) and most * 2**20 < 2**50
        if whole and self.value.dtype == torch.float64:
            return 0.0
        return (
            4
            * (len(self.roots) + 2)
            * torch.finfo(self.value.dtype).eps
            * (most + float(self.start.abs().max()))
        )

    def _boxes(self) -> Boxes:
        """The leaves of a single tree, as boxes: low < x <= high."""
        d = len(self.scale)
        low, high = (torch.full((len(self.left), d), s * torch.inf) for s in (-1, 1))
        found: list[int] = []
        left, feature, threshold = self.left.tolist(), self.feature.tolist(), self.threshold.cpu()
        waiting = [int(self.roots[0])]
        while waiting:
            node = waiting.pop()
            if left[node] == node:
                found.append(node)
                continue
            for child in (left[node], left[node] + 1):
                low[child], high[child] = low[node], high[node]
            f, t = feature[node], threshold[node]
            high[left[node], f] = torch.minimum(high[left[node], f], t)
            low[left[node] + 1, f] = torch.maximum(low[left[node] + 1, f], t)
            waiting += [left[node], left[node] + 1]
        rows = torch.tensor(found)
        label = self._binary(self.start.cpu() + self.value.cpu()[rows] * self.factor).argmax(1)
        device = self.left.device
        return Boxes(low[rows].to(device), high[rows].to(device), label.to(device))

    def _sum(self, z: Tensor) -> Tensor:
        total = self.start.expand(len(z), -1).clone()
        for leaf in self.leaves(z).T.contiguous():  # tree by tree, in the estimator's order of adding
            total += self.value[leaf]
        return total / len(self.roots) if self.kind == "probabilities" else total

    def _binary(self, scores: Tensor) -> Tensor:
        """One margin as two scores; at exactly 0 the second class wins, as scikit-learn decides."""
        if scores.shape[1] > 1:
            return scores
        least = -5e-324 if scores.dtype == torch.float64 else 0.0
        return torch.cat([torch.full_like(scores, least), scores], 1)


@dataclass(frozen=True)
class Tree:
    """One tree as its library keeps it: children (m,), the same for a leaf; feature, threshold (m,).

    value (m, K): what a leaf adds to the scores.
    """

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    value: np.ndarray


def tree_core(
    trees: Sequence[Tree],
    in_x: Callable[[np.ndarray, np.ndarray], np.ndarray],
    start: np.ndarray,
    kind: str,
    scale: np.ndarray,
    sums: type[np.floating] = np.float64,
) -> TreeCore:
    """Trees in one table; in_x: (feature, threshold) -> the threshold of the input itself, as float32.

    sums: what the leaves are added up in.
    """
    columns: dict[str, list[np.ndarray]] = {"feature": [], "threshold": [], "left": [], "value": []}
    roots, depth, before = [], 0, 0
    for tree in trees:
        order, left, deep = _side_by_side(tree.left, tree.right)
        leaf = left == np.arange(len(left))
        feature = np.where(leaf, 0, tree.feature[order])
        threshold = np.full(len(left), np.inf, dtype=np.float32)
        threshold[~leaf] = in_x(feature[~leaf], tree.threshold[order][~leaf])
        columns["feature"].append(feature)
        columns["threshold"].append(threshold)
        columns["left"].append(left + before)
        columns["value"].append(tree.value[order])
        roots.append(before)
        depth = max(depth, deep)
        before += len(left)
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    return TreeCore(
        feature=torch.from_numpy(whole["feature"]).long(),
        threshold=torch.from_numpy(whole["threshold"]),
        left=torch.from_numpy(whole["left"]).long(),
        value=torch.from_numpy(np.ascontiguousarray(whole["value"], dtype=sums)),
        roots=torch.tensor(roots),
        depth=depth,
        start=torch.from_numpy(np.array(start, dtype=sums).reshape(1, -1)),
        factor=1 / len(roots) if kind == "probabilities" else 1.0,
        scale=torch.from_numpy(np.asarray(scale, dtype=np.float64)),
        kind=kind,
    )


def _side_by_side(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """An order of the nodes in which right children follow left ones, the new left children, the depth."""
    order, new_left, level = [0], [0], [0]
    at = 0
    while at < len(order):
        node = order[at]
        if left[node] != right[node]:
            new_left[at] = len(order)
            order += [int(left[node]), int(right[node])]
            new_left += [len(order) - 2, len(order) - 1]
            level += [level[at] + 1] * 2
        at += 1
    return np.array(order), np.array(new_left), max(level)
