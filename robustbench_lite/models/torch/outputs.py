"""What networks return, as scores."""

from __future__ import annotations

import torch
from torch import Tensor

from robustbench_lite.core.errors import InvalidModel


def as_scores(output: object) -> Tensor:
    """Scores (n, K) of a tensor (n, K), (n, 1) or (n,), of what begins with one, or of what has `.logits`."""
    if not isinstance(output, Tensor):
        if isinstance(getattr(output, "logits", None), Tensor):
            output = output.logits  # type: ignore[attr-defined]
        elif isinstance(output, tuple | list) and output:
            return as_scores(output[0])
        elif isinstance(output, dict) and output:
            return as_scores(output.get("logits", next(iter(output.values()))))
    if not isinstance(output, Tensor) or output.dim() not in (1, 2):
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InvalidModel(f"returns {what}; must be scores (n, K), one logit (n,), a tuple or .logits")
    scores = output.float() if output.dtype != torch.float64 else output
    if scores.dim() == 1 or scores.shape[1] == 1:
        logit = scores.reshape(-1, 1)
        scores = torch.cat([torch.zeros_like(logit), logit], 1)
    return scores
