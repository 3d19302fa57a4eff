"""What the judge says of every sample, in words that can be counted."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

import numpy as np


class Reason(StrEnum):
    """Why a point is not admissible, or what is to be known of one that is (`ROUNDING`)."""

    TYPE = "no tensor"
    COUNT = "another number of samples"
    SHAPE = "another shape"
    DTYPE = "another type of number"
    NOT_FINITE = "not finite"
    OUTSIDE_BOX = "outside the box"
    NOT_ALLOWED = "changes what may not change"
    OUTSIDE_BALL = "outside the ball"
    ROUNDING = "within rounding"
    UNATTACKED = "not attacked"


class Outcome(StrEnum):
    """What became of a sample.

    wrong: the model had it wrong by itself, or where an answer has positions said the target already; held:
    it resisted; broken; rejected: the model refused to answer; nan: the model answered with NaN; unattacked:
    a limit left it out, and it counts in no rate.
    """

    WRONG = "wrong"
    HELD = "held"
    BROKEN = "broken"
    REJECTED = "rejected"
    NAN = "nan"
    UNATTACKED = "unattacked"


@dataclass(frozen=True)
class Verdict:
    """One entry a sample (n,). NaN, -1 or None stand where there is nothing to say.

    clean_rate, success_rate: shares of the draws of a stochastic model in which it was right without an
    attack, and in which the goal was met; else 0 or 1. valid: the point may be looked at and lies inside the
    threat; reason_kind, reason: why not, or a mark. success: valid, goal met in more than half of the draws,
    and the model was right before. second_look, eight_bit: whether a success stood when looked at again in
    another batch size, with other draws, and after rounding to 256 levels. distance: as the threat measures
    it; l0 … linf: of the input's change. All float64. Where an answer has positions there is no class of the
    sample (None): clean_wrong_share, wrong_share are the shares of positions that were wrong before and are
    now, clean_error, error what the task counts as its loss (NaN for classes).
    """

    clean_prediction: np.ndarray
    clean_rate: np.ndarray
    adversarial_prediction: np.ndarray
    target: np.ndarray
    success: np.ndarray
    success_rate: np.ndarray
    outcome: np.ndarray
    clean_wrong_share: np.ndarray
    wrong_share: np.ndarray
    clean_error: np.ndarray
    error: np.ndarray
    valid: np.ndarray
    reason_kind: np.ndarray
    reason: np.ndarray
    second_look: np.ndarray
    eight_bit: np.ndarray
    distance: np.ndarray
    l0: np.ndarray
    l0_values: np.ndarray
    l1: np.ndarray
    l2: np.ndarray
    linf: np.ndarray
    clean_confidence: np.ndarray
    adversarial_confidence: np.ndarray


def stack(verdicts: list[Verdict]) -> Verdict:
    """The verdicts on parts of a set, as one."""
    joined = {f.name: np.concatenate([getattr(v, f.name) for v in verdicts]) for f in fields(Verdict)}
    return Verdict(**joined)
