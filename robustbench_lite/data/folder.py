"""A folder of images, one sub-folder a class, decoded in parallel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from robustbench_lite.core.errors import InvalidData, require
from robustbench_lite.data.data import Options, Raw
from robustbench_lite.data.split import divide

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})


def folder(
    options: Options, path: str, size: int | None = None, crop: int | None = None, grey: bool = False
) -> Raw:
    """PATH/class/image, or PATH/train/class/image and PATH/test/class/image.

    size: the shorter side after resizing; crop: the side of the square cut from the middle; grey: one
    channel instead of three.
    """
    require(size is None or size >= 1, "size", size, "at least 1")
    require(crop is None or crop >= 1, "crop", crop, "at least 1")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise InvalidData(f"{path}: is not a folder")
    divided = (root / "train").is_dir() and (root / "test").is_dir()
    classes = sorted(p.name for p in (root / "train" if divided else root).iterdir() if p.is_dir())
    if len(classes) < 2:
        raise InvalidData(f"{path}: needs two sub-folders or more, one a class; has {len(classes)}")
    start = root / options.split if divided else root
    files, labels = [], []
    for number, name in enumerate(classes):
        inside = start / name
        found = (
            sorted(p for p in inside.rglob("*") if p.suffix.lower() in SUFFIXES) if inside.is_dir() else []
        )
        files += found
        labels += [number] * len(found)
    if not files:
        raise InvalidData(f"{start}: has no images ({', '.join(sorted(SUFFIXES))}) in its sub-folders")
    y = torch.tensor(labels)
    if not divided:
        train, test = divide(y, options.seed)
        rows = train if options.split == "train" else test
        files, y = [files[i] for i in rows.tolist()], y[rows]

    def take(rows: Tensor) -> Tensor:
        chosen = [files[i] for i in rows.tolist()]
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(lambda file: decode(file, size, crop, grey), chosen))
        for file, image in zip(chosen, images, strict=True):
            if image.shape != images[0].shape:
                one, other = (tuple(i.shape[1:]) for i in (images[0], image))
                raise InvalidData(f"{file}: is {other}, {chosen[0]} is {one}; give size and crop")
        return torch.stack(images)

    return Raw(take, y, tuple(classes), lambda i: str(files[i]))


def decode(file: Path, size: int | None = None, crop: int | None = None, grey: bool = False) -> Tensor:
    """An image file as (C, H, W) float32 in [0, 1]; raises `InvalidData` when it cannot be read."""
    try:
        with Image.open(file) as opened:
            image = opened.convert("L" if grey else "RGB")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidData(f"{file}: cannot be read as an image: {error}") from error
    if size is not None:
        scale = size / min(image.size)
        wide, high = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((wide, high), Image.Resampling.BILINEAR)
    if crop is not None:
        if crop > min(image.size):
            raise InvalidData(f"{file}: is {image.size[0]}×{image.size[1]}, too small for crop = {crop}")
        left, top = (image.size[0] - crop) // 2, (image.size[1] - crop) // 2
        image = image.crop((left, top, left + crop, top + crop))
    array = torch.from_numpy(np.array(image))
    array = array[None] if array.dim() == 2 else array.permute(2, 0, 1)
    return array.float() / 255
