"""Signs that an attack's success rate cannot be trusted, each with a number, and what to run next.

After Carlini et al. 2019 (On evaluating adversarial robustness), Pintor et al. 2022 (Indicators of attack
failure) and AutoAttack's own flags.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
import torch

from robustbench_lite.attacks.noise import Noise
from robustbench_lite.attacks.score_based.square import Square
from robustbench_lite.core.errors import UnknownName, Unsupported
from robustbench_lite.core.goal import Goal, Targets, margin
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.model import Access
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.jobs.job import Cell, execute
from robustbench_lite.runs.config import Config
from robustbench_lite.runs.plan import Watch, plan
from robustbench_lite.search.attack import Attack, as_text
from robustbench_lite.search.trace import can_be_followed, follow
from robustbench_lite.threats.ball import Lp
from robustbench_lite.threats.named import with_domain

HEADS = ["model", "attack", "threat", "goal", "check", "value", "limit", "raised", "meaning", "next"]
FOLLOWED = 256  # samples whose path is looked at, in one batch
QUERIES = 500  # of the black-box control


@dataclass(frozen=True)
class Check:
    """What a number above its limit means, and what to run then."""

    limit: float
    meaning: str
    advice: str


CHECKS: dict[str, Check] = {
    "loss_rising": Check(
        0.05, "the margin still grew by this share of its range in the last tenth of the steps", "more steps"
    ),
    "doubled_steps": Check(0.01, "twice the steps break this share more", "more steps, or apgd"),
    "zero_gradients": Check(
        0.0, "this share of the samples has a gradient of zero, or none", "loss=dlr or margin, or square"
    ),
    "masked_gradients": Check(
        0.1,
        "for this share a small step along the gradient does not raise the margin",
        "square, and a smooth stand-in for whatever hides the gradient",
    ),
    "black_box_stronger": Check(
        0.002, f"{QUERIES} queries of a black-box attack break this share that it does not", "auto"
    ),
    "targeted_stronger": Check(
        0.01, "aiming at the three likeliest wrong classes breaks this share more", "apgd:loss=dlr,targets=9"
    ),
    "noise_succeeds": Check(
        0.5, "random noise reaches this share of its successes", "exact or square; is the model accurate?"
    ),
    "full_box_resists": Check(
        0.0, "this share resists even when everything in the box is allowed", "square: gradients mislead"
    ),
    "random_without_eot": Check(
        0.0, "the model is stochastic, and its answers are not averaged", "--eot 20, with auto:version=rand"
    ),
    "saturated_loss": Check(
        0.1, "for this share p(y) is exactly 1 in float32, where plain cross-entropy is flat", "loss=dlr"
    ),
}


def diagnose(cell: Cell, progress: Callable[[str], None] = lambda check: None) -> pd.DataFrame:
    """One row a check of a cell: its number, its limit, whether it is raised, what it means, what is next.

    The cell's attack must ask for gradients at a fixed eps. Only samples that the model has right count.
    Raises `Unsupported`.
    """
    if (
        cell.attack.access is not Access.GRADIENT
        or not isinstance(cell.threat, Lp)
        or cell.threat.eps is None
    ):
        raise Unsupported(f"{cell}: only gradient attacks at a fixed eps can be diagnosed")
    right = cell.clean.argmax(1) == cell.data.y
    if not bool(right.any()):
        raise Unsupported(f"{cell}: the model has no sample right")
    given = None if cell.given is None else cell.given[right]
    cell = replace(cell, data=cell.data[right], clean=cell.clean[right], given=given)
    rows = []
    for name, value in _values(cell, progress):
        check = CHECKS[name]
        rows.append(
            {
                "model": cell.model.name,
                "attack": as_text(cell.attack),
                "threat": str(cell.threat),
                "goal": str(cell.goal),
                "check": name,
                "value": value,
                "limit": check.limit,
                "raised": value > check.limit,
                "meaning": check.meaning,
                "next": check.advice,
            }
        )
    return pd.DataFrame(rows, columns=HEADS)


def _can_be_checked(cell: Cell) -> bool:
    fixed = isinstance(cell.threat, Lp) and cell.threat.eps is not None
    return fixed and cell.attack.access is Access.GRADIENT and cell.source is None


def diagnose_run(
    config: Config, attacks: Sequence[str] = (), watch: Watch = lambda what, fraction: None
) -> pd.DataFrame:
    """The checks of every cell of a run that can be diagnosed; attacks: only these of the run's."""
    unknown = [name for name in attacks if name not in config.attacks]
    if unknown:
        raise UnknownName("attack of the run", unknown[0], dict.fromkeys(config.attacks))
    made = plan(config, config.data, config.models, attacks or config.attacks, watch)
    cells = [cell for cell in made.cells if _can_be_checked(cell)]
    found = []
    for index, cell in enumerate(cells):

        def progress(check: str, what: str = str(cell), done: int = index) -> None:
            watch(f"{what}: {check}", done / len(cells))

        found.append(diagnose(cell, progress))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=HEADS)


