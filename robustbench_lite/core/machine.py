"""What the machine tells of itself."""

from __future__ import annotations

import sys

import torch


def peak_memory(device: torch.device) -> float:
    """The most memory held, in bytes: of a GPU's tensors since `forget_peak`, of the process since it began.

    NaN where the system does not tell.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    try:
        import resource  # not on every system
    except ImportError:
        return float("nan")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most if sys.platform == "darwin" else most * 1024)


def forget_peak(device: torch.device) -> None:
    """Measure a GPU's peak from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
