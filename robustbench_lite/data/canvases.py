"""Digits on canvases, placed by a seed: scenes with a label a pixel, strings with one a place, and sets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from robustbench_lite.core.dense import Dense, MultiLabel, Segmentation, Sequence
from robustbench_lite.core.parameters import Count, Share
from robustbench_lite.core.random import Stream
from robustbench_lite.data.builtin import digits
from robustbench_lite.data.data import Options, Raw

TRAIN, TEST = 2000, 500  # canvases of each split, unless a number is given
CELL, DIGIT = 16, 12  # pixels a side: of the cell that a digit stands in, and of the digit
INK = 0.3  # of full: from here on a pixel belongs to its digit
NAMES = tuple(map(str, range(10)))


def digit_scenes(options: Options, canvases: Count | None = None, share: Share = 0.05) -> Raw:
    """32×32 canvases with one to four digits; each pixel's label is its digit, or the background, class 0.

    canvases: how many of each split; share: of the pixels that have to be wrong for a scene to be broken; a
    tenth of them are ink.
    """
    source, ids = digits(options), _ids(options, canvases)
    stream = Stream.of(options.seed, ids).fold("scenes")
    which, moved = _choice(stream, 4, len(source.y))
    shown = _some_cells(stream)

    def take(rows: Tensor) -> Tensor:
        return _scene(_placed(source, which[rows], moved[rows]) * shown[rows, :, None, None], 2)[:, None]

    def answers(rows: Tensor) -> Tensor:
        ink = _placed(source, which[rows], moved[rows]) * shown[rows, :, None, None] >= INK
        return _scene(torch.where(ink, source.y[which[rows]][:, :, None, None] + 1, 0), 2)

    names = ("background", *NAMES)
    return _raw(take, answers, ids, names, Segmentation(share), options)


def digit_sets(options: Options, canvases: Count | None = None) -> Raw:
    """The canvases of `digit_scenes`; the labels are the digits that stand there, any number of them.

    canvases: how many of each split.
    """
    source, ids = digits(options), _ids(options, canvases)
    stream = Stream.of(options.seed, ids).fold("sets")
    which, moved = _choice(stream, 4, len(source.y))
    shown = _some_cells(stream)

    def take(rows: Tensor) -> Tensor:
        return _scene(_placed(source, which[rows], moved[rows]) * shown[rows, :, None, None], 2)[:, None]

    there = functional.one_hot(source.y[which], len(NAMES)) * shown[:, :, None]
    labels = there.amax(1)
    return _raw(take, lambda rows: labels[rows], ids, NAMES, MultiLabel(), options)


def digit_strings(options: Options, canvases: Count | None = None) -> Raw:
    """16×64 canvases with two to four digits from the left; each place's label is its digit, or blank.

    canvases: how many of each split.
    """
    source, ids = digits(options), _ids(options, canvases)
    stream = Stream.of(options.seed, ids).fold("strings")
    which, moved = _choice(stream, 4, len(source.y))
    shown = torch.arange(4) < 2 + stream.fold("length").integers(3, ())[:, None]
    labels = torch.where(shown, source.y[which], 10)

    def take(rows: Tensor) -> Tensor:
        return _scene(_placed(source, which[rows], moved[rows]) * shown[rows, :, None, None], 1)[:, None]

    task = Sequence(blank=10)
    names = (*NAMES, "blank")
    return _raw(take, lambda rows: labels[rows], ids, names, task, options)


def _raw(
    take: Callable[[Tensor], Tensor],
    answers: Callable[[Tensor], Tensor],
    ids: Tensor,
    names: tuple[str, ...],
    task: Dense,
    options: Options,
) -> Raw:
    def place(row: int) -> str:
        return f"{options.split} canvas {row}"

    return Raw(take, torch.zeros_like(ids), names, place, task=task, answers=answers)


def _ids(options: Options, canvases: int | None) -> Tensor:
    return torch.arange(canvases or (TRAIN if options.split == "train" else TEST))


def _some_cells(stream: Stream) -> Tensor:
    """Which of four cells are shown (n, 4): any but none at all, the numbers 1 to 15 as bits."""
    return ((1 + stream.fold("cells").integers(15, ()))[:, None] >> torch.arange(4)) & 1


def _choice(stream: Stream, cells: int, known: int) -> tuple[Tensor, Tensor]:
    """Which digit stands in each cell (n, cells), and how far from its corner (n, cells, 2)."""
    room = CELL - DIGIT + 1
    return stream.fold("digits").integers(known, (cells,)), stream.fold("places").integers(room, (cells, 2))


def _placed(source: Raw, which: Tensor, moved: Tensor) -> Tensor:
    """Cells (n, cells, 16, 16), each with one digit somewhere in it."""
    n, cells = which.shape
    small = source.take(which.flatten())
    large = functional.interpolate(small, (DIGIT, DIGIT), mode="bilinear", align_corners=False)
    room = CELL - DIGIT
    padded = functional.pad(large[:, 0], (room, room, room, room))
    corner = room - moved.reshape(-1, 2)
    span = torch.arange(CELL)
    rows, columns = corner[:, :1] + span, corner[:, 1:] + span
    each = torch.arange(len(padded))[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]].view(n, cells, CELL, CELL).clamp(0, 1)


def _scene(cells: Tensor, rows: int) -> Tensor:
    """Cells (n, rows · columns, 16, 16) side by side as canvases (n, H, W)."""
    n, count = cells.shape[:2]
    grid = cells.view(n, rows, count // rows, CELL, CELL)
    return grid.transpose(2, 3).reshape(n, rows * CELL, count // rows * CELL)
