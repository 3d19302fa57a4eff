"""A plan: every cell of a run, made before the first is carried out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch

from robustbench_lite.search.attack import Attack
from robustbench_lite.search.driver import Search
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.jobs.job import Cell
from robustbench_lite.runs.config import Config
from robustbench_lite.core.errors import RobustError, Unsupported
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.model import Model, parse_precision
from robustbench_lite.threats.named import parse_threat
from robustbench_lite.data.data import Data
from robustbench_lite.data.load import DataLike, load_data
from robustbench_lite.judging.judge import clean_scores
from robustbench_lite.models.load import ModelLike, load_model

SLICE = 2000  # samples a cell; what a crash can lose
Watch = Callable[[str, float], None]


@dataclass(frozen=True)
class Plan:
    """The cells of a run, in order, and those that cannot be, with the reason."""

    cells: tuple[Cell, ...]
    refused: Mapping[str, str]
    data: Data
    models: tuple[Model, ...]


def plan(
    config: Config,
    data: DataLike,
    models: Sequence[ModelLike],
    attacks: Sequence[str | Attack],
    watch: Watch = lambda what, fraction: None,
) -> Plan:
    """Load data and models and make the cells; raises `Unsupported` when not one of them can be."""
    held = load_data(data, "test", config.samples, config.data_dir, config.seed, config.download)
    built = [get_attack(a) for a in attacks]
    threats = [parse_threat(t, held.domain) for t in config.threats]
    goals = [parse_goal(g) for g in config.goals]
    device = find_device(config.device)
    how = Search(
        config.seed,
        config.batch_size,
        config.budget,
        config.time_limit,
        config.eot,
        parse_precision(config.precision),
        config.compile,
    )
    loaded = [
        load_model(spec, held, device, config.seed, lambda w, f: watch(f"training {w}", f)) for spec in models
    ]
    loaded = _told_apart(loaded)
    clean = [clean_scores(model, held.x, config.batch_size or 1024) for model in loaded]
    cells: list[Cell] = []
    refused: dict[str, str] = {}
    for model, scores in zip(loaded, clean, strict=True):
        others = [(m, c) for m, c in zip(loaded, clean, strict=True) if config.transfer and m is not model]
        for threat, attack, goal in product(threats, built, goals):
            cell = Cell(held, model, attack, threat, goal, scores, how, config.eight_bit)
            reason = attack.refuses(model, threat)
            if reason:
                refused[str(cell)] = reason
                continue
            for part in (slice(begin, begin + SLICE) for begin in range(0, len(held), SLICE)):
                here = replace(cell, data=held[part], clean=scores[part])
                cells.append(here)
                for other, says in others:
                    judged = replace(here, model=other, clean=says[part])
                    cells.append(replace(judged, source=model, source_clean=here.clean))
    if not cells:
        raise Unsupported("; ".join(dict.fromkeys(refused.values())))
    return Plan(tuple(cells), refused, held, tuple(loaded))


def _told_apart(models: Sequence[Model]) -> list[Model]:
    """The models, the second of a name called `name#2`: records and tables know them by name."""
    found: list[Model] = []
    for model in models:
        times = 1 + sum(other.name.partition("#")[0] == model.name for other in found)
        if times > 1:
            model = copy.copy(model)
            model.name = f"{model.name}#{times}"
        found.append(model)
    return found


def find_device(name: str) -> torch.device:
    """auto: CUDA where there is one; raises `RobustError` for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RobustError(f"device {name!r}: must be auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RobustError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    return device
