"""A run's adversarial examples on paper, and what the models say of photographs of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.core.errors import InvalidData, RobustError
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.jobs.job import Job
from robustbench_lite.jobs.make import Watch, Workshop
from robustbench_lite.physical.photograph import Photograph, read
from robustbench_lite.physical.sheet import Place, arranged, drawn
from robustbench_lite.records.folder import Folder
from robustbench_lite.records.schema import whole
from robustbench_lite.reports.tables.statistics import wilson
from robustbench_lite.runs.plan import Plan

HOME = "printed"  # in the run's folder
ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
COLUMNS = ["photographs", "job", "pairs", "originals_right", "still_broken", "destroyed", "low", "high"]


@dataclass(frozen=True)
class Pair:
    """A sample and its adversarial example on a sheet: of which job, and where both lie."""

    job: str
    sample_id: int
    target: int | None
    original: Place
    adversarial: Place


def print_sheets(plan: Plan, folder: Folder, samples: Sequence[int], most: int, side: float) -> list[Path]:
    """Sheets with pairs of samples and their adversarial examples, and what lies where on them.

    Parameters
    ----------
    plan : Plan
        Of the run's config.
    folder : Folder
        The run's; the sheets go to its folder `printed`.
    samples : sequence of int
        Their `sample_id`; none: the first of each job.
    most : int
        Pairs of each job, at most.
    side : float
        Of an image, in centimetres.

    Returns
    -------
    list of Path
        PNG files of 300 dots an inch, and a PDF with all of them.

    Raises
    ------
    RobustError
        Where the samples are no images from 0 to 1, or there is nothing to print.
    """
    shop = plan.workshop
    data, domain = shop.data, shop.data.domain
    unit = isinstance(domain.low, float) and isinstance(domain.high, float)
    if data.x.dim() != 4 or data.x.shape[1] not in (1, 3) or not unit or (domain.low, domain.high) != (0, 1):
        raise RobustError(f"{data.name}: only images of 1 or 3 channels with values from 0 to 1 are printed")
    found: list[tuple[Job, int, int | None, np.ndarray, np.ndarray]] = []
    for job in plan.jobs:
        found += _pairs(job, shop, folder, samples, most)
    if not found:
        named = f" of samples {', '.join(map(str, samples))}" if samples else ""
        raise RobustError(f"{folder.path}: no stored adversarial example{named}")
    places = arranged(2 * len(found), side)
    images = [image for *_, before, after in found for image in (before, after)]
    words = [f"{sample} {what}" for _, sample, *_ in found for what in ("original", "attacked")]
    pages = drawn(images, words, places)
    pairs = [
        Pair(job.key(), sample, target, places[2 * i], places[2 * i + 1])
        for i, (job, sample, target, *_) in enumerate(found)
    ]
    home = folder.path / HOME
    home.mkdir(exist_ok=True)
    files = []
    for number, page in enumerate(pages, 1):
        with whole(home / f"sheet-{number}.png") as temporary:
            page.save(temporary, "PNG", dpi=(300, 300))
        files.append(home / f"sheet-{number}.png")
    with whole(home / "sheets.pdf") as temporary:
        pages[0].save(temporary, "PDF", resolution=300, save_all=True, append_images=pages[1:])
    with whole(home / "sheets.json") as temporary:
        temporary.write_text(json.dumps([asdict(pair) for pair in pairs], indent=1), encoding="utf-8")
    return [*files, home / "sheets.pdf"]


def judge_photographs(
    plan: Plan, folder: Folder, photographs: Path, watch: Watch
) -> tuple[pd.DataFrame, list[str]]:
    """What a run's models say of photographs of its sheets.

    Parameters
    ----------
    plan : Plan
    folder : Folder
        The run's, with the sheets that were photographed.
    photographs : Path
        A folder of images; its sub-folders are told apart, one a transformation.
    watch : callable

    Returns
    -------
    DataFrame
        One row a folder and job: pairs seen; the share of originals still classified rightly; the share of
        adversarial examples that still reach the goal; destroyed: the share of those that no longer do
        (Kurakin et al. 2016, equation 1), with Wilson's 95 % interval.
    list of str
        What could not be read.
    """
    pairs = _printed(folder)
    jobs = {job.key(): job for job in plan.jobs}
    groups = _grouped(photographs)
    rows, left_out = [], list[str]()
    for index, (name, files) in enumerate(groups.items()):
        watch(name, index / len(groups))
        seen: dict[str, list[tuple[Pair, Photograph]]] = {}
        for file in files:
            try:
                photograph = read(file)
            except InvalidData as error:
                left_out.append(str(error))
                continue
            on_it = [pair for pair in pairs if pair.original.sheet == photograph.sheet]
            if not on_it:
                left_out.append(f"{file}: sheet {photograph.sheet} is none of the run's")
            for pair in on_it:
                seen.setdefault(pair.job, []).append((pair, photograph))
        for key, shown in seen.items():
            if key in jobs:
                rows.append({"photographs": name, **_judged(jobs[key], shown, plan.workshop)})
    watch("done", 1.0)
    if not rows:
        raise RobustError("; ".join(left_out) or f"{photographs}: holds no photographs of the run's sheets")
    return pd.DataFrame(rows, columns=COLUMNS), left_out


def _pairs(
    job: Job, shop: Workshop, folder: Folder, samples: Sequence[int], most: int
) -> list[tuple[Job, int, int | None, np.ndarray, np.ndarray]]:
    """The pairs of a job: it, the sample, its target, the image before and after."""
    records = folder.records_of(job.key(), None)
    if records is None:
        return []
    try:
        arrays = folder.adversarial(job.key())
        stored = {int(sample): i for i, sample in enumerate(arrays["ids"])}
        after = arrays["adversarial"]
    except (InvalidData, KeyError):
        return []
    own = records.loc[records["source_model"].isna()]
    targets = dict(zip(own["sample_id"].astype(int), own["target"].fillna(-1).astype(int), strict=True))
    place = {int(sample): i for i, sample in enumerate(shop.data.ids)}
    wanted = [s for s in (samples or stored) if s in stored and s in place and s in targets][:most]
    found = []
    for sample in wanted:
        aim = None if targets[sample] < 0 else targets[sample]
        found.append((job, sample, aim, shop.data.x[place[sample]].numpy(), after[stored[sample]]))
    return found


def _printed(folder: Folder) -> list[Pair]:
    """What lies where on the run's sheets."""
    file = folder.path / HOME / "sheets.json"
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return [
            Pair(
                str(one["job"]), int(one["sample_id"]), None if one["target"] is None else int(one["target"]),
                Place(**one["original"]), Place(**one["adversarial"]),
            )
            for one in told
        ]  # fmt: skip
    except FileNotFoundError:
        raise RobustError(f"{folder.path}: no sheets were printed; robust print {folder.path}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RobustError(f"{file}: cannot be read: {error}") from None


def _grouped(photographs: Path) -> dict[str, list[Path]]:
    """The images of a folder and of each of its sub-folders, by name."""
    homes = [photographs, *sorted(p for p in photographs.iterdir() if p.is_dir())]
    found = {
        home.name: sorted(f for f in home.iterdir() if f.is_file() and f.suffix.lower() in ENDINGS)
        for home in homes
    }
    return {name: files for name, files in found.items() if files}


def _judged(job: Job, shown: Sequence[tuple[Pair, Photograph]], shop: Workshop) -> dict[str, object]:
    """What a job's model says of the pairs on photographs."""
    model = shop.model_named(job.model, job.name)
    goal, oracle = shop.goal(job.goal), Oracle(model, chunk=256)
    place = {int(sample): i for i, sample in enumerate(shop.data.ids)}
    known = [(pair, photograph) for pair, photograph in shown if pair.sample_id in place]
    y = shop.data.y[[place[pair.sample_id] for pair, _ in known]].to(model.device)

    def scores_of(which: str) -> Tensor:
        channels, height, width = shop.data.x.shape[1:]
        cut = np.stack([photo.cut(getattr(pair, which), height, width) for pair, photo in known])
        cut = np.clip(cut.mean(1, keepdims=True) if channels == 1 else cut, 0, 1)
        return oracle.truth(torch.from_numpy(cut).float().to(model.device))[0]

    targets = [pair.target for pair, _ in known]
    aim = None if None in targets else torch.tensor(targets, device=model.device)
    right = model.prediction(scores_of("original")) == y
    attacked = scores_of("adversarial")
    confidence = model.confidence(attacked) if goal.confidence else None
    broken = goal.met(model.task, attacked, y, aim, confidence)
    count = len(known)
    destroyed = count - int(broken.sum())
    low, high = wilson(destroyed, count)
    return {
        "job": str(job),
        "pairs": count,
        "originals_right": float(right.double().mean()),
        "still_broken": float(broken.double().mean()),
        "destroyed": destroyed / count if count else float("nan"),
        "low": low,
        "high": high,
    }
