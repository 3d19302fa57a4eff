"""Adversarial examples made elsewhere, judged like our own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from robustbench_lite.core.errors import InvalidData
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.data.arrays import as_inputs, read_npz
from robustbench_lite.data.data import Data
from robustbench_lite.data.load import load_data
from robustbench_lite.judging.judge import clean_scores, judge
from robustbench_lite.models.load import load_model
from robustbench_lite.records.schema import frame
from robustbench_lite.runs.plan import find_device
from robustbench_lite.threats.named import parse_threat


def judge_file(
    file: str,
    model: str,
    threat: str,
    data: str = "digits",
    data_dir: Path | None = None,
    goal: str = "untargeted",
    device: str = "auto",
    seed: int = 0,
    eight_bit: bool = False,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The records of an .npz file's array `adversarial`, and notes.

    Beside it stand the originals `x`, `y`, or the `ids` of test samples of `data`; `target` where the goal is
    given. Raises `InvalidData` when the originals cannot be told; what is wrong with the adversarial
    examples themselves is the verdict's reason.
    """
    arrays = read_npz(file)
    if "adversarial" not in arrays:
        raise InvalidData(f"{file}: has arrays {', '.join(sorted(arrays))}; adversarial is missing")
    held = load_data(data, "test", None, data_dir, seed)
    originals = _originals(arrays, held, file)
    judged = load_model(model, held, find_device(device), seed)
    within, aim = parse_threat(threat, held.domain), parse_goal(goal)
    clean = clean_scores(judged, originals.x)
    target = None
    if aim.targeted:
        if "target" not in arrays or arrays["target"].shape != (len(originals),):
            raise InvalidData(f"{file}: goal {goal} needs an array target with {len(originals)} classes")
        target = torch.from_numpy(arrays["target"].astype(np.int64))[:, None]
    returned = torch.from_numpy(arrays["adversarial"])
    verdict = judge(
        judged,
        within,
        aim,
        originals.x,
        originals.y,
        returned,
        clean,
        target,
        originals.ids,
        eight_bit=eight_bit,
    )
    columns: dict[str, object] = {
        **vars(verdict),
        "data": held.name,
        "model": judged.name,
        "family": judged.family,
        "attack": Path(file).name,
        "threat": str(within),
        "eps": within.eps,
        "goal": str(aim),
        "sample_id": originals.ids.numpy(),
        "label": originals.y.numpy(),
        "precision": "float32",
        "seed": seed,
        "forwards": 0,
        "backwards": 0,
        "seconds": 0.0,
        "artifact": file,
    }
    return frame(columns, len(originals)), (*held.notes, *judged.notes)


def _originals(arrays: dict[str, np.ndarray], held: Data, file: str) -> Data:
    if "x" in arrays and "y" in arrays:
        x, y = as_inputs(arrays["x"], file), torch.from_numpy(arrays["y"].astype(np.int64))
        if y.shape != (len(x),) or not bool(((y >= 0) & (y < held.num_classes)).all()):
            raise InvalidData(f"{file}: y must be {len(x)} classes from 0 to {held.num_classes - 1}")
        return Data(held.name, x, y, torch.arange(len(y)), held.class_names, held.domain)
    if "ids" not in arrays:
        raise InvalidData(f"{file}: needs the originals x and y, or the ids of samples of {held.name}")
    place = {int(i): row for row, i in enumerate(held.ids)}
    unknown = [int(i) for i in arrays["ids"] if int(i) not in place]
    if unknown:
        raise InvalidData(f"{file}: id {unknown[0]} is not in the test split of {held.name}")
    return held[torch.tensor([place[int(i)] for i in arrays["ids"]], dtype=torch.int64)]
