"""Samples beside what an attack made of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from robustbench_lite.reports.figures.plots import style

ROWS = ("before", "after", "change")


def before_and_after(originals: np.ndarray, adversarial: np.ndarray, records: pd.DataFrame) -> Figure:
    """Images (n, H, W, C) of any range: a column a sample, with the classes that the model sees."""
    with style():
        figure = Figure(figsize=(1.5 * max(1, len(originals)), 4.2), layout="constrained")
        if not len(originals):
            figure.suptitle("nothing was broken")
            return figure
        grid = figure.subplots(3, len(originals), squeeze=False)
        low, high = float(originals.min()), float(originals.max())
        low, high = min(low, float(adversarial.min())), max(high, float(adversarial.max()))
        for place, (before, after) in enumerate(zip(originals, adversarial, strict=True)):
            record, change = records.iloc[place], after - before
            reach = float(np.abs(change).max()) or 1.0
            shown = [(v - low) / ((high - low) or 1.0) for v in (before, after)] + [
                0.5 + change / (2 * reach)
            ]
            titles = (record["clean_prediction"], record["adversarial_prediction"], f"±{reach:.2g}")
            for row, (image, title) in enumerate(zip(shown, titles, strict=True)):
                axes = grid[row, place]
                axes.imshow(image if image.shape[2] == 3 else image.mean(2), cmap="gray", vmin=0, vmax=1)
                axes.set_title(str(title), fontsize=8)
                axes.set_xticks([])
                axes.set_yticks([])
            if place == 0:
                for row, name in enumerate(ROWS):
                    grid[row, 0].set_ylabel(name)
    return figure


def sizes(records: pd.DataFrame) -> Figure:
    """How far the successes went."""
    with style():
        figure = Figure(figsize=(4.2, 2.6), layout="constrained")
        axes = figure.subplots()
        won = records.loc[records["success"].astype(bool), "distance"].astype(float)
        axes.hist(won, bins=min(30, max(5, len(won) // 3)))
        axes.set_xlabel("distance")
        axes.set_ylabel("samples broken")
    return figure