def _values(cell: Cell, progress: Callable[[str], None]) -> Iterator[tuple[str, float]]:
    attack, threat = cell.attack, cell.threat
    assert isinstance(threat, Lp)
    progress("the attack itself")
    base = _broken(cell)
    takes_steps = "steps" in {f.name for f in fields(attack)}
    if takes_steps and can_be_followed(cell):
        progress("loss_rising")
        yield "loss_rising", _still_rising(cell, base)
    if takes_steps:
        progress("doubled_steps")
        doubled = replace(attack, **{"steps": 2 * int(getattr(attack, "steps", 0))})
        yield "doubled_steps", float(_broken(cell, doubled).mean() - base.mean())
    yield from _gradients(cell)
    if threat.norm in Square.norms:
        progress("black_box_stronger")
        yield "black_box_stronger", float((_broken(cell, Square(QUERIES)) & ~base).mean())
    if not cell.goal.targeted and cell.model.num_classes > 2:
        progress("targeted_stronger")
        aimed = replace(cell.goal, targets=Targets.TOP, k=min(3, cell.model.num_classes - 1))
        yield "targeted_stronger", float(_broken(cell, goal=aimed).mean() - base.mean())
    progress("noise_succeeds")
    noise = _broken(cell, Noise()).mean()
    yield "noise_succeeds", float(noise / base.mean()) if base.any() else (math.inf if noise else 0.0)
    progress("full_box_resists")
    low, high = threat.domain.bounds(cell.data.x)
    whole = threat.distance(high.expand_as(cell.data.x), low.expand_as(cell.data.x)).max()
    everything = replace(threat, eps=float(whole))
    yield "full_box_resists", float(1 - _broken(cell, threat=everything).mean())
    yield "random_without_eot", float(cell.model.stochastic and cell.search.eot == 1)


def _broken(
    cell: Cell, attack: Attack | None = None, threat: Lp | None = None, goal: Goal | None = None
) -> np.ndarray:
    changed = replace(
        cell, attack=attack or cell.attack, threat=threat or cell.threat, goal=goal or cell.goal
    )
    found: np.ndarray = execute(changed).records["success"].to_numpy(dtype=bool)
    return found


def _gradients(cell: Cell) -> Iterator[tuple[str, float]]:
    """What the gradient is worth at the samples themselves."""
    model, y = cell.model, cell.data.y.to(cell.model.device)
    x = cell.data.x.to(model.device)
    oracle = Oracle(model, chunk=cell.search.batch_size or 256)
    gradient, _, scores = oracle.gradient(x, lambda s, rows: cross_entropy(s, y[rows]))
    flat = gradient.flatten(1)
    yield "zero_gradients", float((~flat.isfinite().all(1) | ~(flat != 0).any(1)).float().mean())
    assert isinstance(cell.threat, Lp)
    eps = torch.full((len(x),), float(cell.threat.eps or 0.0), dtype=torch.float64, device=model.device)
    # As far as a tenth of the ball lets the gradient lead, inside the box.
    ahead = with_domain(cell.threat, cell.threat.domain.to(model.device)).linear_maximum(
        gradient, x, 0.1 * eps
    )
    here, there = (margin(oracle.truth(points), y) for points in (x, ahead))
    yield "masked_gradients", float((there <= here).float().mean())
    certain = scores.float().softmax(1).gather(1, y[:, None])[:, 0] == 1
    yield "saturated_loss", float(certain.float().mean())


def _still_rising(cell: Cell, broken: np.ndarray) -> float:
    """How much the best margin of unbroken samples grew at the end, in its range over the whole path.

    Pintor et al. 2022, indicator 4, on the last tenth of the steps; the median over samples.
    """
    left = torch.from_numpy(np.flatnonzero(~broken)[:FOLLOWED])
    if not len(left):
        return 0.0
    scores = follow(cell, left)
    if len(scores) < 2:
        return 0.0
    each = cell.data.y[left].repeat_interleave(scores.shape[1] // len(left))
    path = torch.stack([margin(one, each) for one in scores])
    best = path.cummax(0).values
    span = (best[-1] - best[0]).clamp_min(1e-12)
    grown = (best[-1] - best[-1 - max(1, len(path) // 10)]) / span
    return float(grown.median())
