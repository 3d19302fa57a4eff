"""Adversarial pruning: stored samples of different classes are kept apart, so that neighbours agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial.distance import cdist

from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.model import Model
from robustbench_lite.core.parameters import Count, Positive
from robustbench_lite.models.cache import remember_estimator
from robustbench_lite.models.defense import Base, Defense

VERSION = 1
Metric = Literal["chebyshev", "euclidean", "cityblock"]
METRICS: dict[str, Metric] = {"linf": "chebyshev", "l2": "euclidean", "l1": "cityblock"}


@dataclass(frozen=True)
class AdversarialPruning(Defense):
    """Nearest neighbours on as many samples as can stay with no two of other classes within twice a radius.

    With two classes as many as possible are kept (a maximum matching, König 1931); with more, both ends of a
    maximal matching go, at most twice as many as must.

    Parameters
    ----------
    radius : float, default 0.1
        In the units of x; samples of other classes end at least twice that apart.
    norm : {"linf", "l2", "l1"}, default "linf"
        That the radius is measured in; neighbours are Euclidean.
    k : int, default 1
        Neighbours that vote.

    Raises
    ------
    Unsupported
        For anything but `knn`.

    Source: Yang et al. 2020 (arXiv:1906.03310), section 4.

    Examples
    --------
    >>> AdversarialPruning(radius=0.2).k
    1
    """

    radius: Positive = 0.1
    norm: Literal["linf", "l2", "l1"] = "linf"
    k: Count = 1

    name = "adversarial_pruning"
    paper = "Yang et al. 2020, arXiv:1906.03310"

    def defend(self, base: Base) -> Model:
        if base.text != "knn":
            raise Unsupported(f"{self.name} is for knn, whose samples it prunes; not for {base.text}")
        from sklearn.neighbors import KNeighborsClassifier

        from robustbench_lite.models.sklearn.lift import lift

        training = base.data.training()
        x, y = training.x.flatten(1).double().numpy(), training.y.numpy()
        kept: list[int] = []

        def fit() -> KNeighborsClassifier:
            stays = apart(x, y, 2 * self.radius, METRICS[self.norm])
            kept.append(int(stays.sum()))
            held = KNeighborsClassifier(min(self.k, kept[-1]), algorithm="brute")
            return held.fit(x[stays], y[stays])

        estimator = remember_estimator(f"{self.name} {self.parameters}", VERSION, base.data, base.train, fit)
        if len(estimator.classes_) < len(np.unique(y)):
            lost = f"{len(np.unique(y)) - len(estimator.classes_)} of {len(np.unique(y))}"
            raise Unsupported(f"{self.name}: no sample of {lost} classes is left at radius {self.radius}")
        made = lift(estimator, base.data.x.shape[1:], training.x[:2000], name=base.text)
        made.notes += (f"{len(estimator._fit_X)} of {len(x)} training samples were kept",)
        return made.to(base.train.device)


def apart(x: np.ndarray, y: np.ndarray, least: float, metric: Metric) -> np.ndarray:
    """Which samples stay so that no two of other classes are nearer than `least` (n,).

    Examples
    --------
    >>> apart(np.array([[0.0], [0.1], [1.0]]), np.array([0, 1, 1]), 0.5, "euclidean").sum()
    np.int64(2)
    """
    rows, columns = [], []
    for begin in range(0, len(x), 500):
        near = cdist(x[begin : begin + 500], x, metric) < least
        near &= y[begin : begin + 500, None] != y[None]
        i, j = near.nonzero()
        rows.append(i + begin)
        columns.append(j)
    i, j = np.concatenate(rows), np.concatenate(columns)
    stays = np.ones(len(x), dtype=bool)
    if len(np.unique(y)) <= 2:
        first = y == y.min()
        edges = csr_array((np.ones((first[i]).sum()), (i[first[i]], j[first[i]])), shape=(len(x), len(x)))
        stays[_cover(edges, first)] = False
        return stays
    for a, b in zip(i.tolist(), j.tolist(), strict=True):
        if stays[a] and stays[b]:
            stays[a] = stays[b] = False
    return stays


def _cover(edges: csr_array, first: np.ndarray) -> np.ndarray:
    """The smallest set of samples that meets every edge between the two classes: König's construction."""
    match = maximum_bipartite_matching(edges, perm_type="column")  # of each row its column, or -1
    partner = np.full(len(first), -1)
    partner[match[match >= 0]] = np.flatnonzero(match >= 0)
    reached_first = first & (match < 0)
    reached_second = np.zeros_like(first)
    waiting = np.flatnonzero(reached_first).tolist()
    while waiting:
        node = waiting.pop()
        for other in edges.indices[edges.indptr[node] : edges.indptr[node + 1]].tolist():
            if not reached_second[other]:
                reached_second[other] = True
                back = int(partner[other])
                if back >= 0 and not reached_first[back]:
                    reached_first[back] = True
                    waiting.append(back)
    covered: np.ndarray = np.flatnonzero((first & ~reached_first & (match >= 0)) | reached_second)
    return covered
