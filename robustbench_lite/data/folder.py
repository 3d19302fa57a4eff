"""A folder of images, one sub-folder a class, decoded in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from robustbench_lite.core.errors import InvalidData, InvalidParameter
from robustbench_lite.core.npz import require_room
from robustbench_lite.core.parameters import Count, Fraction
from robustbench_lite.data.data import Options, Raw
from robustbench_lite.data.room import room_for
from robustbench_lite.data.split import one_of

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
Origin = TypeVar("Origin")  # whatever an image is read from, as text what it is called
TESTS = ("test", "val", "valid", "validation")  # names of the sub-folder beside train


def folder(
    options: Options,
    path: str,
    size: Count | None = None,
    crop: Count | None = None,
    grey: bool = False,
    split: Fraction | None = None,
) -> Raw:
    """PATH/class/image, or PATH/train/class/image and PATH/test/class/image (or val, valid, validation).

    size: the shorter side after resizing; crop: the side of the square cut from the middle; grey: one
    channel instead of three; split: the share of the images that is for testing, where they come in one
    piece; all are, unless it is given.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise InvalidData(f"{path}: is not a folder")
    test = next((name for name in TESTS if (root / name).is_dir()), None)
    divided = test is not None and (root / "train").is_dir()
    if divided and split is not None:
        raise InvalidParameter("split", split, f"left out: {path} has folders train and {test}")
    start = root / (test if divided and test and options.split == "test" else "train") if divided else root
    classes = _class_folders(root / "train" if divided else root)
    if classes == ["images", "masks"]:
        raise InvalidData(f"{path}: has images and masks, not classes: say masks:{path}")
    if len(classes) < 2:
        raise InvalidData(f"{path}: needs two sub-folders or more, one a class; has {len(classes)}")
    files, labels, others = [], [], 0
    for number, name in enumerate(classes):
        inside = [p for p in (start / name).rglob("*") if p.is_file() and not p.name.startswith(".")]
        found = sorted(p for p in inside if p.suffix.lower() in SUFFIXES)
        files += found
        others += len(inside) - len(found)
        labels += [number] * len(found)
    if not files:
        raise InvalidData(f"{start}: has no images ({', '.join(sorted(SUFFIXES))}) in its sub-folders")
    y = torch.tensor(labels)
    if not divided:
        rows = one_of(options.split, y, options.seed, path, split)
        files, y = [files[i] for i in rows.tolist()], y[rows]
    notes = [f"{path}: {others} files that are no images were left out"] * bool(others)
    unknown = sorted(set(_class_folders(start)) - set(classes)) if divided else []
    left = f"{start}: {', '.join(unknown)} are no classes of the training split, and were left out"
    notes += [left] * bool(unknown)

    def take(rows: Tensor) -> Tensor:
        return decoded_files([files[i] for i in rows.tolist()], lambda file: decode(file, size, crop, grey))

    return Raw(take, y, tuple(classes), lambda i: str(files[i]), notes=tuple(notes))


def _class_folders(root: Path) -> list[str]:
    """The sub-folders of a folder, those that systems hide or leave behind not among them."""
    left_behind = (".", "__MACOSX", "__pycache__")
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(left_behind))


def decoded_files(files: Sequence[Path], how: Callable[[Path], Tensor]) -> Tensor:
    """Files as one tensor, read in parallel; raises `InvalidData` naming the first of another size."""
    return decoded([(range(len(files)), files)], len(files), how, f"{files[0].parent} and others")


def decoded(
    parts: Iterable[tuple[Sequence[int], Sequence[Origin]]],
    count: int,
    how: Callable[[Origin], Tensor],
    what: str,
) -> Tensor:
    """Images as one tensor of `count` rows, a part after the other: its rows, and what is read there."""
    found, first = torch.empty(0), None
    with ThreadPoolExecutor() as pool:
        for rows, images in parts:
            if first is None:
                image, first = how(images[0]), images[0]
                found = room_for((count, *image.shape), what, image.dtype)

            def put(row: int, one: Origin, begin: Origin = first, found: Tensor = found) -> None:
                image = how(one)
                if image.shape != found.shape[1:]:
                    own, other = (tuple(i.shape[-2:]) for i in (image, found))
                    raise InvalidData(f"{one}: is {own}, {begin} is {other}; give size and crop")
                found[row] = image

            for _ in pool.map(put, rows, images):  # the first that fails is told
                pass
    return found


def decode(
    file: object,
    size: int | None = None,
    crop: int | None = None,
    grey: bool = False,
    content: IO[bytes] | None = None,
) -> Tensor:
    """An image as (C, H, W) float32 in [0, 1]; raises `InvalidData` when it cannot be read.

    file: its path, or what it is called where its content is given.
    """
    try:
        with Image.open(content or str(file)) as opened:
            if size is not None:
                scale = size / min(opened.size)
                require_room(12.0 * opened.size[0] * opened.size[1] * scale**2, f"{file}, size {size}")
            deep = opened.mode.startswith(("I", "F"))
            image = _deep(opened, file) if deep else opened.convert("L" if grey else "RGB")
    except InvalidData:
        raise
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidData(f"{file}: cannot be read as an image: {error}") from error
    image = cropped(resized(image, size, Image.Resampling.BILINEAR), crop, file)
    array = torch.from_numpy(np.array(image))
    array = array[None] if array.dim() == 2 else array.permute(2, 0, 1)
    if deep:
        return array.expand(1 if grey else 3, -1, -1).clamp(0, 1)
    return array.float() / 255


def resized(image: Image.Image, size: int | None, how: Image.Resampling) -> Image.Image:
    """An image whose shorter side is of a size; as it is where none is given."""
    if size is None:
        return image
    scale = size / min(image.size)
    wide, high = (max(1, round(side * scale)) for side in image.size)
    return image.resize((wide, high), how)


def cropped(image: Image.Image, crop: int | None, file: object) -> Image.Image:
    """The square in the middle of an image; raises `InvalidData` where it is too small."""
    if crop is None:
        return image
    if crop > min(image.size):
        raise InvalidData(f"{file}: is {image.size[0]}×{image.size[1]}, too small for crop = {crop}")
    left, top = (image.size[0] - crop) // 2, (image.size[1] - crop) // 2
    return image.crop((left, top, left + crop, top + crop))


def _deep(opened: Image.Image, file: object) -> Image.Image:
    """A grey image of 16 bits, or of floats in [0, 1], as floats in [0, 1]."""
    values = np.array(opened).astype(np.float32)
    if opened.mode != "F":
        values /= 65535
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        allowed = "16-bit numbers, or floats in [0, 1]"
        low, high = values.min(), values.max()
        raise InvalidData(f"{file}: holds values from {low:g} to {high:g}; must be {allowed}")
    return Image.fromarray(values)
