"""Room for samples: in memory where they fit, else in a file that the system reads and drops as it likes."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from robustbench_lite.core.errors import InvalidData
from robustbench_lite.core.npz import memory

SHARE = 0.25  # of the machine's memory that samples may fill
PLACE = "ROBUST_SCRATCH"  # environment variable: the folder of files that hold samples; else the system's


def room_for(shape: Sequence[int], what: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """An empty tensor of a shape.

    Beyond a quarter of the machine's memory it lies in a file without a name, which is gone with the
    process; each worker has one of its own. Raises `InvalidData` where the disk has no room either.
    """
    size = dtype.itemsize * math.prod(shape)
    if size <= SHARE * memory():
        return torch.empty(tuple(shape), dtype=dtype)
    folder = Path(os.environ.get(PLACE) or tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if size > free:
        left = f"{folder} has {free / 2**30:.3g} left ({PLACE} names another)"
        raise InvalidData(f"{what}: would take {size / 2**30:.3g} GiB; {left}")
    handle, name = tempfile.mkstemp(dir=folder, prefix="robust-", suffix=".samples")
    try:
        if hasattr(os, "posix_fallocate"):  # what is written later finds its room
            os.posix_fallocate(handle, 0, size)
    except OSError as error:
        Path(name).unlink()
        raise InvalidData(f"{what}: would take {size / 2**30:.3g} GiB: {folder}: {error.strerror}") from None
    finally:
        os.close(handle)
    try:
        held = torch.from_file(name, shared=True, size=math.prod(shape), dtype=dtype)
    finally:
        with contextlib.suppress(OSError):  # Windows keeps the name as long as the file is in use
            Path(name).unlink()
    return held.view(tuple(shape))
