"""Pipelines on a table's own columns, lifted: what they do before the classifier, as a matrix.

Scaling, one-hot and ordinal codes, and selections of columns are affine in the features of a table,
whatever the steps are called; the matrix is found from one row with one feature changed at a time, and
believed where it gives what the steps give on all samples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from torch import Tensor

from robustbench_lite.data.columns import Columns
from robustbench_lite.models.sklearn.forests import CannotLift
from robustbench_lite.models.sklearn.lifted import Affine

CLOSE = 1e-5  # of the largest value: what writing features in float32 may add

Encode = Callable[[pd.DataFrame], np.ndarray]


def encoder(estimator: BaseEstimator) -> tuple[Encode, BaseEstimator]:
    """What a pipeline does to a table before its last step, and that step."""
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    before = [step for step in steps[:-1] if step not in ("passthrough", None)]

    def encode(frame: pd.DataFrame) -> np.ndarray:
        held: object = as_fitted(estimator, frame)
        for step in before:
            held = step.transform(held)
        dense = held.toarray() if hasattr(held, "toarray") else held
        return np.array(dense, dtype=np.float64, order="C")

    return encode, steps[-1]


def as_fitted(estimator: BaseEstimator, frame: pd.DataFrame) -> pd.DataFrame:
    """A table with the columns that an estimator was fitted on, in its order, where it names them."""
    named = getattr(estimator, "feature_names_in_", None)
    return frame if named is None else frame[list(named)]


def as_matrix(encode: Encode, columns: Columns, x: Tensor) -> list[Affine]:
    """The steps as transforms of features x (n, d), which they were compared on; raises `CannotLift`."""
    if any(column.gaps for column in columns.columns):
        raise CannotLift("a table with empty cells has no lift")
    steps = [0.0 if c.values else c.step / c.unit for c in columns.columns for _ in c.features]
    nearest = Affine(spacing=torch.tensor(steps, dtype=torch.float64))
    base = nearest(x[:1].double())
    changed, at = [base], 0
    for column in columns.columns:
        count = len(column.features)
        for place in range(count):
            row = base.clone()
            if column.one_hot:
                row[0, at : at + count] = 0.0
                row[0, at + place] = column.cost
            else:
                row[0, at + place] += 0.0 if column.values else 1.0
            changed.append(row)
        at += count
    answers = encode(columns.own(torch.cat(changed)))
    slopes = torch.from_numpy(answers[1:] - answers[:1]).T
    offset = torch.from_numpy(answers[0]) - slopes @ base[0]  # a choice's slope is against the row's own
    made = [nearest, Affine(matrix=slopes.contiguous()), Affine(offset=offset)]
    ours = x.double()
    for part in made:
        ours = part(ours)
    theirs = torch.from_numpy(encode(columns.own(x)))
    if not bool(((ours - theirs).abs() <= CLOSE * theirs.abs().max().clamp_min(1.0)).all()):
        raise CannotLift("its steps are not affine in the table's features")
    return made
