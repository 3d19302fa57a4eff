"""Signs that an attack's success rate cannot be trusted, each with a number, and what to run next.

After Carlini et al. 2019 (On evaluating adversarial robustness), Pintor et al. 2022 (Indicators of attack
failure) and AutoAttack's own flags.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
import torch

from robustbench_lite.attacks.noise import Noise
from robustbench_lite.attacks.score_based.square import Square
from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.goal import Goal, Targets
from robustbench_lite.core.losses import cross_entropy
from robustbench_lite.core.model import Access
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.task import margin
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.engines.explanations import trace_of
from robustbench_lite.jobs.job import Work, carry_out
from robustbench_lite.search.attack import AnyAttack, as_text
from robustbench_lite.search.trace import can_be_traced
from robustbench_lite.threats.ball import Lp

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
        "square, and a smooth surrogate for whatever hides the gradient",
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


def diagnose_work(work: Work, progress: Callable[[str], None] = lambda check: None) -> pd.DataFrame:
    """One row a check of a job: its number, its limit, whether it is raised, what it means, what is next.

    The job's attack must ask for gradients at a fixed eps. Only samples that the model has right count.
    Raises `Unsupported`.
    """
    if work.model.task.kind != "classification":
        raise Unsupported(f"{work}: is for {work.model.task.kind}; only attacks on classes can be diagnosed")
    if not can_be_checked(work.attack, work.threat):
        raise Unsupported(f"{work}: only gradient attacks at a fixed eps can be diagnosed")
    right = work.clean.prediction == work.data.y
    if not bool(right.any()):
        raise Unsupported(f"{work}: the model has no sample right")
    work = work[right]
    rows = []
    for name, value in _values(work, progress):
        check = CHECKS[name]
        rows.append(
            {
                "model": work.model.name,
                "attack": as_text(work.attack),
                "threat": str(work.threat),
                "goal": str(work.goal),
                "check": name,
                "value": value,
                "limit": check.limit,
                "raised": value > check.limit,
                "meaning": check.meaning,
                "next": check.advice,
            }
        )
    return pd.DataFrame(rows, columns=HEADS)


def can_be_checked(attack: AnyAttack, threat: Threat) -> bool:
    """Whether the checks say something: of gradient attacks in a ball of fixed size."""
    return threat.kind == "ball" and threat.eps is not None and attack.access is Access.GRADIENT


def _values(work: Work, progress: Callable[[str], None]) -> Iterator[tuple[str, float]]:
    attack, threat = work.attack, work.threat
    progress("the attack itself")
    base = _broken(work)
    takes_steps = "steps" in {f.name for f in fields(attack)}
    if takes_steps and can_be_traced(attack, work.model, threat, work.goal):
        progress("loss_rising")
        yield "loss_rising", _still_rising(work, base)
    if takes_steps:
        progress("doubled_steps")
        steps = getattr(attack, "steps", None) or attack.schedule(work.model, threat).steps
        doubled = replace(attack, **{"steps": 2 * int(steps)})
        yield "doubled_steps", float(_broken(work, doubled).mean() - base.mean())
    yield from _gradients(work)
    if threat.norm in Square.norms:
        progress("black_box_stronger")
        yield "black_box_stronger", float((_broken(work, Square(QUERIES)) & ~base).mean())
    if not work.goal.targeted and work.model.num_classes > 2:
        progress("targeted_stronger")
        aimed = replace(work.goal, targets=Targets.TOP, k=min(3, work.model.num_classes - 1))
        yield "targeted_stronger", float(_broken(work, goal=aimed).mean() - base.mean())
    progress("noise_succeeds")
    noise = _broken(work, Noise()).mean()
    yield "noise_succeeds", float(noise / base.mean()) if base.any() else (math.inf if noise else 0.0)
    progress("full_box_resists")
    low, high = threat.domain.bounds(work.data.x)
    whole = threat.distance(high.expand_as(work.data.x), low.expand_as(work.data.x)).max()
    everything = Lp(threat.norm or Norm.LINF, float(whole), threat.domain)
    yield "full_box_resists", float(1 - _broken(work, threat=everything).mean())
    yield "random_without_eot", float(work.model.stochastic and work.search.eot == 1)


def _broken(
    work: Work, attack: AnyAttack | None = None, threat: Threat | None = None, goal: Goal | None = None
) -> np.ndarray:
    changed = replace(
        work, attack=attack or work.attack, threat=threat or work.threat, goal=goal or work.goal, bounds=None
    )
    found: np.ndarray = carry_out(changed).records["success"].to_numpy(dtype=bool)
    return found


def _gradients(work: Work) -> Iterator[tuple[str, float]]:
    """What the gradient is worth at the samples themselves."""
    model, y = work.attack.face(work.model), work.data.y.to(work.model.device)  # as the attack sees it
    x = work.data.x.to(model.device)
    oracle = Oracle(model, chunk=work.search.batch_size or 256)
    gradient, _, answers = oracle.gradient(x, lambda s, rows: cross_entropy(s, y[rows]))
    scores = answers.mean(0)
    flat = gradient.flatten(1)
    yield "zero_gradients", float((~flat.isfinite().all(1) | ~(flat != 0).any(1)).float().mean())
    eps = torch.full((len(x),), float(work.threat.eps or 0.0), dtype=torch.float64, device=model.device)
    # As far as a tenth of the ball lets the gradient lead, inside the box.
    ahead = work.threat.within(work.threat.domain.to(model.device)).linear_maximum(gradient, x, 0.1 * eps)
    here, there = (margin(oracle.truth(points).mean(0), y) for points in (x, ahead))
    yield "masked_gradients", float((there <= here).float().mean())
    certain = scores.float().softmax(1).gather(1, y[:, None])[:, 0] == 1
    yield "saturated_loss", float(certain.float().mean())


def _still_rising(work: Work, broken: np.ndarray) -> float:
    """How much the best margin of unbroken samples grew at the end, in its range over the whole path.

    Pintor et al. 2022, indicator 4, on the last tenth of the steps; the median over samples.
    """
    left = np.flatnonzero(~broken)[:FOLLOWED].tolist()
    if not len(left):
        return 0.0
    scores = trace_of(work, left)
    if len(scores) < 2:
        return 0.0
    each = work.data.y[left].repeat_interleave(scores.shape[1] // len(left))
    path = torch.stack([margin(one, each) for one in scores])
    best = path.cummax(0).values
    span = (best[-1] - best[0]).clamp_min(1e-12)
    grown = (best[-1] - best[-1 - max(1, len(path) // 10)]) / span
    return float(grown.median())
