"""What a run's models look at in one sample, before and after each attack that broke it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.attribution import maps, networks
from robustbench_lite.core.errors import InvalidData, RobustError, Unsupported
from robustbench_lite.core.guard import one_line
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.engines.explanations import path_of
from robustbench_lite.jobs.job import Job, Work
from robustbench_lite.jobs.make import Watch, Workshop
from robustbench_lite.models.torch.embedding import embeddings
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.records.folder import Folder
from robustbench_lite.runs.plan import Plan
from robustbench_lite.search.trace import can_be_traced

CLASSES = 30  # that images are made for, at most
INVERTED = "same embedding"  # an image, and no map
FEWEST = 4  # points that a plane is laid through
EMBEDDED = 500  # samples of an embedding, at most
NEIGHBOURS = 30.0  # of the t-SNE, at most
Map = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Explanation:
    """A sample before and after an attack, and what the model looks at in both.

    images (2, C, H, W), in [0, 1]; predictions and confidences of both; maps: name -> (2, H, W); inverted
    (2, C, H, W): images with the embeddings of both; left_out: what cannot be shown, and why.
    """

    job: str
    model: str
    images: np.ndarray
    predictions: tuple[int, int]
    confidences: tuple[float, float]
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    inverted: np.ndarray | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Embedding:
    """Samples in the plane that shows most of their embeddings, and attacks' ways through it.

    points (n, 2); labels (n,); ways: job -> (steps, 2), from the sample to where it came; class_images
    (k, C, H, W): an image of each of the first classes that the network is surest of.
    """

    model: str
    points: np.ndarray
    labels: np.ndarray
    ways: dict[str, np.ndarray]
    class_images: np.ndarray


def explain(plan: Plan, folder: Folder, sample: int, watch: Watch) -> list[Explanation]:
    """What the models of a run look at in a sample, before and after every attack that broke it.

    Parameters
    ----------
    plan : Plan
        Of the run's config.
    folder : Folder
        The run's.
    sample : int
        Its `sample_id`.
    watch : callable
        Called with (what is going on, fraction of the whole).

    Returns
    -------
    list of Explanation
        One a job.

    Raises
    ------
    RobustError
        Where the samples are no images, the run has no such sample, or no attack broke it.
    """
    shop = plan.workshop
    place = _place(shop, sample)
    _require_classes(shop)
    if shop.data.x.dim() != 4 or shop.data.x.shape[1] not in (1, 3):
        raise RobustError(f"{shop.data.name}: only images of 1 or 3 channels can be looked at")
    found = []
    for index, job in enumerate(plan.jobs):
        watch(str(job), index / len(plan.jobs))
        after = _stored(folder, shop, job, sample)
        if after is not None:
            both = torch.stack([shop.data.x[place], after]).to(shop.device)
            found.append(look(str(job), shop.model_named(job.model, job.name), both))
    watch("done", 1.0)
    if not found:
        raise RobustError(f"{folder.path}: no attack of the run broke sample {sample}, or its models changed")
    return found


def look(job: str, model: Model, both: Tensor) -> Explanation:
    """What a model looks at in two images (2, C, H, W)."""
    oracle = Oracle(model, chunk=256)
    scores = oracle.truth(both)[0]
    classes = model.prediction(scores).clamp_min(0)
    sure = model.confidence(scores)
    ways: dict[str, Map] = {"occlusion": lambda x, c: maps.occlusion(oracle, x).abs()}
    if model.access >= Access.GRADIENT:
        ways = {
            "gradient": lambda x, c: maps.saliency(oracle, x, c),
            "integrated gradients": lambda x, c: maps.integrated_gradients(oracle, x, c).abs().sum(1),
            "smooth gradient": lambda x, c: maps.smooth_gradient(oracle, x, c),
            **ways,
        }
    if isinstance(model, TorchModel):
        ways |= {
            "Grad-CAM": lambda x, c: networks.grad_cam(model, x, c),
            "guided gradient": lambda x, c: networks.guided_gradient(model, x, c),
            INVERTED: lambda x, c: networks.inverted(model, x),
        }
    shown: dict[str, np.ndarray] = {}
    left_out = []
    for name, made in ways.items():
        try:
            shown[name] = made(both, classes).detach().cpu().numpy()
        except Unsupported as error:
            left_out.append(f"{name}: {error}")
        except Exception as error:  # of the network, or of Captum on it
            left_out.append(f"{name}: fails on {model.name}: {one_line(error)}")
    inverted = shown.pop(INVERTED, None)
    before, after = ((float("nan"),) * 2) if sure is None else sure.tolist()
    first, second = classes.tolist()
    return Explanation(
        job,
        model.name,
        both.cpu().numpy(),
        (first, second),
        (before, after),
        shown,
        inverted,
        tuple(left_out),
    )


def embedded(plan: Plan, folder: Folder, sample: int, how: str) -> list[Embedding]:
    """The samples of a run as each of its networks embeds them, with the ways of the attacks on one.

    Parameters
    ----------
    plan : Plan
    folder : Folder
    sample : int
        Its `sample_id`.
    how : {"pca", "tsne"}
        The two directions of most variance, or t-SNE of samples and ways together.

    Returns
    -------
    list of Embedding
        One a network with a linear layer, whose embedding has two numbers or more; none of fewer than four
        samples.
    """
    shop = plan.workshop
    place = _place(shop, sample)
    _require_classes(shop)
    found = []
    for text in dict.fromkeys(job.model for job in plan.jobs):
        jobs = [job for job in plan.jobs if job.model == text]
        model = shop.model_named(text, jobs[0].name)
        if not isinstance(model, TorchModel):
            continue
        ways = {}
        for job in jobs:
            after = _stored(folder, shop, job, sample)
            if after is not None:
                ways[str(job)] = _way(shop.work(job), sample, shop.data.x[place], after)
        data = shop.data[torch.arange(min(EMBEDDED, len(shop.data)))]
        parts = [data.x, *ways.values()]
        try:
            points = embeddings(model, torch.cat(parts))
        except Unsupported:
            continue
        if len(data) < FEWEST or points.shape[1] < 2:
            continue
        flat = _flattened(points.double().cpu().numpy(), len(data), how)
        ends = np.cumsum([len(part) for part in parts])
        named = dict(zip(ways, np.split(flat, ends[:-1])[1:], strict=True))
        classes = torch.arange(min(CLASSES, shop.data.num_classes, model.num_classes), device=model.device)
        class_images = networks.class_images(model, classes).cpu().numpy()
        found.append(Embedding(model.name, flat[: ends[0]], data.y.numpy(), named, class_images))
    return found


def _require_classes(shop: Workshop) -> None:
    """Raise `RobustError` for data whose answers have positions: no single class is there to be explained."""
    if shop.data.task.kind != "classification":
        raise RobustError(f"{shop.data.name} is for {shop.data.task.kind}; only classes are explained")


def _place(shop: Workshop, sample: int) -> int:
    """Where a sample lies among those of a run."""
    at = (shop.data.ids == sample).nonzero()[:, 0]
    if not len(at):
        raise RobustError(f"sample {sample} is not among the run's: {_some(shop.data.ids)}")
    return int(at[0])


def _some(ids: Tensor) -> str:
    return ", ".join(map(str, ids[:8].tolist())) + (", …" if len(ids) > 8 else "")


def _stored(folder: Folder, shop: Workshop, job: Job, sample: int) -> Tensor | None:
    """The adversarial example of a sample that a job left; None where there is none, or the model changed."""
    records = folder.records_of(job.key(), shop.fingerprint(job))
    if records is None:
        return None
    won = records["success"].astype(bool) & records["source_model"].isna()  # what broke others is stored too
    if sample not in set(records.loc[won, "sample_id"]):
        return None
    try:
        arrays = folder.adversarial(job.key())
        at = np.flatnonzero(arrays["ids"] == sample)
        return torch.from_numpy(np.array(arrays["adversarial"][at[0]])) if len(at) else None
    except (InvalidData, KeyError):
        return None


def _way(work: Work, sample: int, before: Tensor, after: Tensor) -> Tensor:
    """Images from a sample to its adversarial example: the attack's own path where it has one."""
    rows = (work.data.ids == sample).nonzero()[:, 0].tolist()
    if rows and can_be_traced(work.attack, work.model, work.threat, work.goal):
        scores, path = path_of(work, rows[0])
        if len(scores):
            return torch.cat([before[None], path, after[None]])
    return torch.stack([before, after])


def _flattened(points: np.ndarray, samples: int, how: str) -> np.ndarray:
    """Embeddings (n, e) in a plane (n, 2); the directions are those of the samples alone."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if how == "tsne":
        neighbours = min(NEIGHBOURS, (len(points) - 1) / 3)
        flat: np.ndarray = TSNE(2, perplexity=neighbours, init="pca", random_state=0).fit_transform(points)
        return flat
    planar: np.ndarray = PCA(2, random_state=0).fit(points[:samples]).transform(points)
    return planar
