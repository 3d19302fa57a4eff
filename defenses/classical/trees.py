"""Trees whose splits hold against an adversary, judged by the exact answers of tree ensembles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, Fraction, Positive, Share
from robustbench_lite.core.random import Stream
from robustbench_lite.data.data import Data
from robustbench_lite.defenses.classical.splits import Grown, Samples, grow
from robustbench_lite.models.cache import remember
from robustbench_lite.models.defense import Base, Defense
from robustbench_lite.models.sklearn.lifted import Lifted
from robustbench_lite.models.sklearn.trees import Tree, tree_core

VERSION = 2


@dataclass(frozen=True)
class RobustTrees(Defense):
    """A tree, a forest or boosting under the exponential loss of the worst case in an linf ball.

    Each split is chosen for the worst side a sample can be brought to. Each round of boosting weighs a sample
    by the worst that all trees before can be brought to say of it (exact for stumps, a bound for deeper
    trees). A forest's trees know the square root of the features each, and weigh samples at random, 1 in the
    mean. More than two classes: each against the rest.

    Parameters
    ----------
    eps : float, default 0.1
        Of the linf ball, in the units of x.
    depth : int, default 4
        Of the trees; 1: stumps.
    rounds : int, default 60
        Trees a class, of a forest and of boosting.
    rate : float, default 0.3
        By which a tree's values are shrunk in boosting.
    smoothing : float, default 0.01
        Weight added to both classes of a leaf, as a share of the whole.

    Raises
    ------
    Unsupported
        For anything but `tree`, `forest` and `boosting`.

    Source: Andriushchenko & Hein 2019 (arXiv:1906.03526); Chen et al. 2019 (arXiv:1902.10660).

    Examples
    --------
    >>> RobustTrees(eps=0.3, depth=1).rounds
    60
    """

    eps: Positive = 0.1
    depth: Count = 4
    rounds: Count = 60
    rate: Share = 0.3
    smoothing: Fraction = 0.01

    name = "robust_trees"
    paper = "Andriushchenko & Hein 2019, arXiv:1906.03526"

    def defend(self, base: Base) -> Model:
        if base.text not in ("tree", "forest", "boosting"):
            raise Unsupported(
                f"{self.name} is for tree, forest and boosting, whose trees it chooses; not for {base.text}"
            )
        data, train = base.data, base.train

        def fit() -> dict[str, Tensor]:
            tell = partial(train.report, f"{self.name}({base.text})")
            return self._fit(base.text, data, train.seed, tell)

        held = remember(f"{self.name}({base.text}) {self.parameters}", VERSION, data, train, fit)
        core = tree_core(
            _trees(held), lambda feature, threshold: threshold.astype(np.float32),
            np.zeros(held["value"].shape[1]), "margin", np.ones(data.x[0].numel()),
        )  # fmt: skip
        return Lifted(core, [], data.x.shape[1:], name=base.text).to(train.device)

    def _fit(self, kind: str, data: Data, seed: int, report: Callable[[float], None]) -> dict[str, Tensor]:
        training = data.training()
        x = training.x.double()
        low, high = (
            torch.as_tensor(side, dtype=torch.float64) for side in (data.domain.low, data.domain.high)
        )
        least = torch.maximum(x - self.eps, low).flatten(1).numpy()
        most = torch.minimum(x + self.eps, high).flatten(1).numpy()
        y, classes = training.y.numpy(), data.num_classes
        wanted = [1] if classes == 2 else list(range(classes))
        parts: list[tuple[Grown, int]] = []
        for column, c in enumerate(wanted):
            report(column / len(wanted))
            sign: np.ndarray = np.where(y == c, 1.0, -1.0)
            match kind:
                case "boosting":
                    trees = self._boosted(least, most, sign)
                case "forest":
                    names = training.ids, torch.arange(least.shape[1])
                    streams = [Stream.of(seed, one).fold("forest", c) for one in names]
                    trees = self._bagged(least, most, sign, *streams)
                case _:
                    alike = Samples(least, most, sign, np.full(len(sign), 1 / len(sign)))
                    trees = [grow(alike, self.depth, self.smoothing)]
            parts += [(tree, column) for tree in trees]
        return _columns(parts, len(wanted))

    def _boosted(self, low: np.ndarray, high: np.ndarray, sign: np.ndarray) -> list[Grown]:
        """The trees of one class against the rest."""
        trees: list[Grown] = []
        bound = np.zeros(len(sign))
        for _ in range(self.rounds):
            weight: np.ndarray = np.exp(-np.clip(bound, -30, 30))
            weight = weight / weight.sum()
            tree = grow(Samples(low, high, sign, weight), self.depth, self.smoothing)
            tree.value = [self.rate * value for value in tree.value]
            trees.append(tree)
            if self.depth == 1:
                bound = worst_of_stumps(trees, low, high, sign)
            else:
                least, most = tree.reached(low, high)
                bound = bound + np.where(sign > 0, least, -most)
        return trees

    def _bagged(
        self, low: np.ndarray, high: np.ndarray, sign: np.ndarray, weigh: Stream, choose: Stream
    ) -> list[Grown]:
        """Trees of one class against the rest, each on some features and with weights of its own.

        weigh, choose: draw a number a sample, and a feature.
        """
        few = max(1, round(math.sqrt(low.shape[1])))
        trees: list[Grown] = []
        for number in range(self.rounds):
            drawn = weigh.fold(number).uniform((), torch.float64).numpy()
            weight: np.ndarray = -np.log1p(-drawn)  # of the Bayesian bootstrap (Rubin 1981)
            chosen = choose.fold(number).uniform((), torch.float64).argsort()[:few].numpy()
            held = Samples(low[:, chosen], high[:, chosen], sign, weight / weight.sum())
            tree = grow(held, self.depth, self.smoothing)
            tree.feature = [int(chosen[feature]) for feature in tree.feature]
            tree.value = [value / self.rounds for value in tree.value]
            trees.append(tree)
        return trees


def worst_of_stumps(
    trees: Sequence[Grown], low: np.ndarray, high: np.ndarray, sign: np.ndarray
) -> np.ndarray:
    """The exact worst margin of a sum of stumps (n,): a sum over features of each one's own worst."""
    total = np.zeros(len(sign))
    by_feature: dict[int, list[Grown]] = {}
    for tree in trees:
        if len(tree.left) == 1:
            total += sign * tree.value[0]
        else:
            by_feature.setdefault(tree.feature[0], []).append(tree)
    for f, stumps in by_feature.items():
        edges = np.unique([tree.threshold[0] for tree in stumps])
        # The value on each piece between edges; the first reaches up to the first edge, which it holds.
        pieces = np.zeros(len(edges) + 1)
        for tree in stumps:
            place = int(np.searchsorted(edges, tree.threshold[0]))
            pieces[: place + 1] += tree.value[tree.left[0]]
            pieces[place + 1 :] += tree.value[tree.right[0]]
        first, last = (np.searchsorted(edges, end[:, f], side="left") for end in (low, high))
        inside = (np.arange(len(pieces)) >= first[:, None]) & (np.arange(len(pieces)) <= last[:, None])
        total += np.where(inside, sign[:, None] * pieces, np.inf).min(1)
    return total


def _columns(parts: Sequence[tuple[Grown, int]], width: int) -> dict[str, Tensor]:
    """Trees as flat tensors, for the cache."""
    value = [[v if k == column else 0.0 for k in range(width)] for tree, column in parts for v in tree.value]
    return {
        "sizes": torch.tensor([len(tree.left) for tree, _ in parts]),
        "left": torch.tensor([v for tree, _ in parts for v in tree.left]),
        "right": torch.tensor([v for tree, _ in parts for v in tree.right]),
        "feature": torch.tensor([v for tree, _ in parts for v in tree.feature]),
        "threshold": torch.tensor([v for tree, _ in parts for v in tree.threshold], dtype=torch.float64),
        "value": torch.tensor(value, dtype=torch.float64),
    }


def _trees(held: Mapping[str, Tensor]) -> list[Tree]:
    """The trees of flat tensors."""
    columns = {name: value.numpy() for name, value in held.items()}
    ends = columns["sizes"].cumsum()
    parts = [slice(int(end - size), int(end)) for end, size in zip(ends, columns["sizes"], strict=True)]
    names = ("left", "right", "feature", "threshold", "value")
    return [Tree(*(columns[name][part] for name in names)) for part in parts]
