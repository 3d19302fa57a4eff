"""The data sets that scikit-learn brings."""

from __future__ import annotations

import pandas as pd
import torch
from sklearn import datasets

from robustbench_lite.data.data import Options, Raw, in_memory
from robustbench_lite.data.split import divide
from robustbench_lite.data.tabular import Table, scaled


def digits(options: Options) -> Raw:
    """8×8 images of 17 grey levels."""
    found = datasets.load_digits()
    x = torch.from_numpy(found.images).float()[:, None] / 16
    y = torch.from_numpy(found.target).long()
    train, test = divide(y, options.seed, "digits")
    rows = train if options.split == "train" else test
    return in_memory(x[rows], y[rows], [str(c) for c in found.target_names], f"digits {options.split}")


def breast_cancer(options: Options) -> Raw:
    """Cells of breast tumours: malignant or benign."""
    return _table(datasets.load_breast_cancer(), "breast_cancer", options)


def wine(options: Options) -> Raw:
    """Chemical measurements of wines of three growers."""
    return _table(datasets.load_wine(), "wine", options)


def iris(options: Options) -> Raw:
    """Sizes of iris flowers of three species."""
    return _table(datasets.load_iris(), "iris", options)


def _table(found: datasets.Bunch, name: str, options: Options) -> Raw:
    y = torch.from_numpy(found.target).long()
    frame = pd.DataFrame(found.data, columns=[str(c) for c in found.feature_names])
    names = tuple(str(c) for c in found.target_names)
    return scaled(Table(frame, y, names, name), options)
