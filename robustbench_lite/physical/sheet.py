"""Sheets of images at a size in centimetres, with marks by which a photograph of one is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from robustbench_lite.core.errors import require

PAPER = 21.0, 29.7  # centimetres: A4, upright
DPI = 300
MARK = 1.0  # the side of the marks in the corners
EDGE = 1.0  # of the paper, that stays white around the marks
GAP = 0.9  # between images, with room for a caption
NUMBERED, CODED, BIT = 8, 16, 0.5  # squares that say the sheet's number and its print's code; their side


@dataclass(frozen=True)
class Place:
    """Where an image lies on a sheet: the number of the sheet, and its corner and side in centimetres."""

    sheet: int
    left: float
    top: float
    side: float


def marks() -> np.ndarray:
    """The middles of the four marks (4, 2), right and down in centimetres, clockwise from the hollow one."""
    near, right, bottom = EDGE + MARK / 2, PAPER[0] - EDGE - MARK / 2, PAPER[1] - EDGE - MARK / 2
    return np.array([[near, near], [right, near], [right, bottom], [near, bottom]])


def bits() -> np.ndarray:
    """The middles of the squares that say number and code (m, 2), the smallest digit first."""
    count = NUMBERED + CODED
    first = PAPER[0] / 2 - count * BIT / 2 + BIT / 2
    return np.stack([first + BIT * np.arange(count), np.full(count, EDGE + MARK / 2)], 1)


def code_of(what: str, number: int) -> int:
    """The code of a sheet: of what was printed and of its number, so that a digit misread is seen."""
    digest = hashlib.sha256(f"{what} {number}".encode()).digest()
    return int.from_bytes(digest[: CODED // 8], "big")


def arranged(count: int, side: float) -> list[Place]:
    """Places for images of a side, an even number to a row, so that pairs stay together.

    Parameters
    ----------
    count : int
        How many.
    side : float
        In centimetres: from 1 up to what leaves room for two in a row.

    Returns
    -------
    list of Place

    Raises
    ------
    InvalidParameter
        For another side, or more sheets than can be numbered.
    """
    most = (PAPER[0] - 2 * EDGE - GAP) / 2
    require(1 <= side <= most, "size", side, f"from 1 to {most:g} cm")
    columns = int((PAPER[0] - 2 * EDGE + GAP) / (side + GAP)) // 2 * 2
    first = EDGE + MARK + GAP
    rows = int((PAPER[1] - first - EDGE - MARK) / (side + GAP))
    require(count <= columns * rows * (2**NUMBERED - 1), "samples", count, "few enough to number the sheets")
    places = []
    for number in range(count):
        sheet, place = divmod(number, columns * rows)
        row, column = divmod(place, columns)
        left, top = EDGE + column * (side + GAP), first + row * (side + GAP)
        places.append(Place(sheet + 1, left, top, side))
    return places


def drawn(
    images: Sequence[np.ndarray], captions: Sequence[str], places: Sequence[Place], what: str = ""
) -> list[Image.Image]:
    """The sheets of a print, one image at every place, its pixels as squares.

    Parameters
    ----------
    images : sequence of ndarray
        (C, H, W) in [0, 1], of 1 or 3 channels.
    captions : sequence of str
        Written below them.
    places : sequence of Place
        As `arranged` makes them.
    what : str, default ""
        What is printed, in words that no other print has: its code stands on every sheet.

    Returns
    -------
    list of PIL.Image.Image
    """
    made = [_empty(number, what) for number in range(1, max((p.sheet for p in places), default=0) + 1)]
    for image, caption, place in zip(images, captions, places, strict=True):
        levels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
        shown = Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels).convert("RGB")
        side = _dots(place.side)
        sheet = made[place.sheet - 1]
        sheet.paste(
            shown.resize((side, side), Image.Resampling.NEAREST), (_dots(place.left), _dots(place.top))
        )
        at = _dots(place.left), _dots(place.top + place.side + 0.05)
        ImageDraw.Draw(sheet).text(at, caption, fill="black", font_size=_dots(0.25))
    return made


def _empty(number: int, what: str) -> Image.Image:
    """A sheet with its marks, its number and its print's code."""
    sheet = Image.new("RGB", (_dots(PAPER[0]), _dots(PAPER[1])), "white")
    pen = ImageDraw.Draw(sheet)
    for place, middle in enumerate(marks()):
        pen.rectangle(_around(middle, MARK), fill="black")
        if not place:
            pen.rectangle(_around(middle, MARK / 2), fill="white")
    said = number | code_of(what, number) << NUMBERED
    for place, middle in enumerate(bits()):
        if said >> place & 1:
            pen.rectangle(_around(middle, BIT), fill="black")
    return sheet


def _around(middle: np.ndarray, side: float) -> tuple[int, int, int, int]:
    left, top = middle - side / 2
    return _dots(left), _dots(top), _dots(left + side) - 1, _dots(top + side) - 1


def _dots(centimetres: float) -> int:
    return round(centimetres / 2.54 * DPI)
