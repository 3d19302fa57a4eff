"""Adversarial examples made elsewhere, judged like our own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from robustbench_lite.core.errors import InvalidData, Unsupported
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.npz import read_arrays
from robustbench_lite.core.settings import Search
from robustbench_lite.data.arrays import as_inputs
from robustbench_lite.data.data import Data
from robustbench_lite.data.given import classes, labels_of_positions, numbers
from robustbench_lite.data.load import load_data
from robustbench_lite.jobs.make import find_device
from robustbench_lite.judging.judge import Originals, judge, look_clean
from robustbench_lite.models.load import load_model
from robustbench_lite.records.schema import frame
from robustbench_lite.threats.named import parse_threat


@dataclass(frozen=True)
class Claim:
    """Adversarial examples made elsewhere, and what they are claimed to do.

    Parameters
    ----------
    file : str
        An .npz with the array `adversarial`, and the originals `x` and `y` or the `ids` of test samples;
        `target` where the goal is given.
    model, threat, goal : str
        What they break, where they lie, what they reach.
    data, data_dir : str
        What the model is for.
    """

    file: str
    model: str
    threat: str
    data: str = "digits"
    data_dir: Path | None = None
    goal: str = "untargeted"


def judge_file(claim: Claim, search: Search | None = None) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The records of a claim, judged with the settings of a search, and notes.

    Raises `InvalidData` when the originals cannot be told; what is wrong with the adversarial examples
    themselves is the verdict's reason.
    """
    search, file = search or Search(), claim.file
    arrays = read_arrays(Path(file).expanduser())
    if "adversarial" not in arrays:
        raise InvalidData(f"{file}: has arrays {', '.join(sorted(arrays))}; adversarial is missing")
    held = load_data(claim.data, "test", None, claim.data_dir, search.seed)
    samples = _originals(arrays, held, file)
    model = load_model(claim.model, held, find_device(search.device), search.seed)
    threat, goal = parse_threat(claim.threat, held.domain), parse_goal(claim.goal)
    if refusal := threat.refuses(model.input_shape):
        raise Unsupported(refusal)
    clean = look_clean(model, samples.x, samples.y, samples.ids, search)
    target = None
    if goal.targeted:
        if "target" not in arrays:
            raise InvalidData(f"{file}: goal {goal} needs an array target with {len(samples)} classes")
        target = _targets(arrays["target"], samples, f"{file}: target")[:, None]
    originals = Originals(samples.x, samples.y, samples.ids, clean)
    returned = _returned(arrays["adversarial"], samples.x, file)
    verdict = judge(model, threat, goal, originals, returned, target, search)
    columns: dict[str, object] = {
        **vars(verdict),
        "data": held.name,
        "model": model.name,
        "family": model.family,
        "attack": Path(file).name,
        "attack_name": Path(file).name,
        "threat": str(threat),
        "threat_kind": threat.kind,
        "norm": None if threat.norm is None else str(threat.norm),
        "eps": threat.eps,
        "minimum": threat.minimum,
        "goal": str(goal),
        "sample_id": samples.ids.numpy(),
        "task": model.task.kind,
        "label": None if samples.y.dim() > 1 else samples.y.numpy(),
        "precision": "float32",
        "seed": search.seed,
        "batch_draws": model.batch_draws,
        "forwards": 0,
        "backwards": 0,
        "seconds": 0.0,
        "zero_gradients": 0,
        "nans": 0,
        "artifact": file,
    }
    return frame(columns, len(samples)), (*held.notes, *model.notes)


def _originals(arrays: dict[str, np.ndarray], held: Data, file: str) -> Data:
    if "x" in arrays and "y" in arrays:
        x = as_inputs(numbers(arrays["x"], f"{file}: x"), f"{file}: x")
        if not len(x):
            raise InvalidData(f"{file}: x has no samples")
        if held.y.dim() > 1:
            return _answered(arrays["y"], x, held, file)
        y, names = classes(arrays["y"], len(x), f"{file}: y")
        if names is not None:
            place = {name: i for i, name in enumerate(held.class_names)}
            unknown = [name for name in names if name not in place]
            if unknown:
                raise InvalidData(f"{file}: y has class {unknown[0]!r}; known: {', '.join(place)}")
            y = torch.tensor([place[name] for name in names])[y]
        if not bool(((y >= 0) & (y < held.num_classes)).all()):
            raise InvalidData(f"{file}: y must be {len(x)} classes from 0 to {held.num_classes - 1}")
        return Data(held.name, x, y, torch.arange(len(y)), held.class_names, held.domain)
    if "ids" not in arrays:
        raise InvalidData(f"{file}: needs the originals x and y, or the ids of samples of {held.name}")
    ids = arrays["ids"]
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or not len(ids):
        raise InvalidData(f"{file}: ids is {ids.dtype} {ids.shape}; must be (n,) whole numbers")
    row_of = {int(i): row for row, i in enumerate(held.ids)}
    gone = [int(i) for i in ids if int(i) not in row_of]
    if gone:
        raise InvalidData(f"{file}: id {gone[0]} is not in the test split of {held.name}")
    return held[torch.tensor([row_of[int(i)] for i in ids], dtype=torch.int64)]


def _targets(array: np.ndarray, samples: Data, what: str) -> torch.Tensor:
    """Classes (n,) or answers (n, …) to reach; raises `InvalidData`."""
    if samples.y.dim() == 1:
        return classes(array, len(samples), what)[0]
    return labels_of_positions(array, len(samples), what, tuple(samples.y.shape[1:]))


def _answered(array: np.ndarray, x: torch.Tensor, held: Data, file: str) -> Data:
    """Originals whose answers have positions; raises `InvalidData`."""
    y = labels_of_positions(array, len(x), f"{file}: y", tuple(held.y.shape[1:]))
    if int(y.max()) >= held.num_classes:
        raise InvalidData(f"{file}: y has class {int(y.max())}; {held.name} has {held.num_classes}")
    return Data(held.name, x, y, torch.arange(len(y)), held.class_names, held.domain, task=held.task)


def _returned(array: np.ndarray, x: torch.Tensor, file: str) -> torch.Tensor:
    """What was handed in, as float32 in the layout of the originals x (n, …); raises `InvalidData`."""
    given = numbers(array, f"{file}: adversarial")
    if given.dtype == torch.uint8:
        given = given.float() / 255
    if given.dim() == 4 and given.shape[1:] != x.shape[1:] and given.permute(0, 3, 1, 2).shape == x.shape:
        given = given.permute(0, 3, 1, 2)
    if given.numel() == x.numel() and len(given) == len(x):
        given = given.reshape(x.shape)
    if given.shape != x.shape:
        own, theirs = tuple(given.shape), tuple(x.shape)
        raise InvalidData(f"{file}: adversarial has shape {own}; the originals have {theirs}")
    return given.float()
