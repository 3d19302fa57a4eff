"""Times that can be compared: taken in turn, in one process."""

import statistics
import time
from collections.abc import Callable


def interleaved(first: Callable[[], object], second: Callable[[], object], rounds: int = 15) -> float:
    """The median of the first's time over the median of the second's, run in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for round_ in range(rounds + 2):
        for run, kept in zip((first, second), times, strict=True):
            time.sleep(0.05)  # until the other side's threads no longer spin
            began = time.perf_counter()
            run()
            if round_ >= 2:  # the first ones warm up
                kept.append(time.perf_counter() - began)
    return statistics.median(times[0]) / statistics.median(times[1])


def seconds(run: Callable[[], object]) -> float:
    """How long one run takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
