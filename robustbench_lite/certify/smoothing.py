"""Randomised smoothing: radii that hold with a probability, from how often noisy copies agree."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from scipy.stats import beta, norm
from torch import Tensor

from robustbench_lite.certify.certifier import Bounds, Question
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model, reference_precision
from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.random import Stream
from robustbench_lite.core.structure import Noise
from robustbench_lite.core.threat import Norm, Threat

ALPHA = 0.001  # the chance that a radius is too large
CHOOSING = 100  # copies that choose the class
DRAWS = 10_000  # copies that count how often it wins, at full effort
FEWEST = 500


class SmoothingBounds:
    """A probabilistic distance of votes under Gaussian noise (Cohen, Rosenfeld & Kolter 2019, algorithm 2).

    In l2 it is sigma times the normal quantile of a lower confidence bound on the share of the true class; in
    l1 no less, since no vector is shorter in l2; in linf that over the root of the number of features.
    """

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        """None for votes under Gaussian noise, in l2, l1 and linf."""
        if not isinstance(model.structure, Noise) or threat.norm not in (Norm.L2, Norm.L1, Norm.LINF):
            return f"{model.name} is no vote under Gaussian noise in l2, l1 or linf"
        return None

    def bounds(self, question: Question) -> Bounds:
        """0 where the class that the copies choose is another, or does not win half of them for certain."""
        held = question.model.structure
        assert isinstance(held, Noise)
        draws = max(FEWEST, int(DRAWS * question.effort))
        first = counts(question, "choose", 0, CHOOSING)
        chosen = first.argmax(1)
        won = torch.zeros_like(question.y)
        for begin in range(0, draws, CHOOSING):
            question.progress(begin / draws)
            more = counts(question, "count", begin, min(CHOOSING, draws - begin))
            won += more.gather(1, chosen[:, None])[:, 0]
        share = lower_share(won.cpu().numpy(), draws)
        radius = np.where(share > 0.5, held.sigma * norm.ppf(np.maximum(share, 0.5)), 0.0)
        if question.norm is Norm.LINF:
            radius = radius / math.sqrt(question.x0[0].numel())
        distance = torch.from_numpy(radius).to(question.x0.device) * (chosen == question.y)
        none = torch.zeros_like(distance, dtype=torch.bool)
        return Bounds(distance, none, f"smoothing, {draws} draws", alpha=ALPHA)


def counts(question: Question, tag: str, begin: int, draws: int) -> Tensor:
    """How often each class wins among noisy copies of every sample (n, K), the draws from `begin` on."""
    model, classes = question.model, question.model.num_classes
    found = torch.zeros(len(question.y), classes, dtype=torch.int64, device=question.y.device)
    stream = Stream.of(0, _keys(question.x0)).fold("certify", tag)
    oracle = Oracle(model)
    with torch.no_grad(), reference_precision():
        for draw in range(begin, begin + draws):
            answers = oracle.truth(question.x0, stream.fold(draw), 1)[0]
            said = model.prediction(answers)
            found += torch.nn.functional.one_hot(said.clamp_min(0), classes) * (said >= 0)[:, None]
    return found


def lower_share(won: np.ndarray, draws: int, alpha: float = ALPHA) -> np.ndarray:
    """The one-sided lower confidence bound on a share (Clopper & Pearson 1934).

    Examples
    --------
    >>> round(float(lower_share(np.array([1000]), 1000)[0]), 4)
    0.9931
    """
    low: np.ndarray = beta.ppf(alpha, np.maximum(won, 1), draws - np.maximum(won, 1) + 1)
    return np.where(won > 0, low, 0.0)


def _keys(x: Tensor) -> Tensor:
    """A number for each input that is the same in every batch and order (n,) int64."""
    rows = x.detach().cpu().flatten(1).numpy()
    digests = [hashlib.sha256(row.tobytes()).digest()[:8] for row in rows]
    found = [int.from_bytes(digest, "little", signed=True) for digest in digests]
    return torch.tensor(found, device=x.device)
