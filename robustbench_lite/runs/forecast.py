"""How long a run would take on many devices, and what it would cost, by the times of `robust bench`."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import pandas as pd

from robustbench_lite.core.errors import RobustError, require
from robustbench_lite.runs.plan import slices

COLUMNS = ["model", "attack", "threat", "device", "samples", "passes", "device_hours", "cost"]


@dataclass(frozen=True)
class Forecast:
    """What a run would take.

    Parameters
    ----------
    table : DataFrame
        A row a model, attack and threat: samples, passes, hours of one device, cost.
    hours : float
        From the first job to the last, on all devices.
    device_hours : float
        Of all devices together.
    cost : float
        In whatever the price was in; 0 where none was said.
    """

    table: pd.DataFrame
    hours: float
    device_hours: float
    cost: float


def forecast(times: pd.DataFrame, samples: int, devices: int, price: float = 0.0) -> Forecast:
    """What the searches that were timed would take on more samples and devices.

    Success ended nothing when they were timed, so that this is the most that the searches take; the judge,
    bounds and loading come on top. Each device takes the next job in the order of the table.

    Parameters
    ----------
    times : DataFrame
        What `bench` returns, of one device and setting.
    samples : int
        At least 1.
    devices : int
        As fast as the one that was timed; at least 1.
    price : float, default 0
        Of an hour of a device.

    Raises
    ------
    RobustError
        Where the times are of several devices or settings.
    InvalidParameter
        For counts below 1, or a price below 0.

    Examples
    --------
    >>> row = {"model": "m", "attack": "pgd", "threat": "linf:0.1", "device": "cuda", "asked": "auto",
    ...        "images_per_second": 10.0, "passes_per_second": 800.0}
    >>> forecast(pd.DataFrame([row]), 36_000, 1, 2.0).cost
    2.0
    """
    require(samples >= 1, "samples", samples, "at least 1")
    require(devices >= 1, "devices", devices, "at least 1")
    require(price >= 0, "price", price, "at least 0")
    for name in ("device", "asked"):
        kinds = list(dict.fromkeys(times[name]))
        if len(kinds) > 1:
            raise RobustError(f"times of several: {name}: {'; '.join(map(str, kinds))}; choose one")
    rows = []
    jobs: list[float] = []
    for row in times.to_dict("records"):
        each = 1 / float(row["images_per_second"])
        hours = samples * each / 3600
        passes = round(samples * each * float(row["passes_per_second"]))
        kept = {name: row[name] for name in COLUMNS[:4]}
        rows.append(
            {**kept, "samples": samples, "passes": passes, "device_hours": hours, "cost": hours * price}
        )
        jobs += [(end - begin) * each / 3600 for begin, end in slices(samples)]
    ends = [0.0] * devices
    for job in jobs:
        heapq.heapreplace(ends, ends[0] + job)
    total = sum(float(str(row["device_hours"])) for row in rows)
    return Forecast(pd.DataFrame(rows, columns=COLUMNS), max(ends), total, total * price)
