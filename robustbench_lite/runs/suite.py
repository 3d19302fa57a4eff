"""Suites: named lists of what a run does when it is told nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """Models, attacks and threats, by name."""

    models: tuple[str, ...]
    attacks: tuple[str, ...]
    threats: tuple[str, ...]


LECTURES = Suite(
    models=("linear", "logistic", "svm", "knn", "tree", "cnn"),
    attacks=("noise", "exact", "fgsm", "iterative"),
    threats=("linf:0.1", "l2:1"),
)
