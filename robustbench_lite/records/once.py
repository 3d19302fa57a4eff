"""Arrays that are made once: kept in a file named by what determines them, and read from there afterwards."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from robustbench_lite.core.errors import InvalidData
from robustbench_lite.core.npz import read_arrays, write_arrays
from robustbench_lite.records.schema import whole

log = logging.getLogger(__name__)


def once(
    file: Path, make: Callable[[], Mapping[str, np.ndarray]], worth: float = 0.0
) -> Mapping[str, np.ndarray]:
    """What the file holds, or else what `make` makes; worth: seconds that takes at least, to be kept."""
    try:
        if file.exists():
            return read_arrays(file)
    except (InvalidData, OSError) as error:
        log.warning("made anew: %s", error)
    began = time.perf_counter()
    made = make()
    if time.perf_counter() - began >= worth:
        try:
            with whole(file) as temporary:
                write_arrays(temporary, made)
        except OSError as error:  # what was made is good all the same
            log.warning("%s: cannot be kept: %s", file, error)
    return made
