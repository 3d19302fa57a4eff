"""What a model looks at, before and after an attack, side by side; and where samples lie for a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robustbench_lite.reports.figures.plots import ACCENT, SERIES, style


def looks(
    title: str, images: np.ndarray, captions: Sequence[str], maps: Mapping[str, np.ndarray],
    inverted: np.ndarray | None,
) -> Figure:  # fmt: skip
    """A row before, a row after: the image (2, C, H, W), maps (2, H, W), an image with its embedding."""
    heads = ["", *maps, *(["same embedding"] if inverted is not None else [])]
    shade = mpl.colors.LinearSegmentedColormap.from_list("accent", ["#ffffff", ACCENT])
    with style():
        figure = Figure(figsize=(1.35 * len(heads) + 0.3, 3.4), layout="constrained")
        grid: list[list[Axes]] = figure.subplots(2, len(heads), squeeze=False).tolist()
        for row, axes in enumerate(grid):
            _image(axes[0], images[row])
            axes[0].set_xlabel(captions[row], fontsize=8)
            for column, name in enumerate(maps, 1):
                axes[column].imshow(
                    maps[name][row], cmap=shade, vmin=0, vmax=float(maps[name][row].max()) or 1.0
                )
            if inverted is not None:
                _image(axes[-1], inverted[row])
            for one, head in zip(axes, heads, strict=True):
                one.set(xticks=[], yticks=[])
                if not row:
                    one.set_title(head, fontsize=8)
        figure.suptitle(title, fontsize=9)
    return figure


def cloud(
    title: str, points: np.ndarray, labels: np.ndarray, names: Sequence[str], ways: Mapping[str, np.ndarray]
) -> Figure:
    """Samples (n, 2) in the colours of their classes, and the ways of attacks (steps, 2) through them."""
    with style():
        figure = Figure(figsize=(6.4, 4.6), layout="constrained")
        axes = figure.subplots()
        for label in np.unique(labels):
            part = points[labels == label]
            colour, marker = SERIES[label % len(SERIES)], "os^Dv"[(label // len(SERIES)) % 5]
            axes.plot(
                part[:, 0], part[:, 1], marker, color=colour, ms=4, mew=0, alpha=0.5, label=names[label]
            )
        for number, (name, way) in enumerate(ways.items()):
            axes.plot(way[:, 0], way[:, 1], ".-", color="#202020", lw=1.0, ms=3)
            axes.annotate(f"{number + 1}", way[-1], fontsize=8, weight="bold")
            axes.plot([], [], "-", color="#202020", label=f"{number + 1}: {name}")
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=9)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def sheet(title: str, images: np.ndarray, captions: Sequence[str]) -> Figure:
    """Images (m, C, H, W), each with its caption, ten to a row."""
    rows = -(-len(images) // 10)
    columns = min(10, len(images))
    with style():
        figure = Figure(figsize=(0.3 + 1.2 * columns, 0.4 + 1.45 * rows), layout="constrained")
        grid: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in grid:
            axes.set_axis_off()
        for axes, image, caption in zip(grid, images, captions, strict=False):
            _image(axes, image)
            axes.set_title(caption, fontsize=8)
        figure.suptitle(title, fontsize=9)
    return figure


def _image(axes: Axes, image: np.ndarray) -> None:
    shown = np.clip(image, 0, 1).transpose(1, 2, 0)
    axes.imshow(shown[:, :, 0] if shown.shape[2] == 1 else shown, cmap="gray", vmin=0, vmax=1)
