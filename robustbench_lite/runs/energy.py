"""What a device has used up to now, where its driver tells."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")  # Linux: a counter a package, of Intel's and AMD's processors


def joules(device: torch.device) -> float:
    """The counter of a device's energy; NaN where none can be read. Differences of two are what matters.

    Of a GPU by NVML (the package nvidia-ml-py); of a CPU by the counters of its packages, which Linux may
    keep to administrators, and which begin anew after some hours.
    """
    if device.type == "cuda":
        return _of_gpu(device.index or torch.cuda.current_device())
    return _of_packages()


def used(before: float, after: float) -> float:
    """Joules between two readings; NaN where a counter is not told or began anew."""
    return after - before if after >= before else math.nan


def _of_gpu(index: int) -> float:
    try:
        import pynvml
    except ImportError:
        return math.nan
    try:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(index).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except pynvml.NVMLError:
        return math.nan


def _of_packages() -> float:
    found = math.nan
    for counter in sorted(POWERCAP.glob("*-rapl:*/energy_uj")):
        if counter.parent.name.count(":") != 1:  # a part of a package
            continue
        with contextlib.suppress(OSError, ValueError):
            found = int(counter.read_text()) / 1e6 + (0.0 if math.isnan(found) else found)
    return found
