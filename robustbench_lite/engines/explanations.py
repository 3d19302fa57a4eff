"""What a reader is shown of a job: a few samples, what the model looks at in them, and a cut."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.attribution.maps import occlusion
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.random import Stream
from robustbench_lite.core.task import margin
from robustbench_lite.jobs.job import Finished, Work
from robustbench_lite.search.driver import search
from robustbench_lite.search.trace import Trace, can_be_traced

FACTS = (
    "model", "attack", "threat", "goal", "sample_id", "label", "adversarial_prediction", "l0", "l1", "l2",
    "linf", "clean_confidence", "adversarial_confidence", "task", "clean_wrong_share", "wrong_share",
)  # fmt: skip
FRAMES = 24  # of a path, at most
LARGEST = 1 << 19  # values of all frames together
CUT = 41  # points along each side of a cut


def explanations(work: Work, finished: Finished) -> dict[str, np.ndarray] | None:
    """Arrays for a report; None where there is nothing to see: no image, or no success.

    original, adversarial (m, C, H, W): the nearest, the median and the farthest success; facts: their records
    as JSON. Of the nearest one: saliency (2, H, W), how steeply the margin changes with each pixel, before
    and after; occlusion (2, H, W), what a grey window costs the margin of the prediction; cut (n, n): the
    class on the plane of the gradient's direction and a random one, reach: half its width, in l2; margins and
    sure (steps, lanes): the margin and the probability of the class along the attack's path; frames
    (f, C, H, W) uint8: images along the path of the lane that came furthest, as many as stay small.
    """
    if work.data.x.dim() != 4 or work.data.x.shape[1] not in (1, 3):
        return None
    records = finished.records.loc[finished.records["source_model"].isna()]
    if work.model.task.kind != "classification":
        return _answers(work, finished, records)
    rows = chosen(records, str(work.threat.norm or "l2"))
    if not rows:
        return None
    original, adversarial = work.data.x[rows], finished.adversarial[rows]
    facts = records.iloc[rows][list(FACTS)].to_dict("list")
    found = {
        "original": original.numpy(),
        "adversarial": adversarial.numpy(),
        "facts": np.array(json.dumps(facts, default=lambda v: None if pd.isna(v) else str(v))),
    }
    if work.model.stochastic:
        return found
    both = torch.stack([original[0], adversarial[0]]).to(work.model.device)
    y = work.data.y[rows[:1]].to(work.model.device).expand(2)
    oracle = Oracle(work.model, chunk=work.search.batch_size or 256)
    slope = None
    if work.model.access >= Access.GRADIENT:
        slope, _, _ = oracle.gradient(both, lambda scores, s: margin(scores, y[s]))
        found["saliency"] = slope.abs().amax(1).cpu().numpy()
    found["occlusion"] = occlusion(oracle, both).cpu().numpy()
    way = both[1] - both[0] if slope is None or not bool(slope[0].any()) else slope[0]
    reach = 3 * float(torch.linalg.vector_norm((both[1] - both[0]).double()))
    found["cut"] = _cut(oracle, both[0], way, reach).cpu().numpy()
    found["reach"] = np.array(reach)
    if can_be_traced(work.attack, work.model, work.threat, work.goal):
        scores, path = path_of(work, rows[0])
        if len(scores):
            own = work.data.y[rows[:1]].expand(scores.shape[1])
            found["margins"] = torch.stack([margin(one, own) for one in scores]).numpy()
            found["frames"] = _frames(torch.cat([original[:1], path, adversarial[:1]]))
            sure = _probabilities(work.model, scores.flatten(0, 1))
            if sure is not None:
                found["sure"] = sure[:, int(own[0])].view(scores.shape[:2]).numpy()
    return found


def _answers(work: Work, finished: Finished, records: pd.DataFrame) -> dict[str, np.ndarray] | None:
    """The samples of which the most, the median and the least turned wrong, and what was answered.

    original, adversarial (m, C, H, W); facts: their records, of strings with what was meant and said; of a
    segmentation masks (3, m, H, W): the labels, the answers before and after.
    """
    tried = np.flatnonzero(records["forwards"].to_numpy(dtype=int) > 0)
    if not len(tried):
        return None
    order = tried[records["wrong_share"].to_numpy(dtype=float)[tried].argsort(kind="stable")]
    rows = list(dict.fromkeys(int(order[place]) for place in (-1, len(order) // 2, 0)))
    original, adversarial = work.data.x[rows], finished.adversarial[rows]
    oracle = Oracle(work.model, chunk=work.search.batch_size or 256)
    stream = Stream.of(0, work.data.ids[rows].to(work.model.device)) if work.model.stochastic else None
    after = work.model.prediction(oracle.truth(adversarial.to(work.model.device), stream)[0]).cpu()
    label, before = work.data.y[rows], work.clean.prediction[rows]
    facts: dict[str, object] = records.iloc[rows][list(FACTS)].to_dict("list")  # type: ignore[assignment]
    found = {"original": original.numpy(), "adversarial": adversarial.numpy()}
    if work.model.task.kind == "segmentation":
        found["masks"] = torch.stack([label, before, after]).to(torch.int16).numpy()
    elif work.model.task.kind == "multilabel":
        facts |= {"meant": _there(label), "said": _there(after)}
    else:
        facts |= {"meant": label.tolist(), "said": after.tolist()}
    text = json.dumps(facts, default=lambda v: None if pd.isna(v) else str(v))
    return found | {"facts": np.array(text)}


def _there(labels: Tensor) -> list[list[int]]:
    """The labels that are there of each sample (n, L)."""
    return [(row == 1).nonzero()[:, 0].tolist() for row in labels]


def trace_of(work: Work, rows: list[int]) -> Tensor:
    """The scores (steps, lanes · rows, K) along the whole path of an attack on some of the samples.

    Of the face that gradients are taken of. Success ends nothing here, and no budget. Empty for attacks that
    ask for no gradients of the scores.
    """
    return traced(work, rows).steps(_steps(work))


def traced(work: Work, rows: list[int], truth: bool = False) -> Trace:
    """The whole path of an attack on some of the samples; truth: as the true model answers it."""
    some = work[torch.tensor(rows)]
    trace = Trace(truth)
    settings = replace(work.search, batch_size=len(rows), budget=None, time_limit=None)
    goal = replace(work.goal, stop=False)
    search(work.attack, work.model, work.threat, goal, some.seen, settings, observers=(trace,))
    return trace


def path_of(work: Work, row: int) -> tuple[Tensor, Tensor]:
    """The true scores (steps, lanes, K) along an attack on one sample, and the inputs (steps, …) of one lane.

    The lane is that which ended with the largest margin. Both are empty where there is no path.
    """
    trace = traced(work, [row], truth=True)
    scores, points = trace.steps(_steps(work)), trace.points(_steps(work))
    if not len(scores):
        return scores, points
    last = margin(scores[-1], work.data.y[row].expand(scores.shape[1]))
    return scores, points[:, int(last.nan_to_num(nan=-torch.inf).argmax())]


def _steps(work: Work) -> int:
    return work.attack.schedule(work.model, work.threat).steps


def _frames(path: Tensor) -> np.ndarray:
    """Images of a path (steps, C, H, W), evenly spaced, the first and the last among them, as uint8."""
    count = max(2, min(FRAMES, LARGEST // path[0].numel(), len(path)))
    place = torch.linspace(0, len(path) - 1, count).round().long()
    frames: np.ndarray = (path[place].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return frames


def _probabilities(model: Model, scores: Tensor) -> Tensor | None:
    """What scores (n, K) say of each class, where they have a scale: themselves, or their softmax."""
    sure = model.confidence(scores)
    for shares in (scores, scores.softmax(1)):
        if sure is not None and torch.allclose(sure.double(), shares.amax(1).double(), atol=1e-4):
            return shares
    return None


def chosen(records: pd.DataFrame, norm: str) -> list[int]:
    """The rows of the nearest, the median and the farthest success; fewer where there are fewer."""
    won = np.flatnonzero(records["success"].to_numpy(dtype=bool))
    if not len(won):
        return []
    size = records[[norm, "l2"]].to_numpy(dtype=float)[won]
    order = won[np.lexsort((size[:, 1], size[:, 0].round(6)))]
    return list(dict.fromkeys(int(order[place]) for place in (0, len(order) // 2, -1)))


def _cut(oracle: Oracle, x: Tensor, way: Tensor, reach: float) -> Tensor:
    """The class on a grid around x (C, H, W), from -reach to reach along the way and across it (n, n)."""
    across = (
        Stream.of(0, torch.zeros(1, dtype=torch.int64, device=x.device)).gaussian(tuple(x.shape))[0].to(x)
    )
    way = way / torch.linalg.vector_norm(way)
    across = across - (across * way).sum() * way
    across = across / torch.linalg.vector_norm(across)
    steps = torch.linspace(-reach, reach, CUT, device=x.device)
    points = x + steps[None, :, None, None, None] * way + steps[:, None, None, None, None] * across
    answers = oracle.truth(points.flatten(0, 1))[0]
    return oracle.model.prediction(answers).view(CUT, CUT)
