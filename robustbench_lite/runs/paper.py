"""A run's adversarial examples on paper, and what the models say of photographs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter
from torch import Tensor

from robustbench_lite.core.errors import InvalidData, RobustError
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.jobs.job import Job
from robustbench_lite.jobs.make import Watch, Workshop
from robustbench_lite.physical.photograph import read
from robustbench_lite.physical.sheet import Place, arranged, code_of, drawn
from robustbench_lite.records.folder import Folder
from robustbench_lite.records.schema import whole
from robustbench_lite.reports.tables.statistics import wilson
from robustbench_lite.runs.plan import Plan

HOME = "printed"  # in the run's folder
ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
COLUMNS = ["photographs", "job", "pairs", "originals_right", "still_broken", "destroyed", "low", "high"]


@dataclass(frozen=True)
class Pair:
    """A sample and its adversarial example on a sheet: of which job, data and models, and where both lie."""

    job: str
    fingerprint: str
    sample_id: int
    target: int | None
    original: Place
    adversarial: Place


PAIRS = TypeAdapter(list[Pair])
Seen = tuple[Pair, np.ndarray, np.ndarray]  # a pair, its original and its adversarial example as photographed


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
    pairs = [
        Pair(job.key(), shop.fingerprint(job), sample, target, places[2 * i], places[2 * i + 1])
        for i, (job, sample, target, *_) in enumerate(found)
    ]
    written = PAIRS.dump_json(pairs, indent=1).decode()
    pages = drawn(images, words, places, written)
    home = folder.path / HOME
    home.mkdir(exist_ok=True)
    for old in home.glob("sheet-*.png"):
        old.unlink()
    files = []
    for number, page in enumerate(pages, 1):
        with whole(home / f"sheet-{number}.png") as temporary:
            page.save(temporary, "PNG", dpi=(300, 300))
        files.append(home / f"sheet-{number}.png")
    with whole(home / "sheets.pdf") as temporary:
        pages[0].save(temporary, "PDF", resolution=300, save_all=True, append_images=pages[1:])
    with whole(home / "sheets.json") as temporary:
        temporary.write_text(written, encoding="utf-8")
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
    pairs, written = _printed(folder)
    jobs = {job.key(): job for job in plan.jobs}
    changed = {pair.job for pair in pairs if pair.job in jobs}
    changed = {key for key in changed if _fingerprints(pairs, key) != {plan.workshop.fingerprint(jobs[key])}}
    groups = _grouped(photographs)
    rows = []
    left_out = [f"{jobs[key]}: its data or model are not those that were printed" for key in changed]
    for index, (name, files) in enumerate(groups.items()):
        watch(name, index / len(groups))
        seen: dict[str, list[Seen]] = {}
        for file in files:
            try:
                photograph = read(file)
            except InvalidData as error:
                left_out.append(str(error))
                continue
            if photograph.code != code_of(written, photograph.sheet):
                left_out.append(f"{file}: shows a sheet of another print, or one that cannot be made out")
                continue
            height, width = plan.workshop.data.x.shape[2:]
            for pair in pairs:
                if pair.original.sheet == photograph.sheet and pair.job in jobs and pair.job not in changed:
                    before = photograph.cut(pair.original, height, width)
                    after = photograph.cut(pair.adversarial, height, width)
                    seen.setdefault(pair.job, []).append((pair, before, after))
        for key, shown in seen.items():
            rows.append({"photographs": name, **_judged(jobs[key], shown, plan.workshop)})
    watch("done", 1.0)
    if not rows:
        raise RobustError("; ".join(left_out) or f"{photographs}: holds no photographs of the run's sheets")
    return pd.DataFrame(rows, columns=COLUMNS), left_out


def _pairs(
    job: Job, shop: Workshop, folder: Folder, samples: Sequence[int], most: int
) -> list[tuple[Job, int, int | None, np.ndarray, np.ndarray]]:
    """The pairs of a job: it, the sample, its target, the image before and after."""
    records = folder.records_of(job.key(), shop.fingerprint(job))
    if records is None:
        return []
    try:
        arrays = folder.adversarial(job.key())
        own = records.loc[records["source_model"].isna()]
        won = set(own.loc[own["success"].astype(bool), "sample_id"])  # what broke others is stored too
        stored = {int(sample): i for i, sample in enumerate(arrays["ids"]) if int(sample) in won}
        after = arrays["adversarial"]
    except (InvalidData, KeyError):
        return []
    targets = dict(zip(own["sample_id"].astype(int), own["target"].fillna(-1).astype(int), strict=True))
    place = {int(sample): i for i, sample in enumerate(shop.data.ids)}
    wanted = [s for s in (samples or stored) if s in stored and s in place and s in targets][:most]
    found = []
    for sample in wanted:
        aim = None if targets[sample] < 0 else targets[sample]
        found.append((job, sample, aim, shop.data.x[place[sample]].numpy(), after[stored[sample]]))
    return found


def _printed(folder: Folder) -> tuple[list[Pair], str]:
    """What lies where on the run's sheets, and the text that says so."""
    file = folder.path / HOME / "sheets.json"
    try:
        written = file.read_text(encoding="utf-8")
        return PAIRS.validate_json(written), written
    except FileNotFoundError:
        raise RobustError(f"{folder.path}: no sheets were printed; robust print {folder.path}") from None
    except (OSError, ValueError) as error:
        raise RobustError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from None


def _fingerprints(pairs: Sequence[Pair], key: str) -> set[str]:
    return {pair.fingerprint for pair in pairs if pair.job == key}


def _grouped(photographs: Path) -> dict[str, list[Path]]:
    """The images of a folder and of each of its sub-folders, by name."""
    homes = [photographs, *sorted(p for p in photographs.iterdir() if p.is_dir())]
    found = {
        home.name: sorted(f for f in home.iterdir() if f.is_file() and f.suffix.lower() in ENDINGS)
        for home in homes
    }
    return {name: files for name, files in found.items() if files}


def _judged(job: Job, shown: Sequence[Seen], shop: Workshop) -> dict[str, object]:
    """What a job's model says of the pairs on photographs."""
    model = shop.model_named(job.model, job.name)
    goal, oracle = shop.goal(job.goal), Oracle(model, chunk=256)
    place = {int(sample): i for i, sample in enumerate(shop.data.ids)}
    y = shop.data.y[[place[pair.sample_id] for pair, *_ in shown]].to(model.device)
    grey = shop.data.x.shape[1] == 1

    def scores_of(images: Sequence[np.ndarray]) -> Tensor:
        cut = np.stack(images)
        cut = np.clip(cut.mean(1, keepdims=True) if grey else cut, 0, 1)
        return oracle.truth(torch.from_numpy(cut).float().to(model.device))[0]

    targets = [pair.target for pair, *_ in shown]
    aim = None if None in targets else torch.tensor(targets, device=model.device)
    right = model.task.right(model.prediction(scores_of([before for _, before, _ in shown])), y)
    attacked = scores_of([after for *_, after in shown])
    confidence = model.confidence(attacked) if goal.confidence else None
    broken = goal.met(model.task, attacked, y, aim, confidence)
    destroyed = len(shown) - int(broken.sum())
    low, high = wilson(destroyed, len(shown))
    return {
        "job": str(job),
        "pairs": len(shown),
        "originals_right": float(right.double().mean()),
        "still_broken": float(broken.double().mean()),
        "destroyed": destroyed / len(shown),
        "low": low,
        "high": high,
    }
