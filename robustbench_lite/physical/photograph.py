"""Photographs of sheets: their marks found, the paper laid flat, the images cut out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from robustbench_lite.core.errors import InvalidData
from robustbench_lite.physical.sheet import BIT, MARK, NUMBERED, Place, bits, marks

SMALL = 1200  # pixels of the longer side, in which marks are looked for
LEAST = 0.0002  # of the photograph that a mark covers
SOLID = 0.55  # of the box around it that a mark fills, at least
FINE = 4  # points along each side of a pixel that are averaged


@dataclass(frozen=True)
class Photograph:
    """A sheet in a photograph.

    Parameters
    ----------
    colours : ndarray
        (H, W, 3) float32, the paper's white at 1 and its black at 0.
    flat : ndarray
        (3, 3): from centimetres on the paper to pixels, in homogeneous coordinates.
    sheet : int
        Its number.
    code : int, default 0
        Of its print, as `code_of` makes it.
    """

    colours: np.ndarray
    flat: np.ndarray
    sheet: int
    code: int = 0

    def cut(self, place: Place, height: int, width: int) -> np.ndarray:
        """The image at a place (3, height, width): each pixel the mean over the square it was printed as."""
        across = place.left + place.side * (np.arange(width * FINE) + 0.5) / (width * FINE)
        along = place.top + place.side * (np.arange(height * FINE) + 0.5) / (height * FINE)
        points = np.stack(np.meshgrid(across, along), -1).reshape(-1, 2)
        fine = self.at(points).reshape(height, FINE, width, FINE, 3)
        cut: np.ndarray = fine.mean((1, 3)).transpose(2, 0, 1)
        return cut

    def at(self, centimetres: np.ndarray) -> np.ndarray:
        """The colours (m, 3) at points of the paper (m, 2), the paper's white at 1 and its black at 0."""
        place = _mapped(self.flat, centimetres)
        return np.stack(
            [
                ndimage.map_coordinates(self.colours[:, :, c], place.T[::-1], order=1, mode="nearest")
                for c in range(3)
            ],
            1,
        )


def read(file: Path) -> Photograph:
    """The sheet in a photograph.

    Parameters
    ----------
    file : Path
        An image that Pillow reads; the whole sheet is on it, whichever side is up.

    Returns
    -------
    Photograph

    Raises
    ------
    InvalidData
        Where the file is no image, or no sheet is found on it.
    """
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidData(f"{file}: cannot be read as an image: {error}") from None
    found = found_on(np.asarray(image, dtype=np.float32) / 255)
    if found is None:
        raise InvalidData(
            f"{file}: the four marks of a sheet are not to be seen: is all of it on the picture?"
        )
    return found


def found_on(colours: np.ndarray) -> Photograph | None:
    """The sheet in a photograph (H, W, 3) in [0, 1]; None where there is none."""
    factor = max(1, round(max(colours.shape[:2]) / SMALL))
    tall, wide = (size // factor for size in colours.shape[:2])
    whole = colours[: tall * factor, : wide * factor].mean(2)
    small = whole.reshape(tall, factor, wide, factor).mean((1, 3))
    # Light falls off over a page: what is dark is so beside its surroundings.
    bright = ndimage.uniform_filter(ndimage.maximum_filter(small, 15), 101)
    corners = _corners(small < 0.6 * bright)
    if corners is None:
        return None
    for turn in range(4):
        turned = np.roll(corners, -turn, 0)
        flat = plane_map(marks(), (turned + 0.5) * factor - 0.5)
        levels = _balanced(Photograph(colours, flat, 0))
        if levels is not None:
            said = levels.at(bits()).mean(1) < 0.5
            digits = int((said * 2 ** np.arange(len(said))).sum())
            number, code = digits % 2**NUMBERED, digits >> NUMBERED
            return Photograph(levels.colours, flat, number, code) if number else None
    return None


def _corners(dark: np.ndarray) -> np.ndarray | None:
    """The middles of the four outermost solid dark spots (4, 2), right and down, clockwise."""
    named = ndimage.label(dark)[0]
    spots = []
    for number, box in enumerate(ndimage.find_objects(named), 1):
        inside = ndimage.binary_fill_holes(named[box] == number)
        area, whole = int(inside.sum()), inside.size
        tall, wide = inside.shape
        if area >= LEAST * dark.size and area >= SOLID * whole and 0.4 < tall / wide < 2.5:
            down, right = ndimage.center_of_mass(inside)
            spots.append((right + box[1].start, down + box[0].start, area))
    best, most = None, 0.0
    # Of the outermost spots those four count that are alike and span most.
    outer = sorted(spots, key=lambda s: -_outwardness(s, dark.shape))[:12]
    for four in itertools.combinations(outer, 4):
        areas = [spot[2] for spot in four]
        corners = _clockwise(np.array([spot[:2] for spot in four]))
        span = _area(corners)
        if max(areas) < 4 * min(areas) and span > most and span > 20 * max(areas):
            best, most = corners, span
    return best


def _outwardness(spot: tuple[float, float, int], shape: tuple[int, ...]) -> float:
    return float(np.hypot(spot[0] - shape[1] / 2, spot[1] - shape[0] / 2))


def _clockwise(points: np.ndarray) -> np.ndarray:
    """Points (4, 2) in the order in which they lie around their middle, as seen on the picture."""
    away = points - points.mean(0)
    return points[np.argsort(np.arctan2(away[:, 1], away[:, 0]))]


def _area(points: np.ndarray) -> float:
    right, down = points.T
    return float(abs((right * np.roll(down, -1) - down * np.roll(right, -1)).sum()) / 2)


def _balanced(photograph: Photograph) -> Photograph | None:
    """The photograph with the paper's white at 1 and the marks' black at 0; None where it lies otherwise.

    Only the first mark is hollow, which says where the top is.
    """
    middle = photograph.at(marks())
    around = marks()[:, None] + 0.375 * MARK * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    black = np.median(photograph.at(around.reshape(-1, 2)), 0)
    white = middle[0]
    beside = np.median(photograph.at(bits() + np.array([0, 1.2 * BIT])), 0)  # paper, below the number
    if not (white > black + 0.25 * (beside - black)).all() or (beside <= black).any():
        return None
    if (middle[1:].mean(1) > (black + 0.5 * (beside - black)).mean()).any():
        return None
    levels = (photograph.colours - black) / (beside - black)
    return Photograph(levels.astype(np.float32), photograph.flat, photograph.sheet)


def plane_map(paper: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """The map (3, 3) of the plane that takes four points (4, 2) to four others."""
    rows, wanted = [], []
    for (x, y), (u, v) in zip(paper, picture, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        wanted += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(wanted)), 1.0).reshape(3, 3)


def _mapped(flat: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (m, 2) under a map of the plane."""
    there = np.concatenate([points, np.ones((len(points), 1))], 1) @ flat.T
    place: np.ndarray = there[:, :2] / there[:, 2:]
    return place
