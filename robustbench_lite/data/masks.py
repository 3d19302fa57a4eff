"""A folder of images and of masks with the same names: segmentation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from robustbench_lite.core.dense import Segmentation
from robustbench_lite.core.errors import InvalidData, InvalidParameter
from robustbench_lite.core.npz import require_room
from robustbench_lite.core.parameters import Amount, Count, Fraction, Share
from robustbench_lite.core.task import NOTHING
from robustbench_lite.data.data import Options, Raw
from robustbench_lite.data.folder import SUFFIXES, TESTS, cropped, decode, decoded_files, resized
from robustbench_lite.data.split import one_of


def masks(
    options: Options,
    path: str,
    size: Count | None = None,
    crop: Count | None = None,
    grey: bool = False,
    split: Fraction | None = None,
    share: Share = 0.99,
    void: Amount = 255,
) -> Raw:
    """PATH/images/NAME.png and PATH/masks/NAME.png, or both below PATH/train and PATH/test (or val).

    A mask is a grey or palette image whose values are classes. size: the shorter side after resizing, of
    masks to the nearest pixel; crop: the side of the square cut from the middle; grey: one channel instead of
    three; split: the share that is for testing, where there are no such folders; share: of the pixels that
    have to be wrong for an image to be broken; void: the value of pixels without a label.
    """
    root = Path(path).expanduser()
    test = next((name for name in TESTS if (root / name).is_dir()), None)
    divided = test is not None and (root / "train").is_dir()
    if divided and split is not None:
        raise InvalidParameter("split", split, f"left out: {path} has folders train and {test}")
    homes = [root / "train", root / str(test)] if divided else [root]
    every = [_pairs(home) for home in homes]
    known = _classes([mask for pairs in every for _, mask in pairs], void)
    pairs = every[0] if not divided or options.split == "train" else every[1]
    if not divided:
        none = torch.zeros(len(pairs), dtype=torch.int64)
        rows = one_of(options.split, none, options.seed, path, split)
        pairs = [pairs[i] for i in rows.tolist()]

    def take(rows: Tensor) -> Tensor:
        return decoded_files(
            [pairs[i][0] for i in rows.tolist()], lambda file: decode(file, size, crop, grey)
        )

    def answers(rows: Tensor) -> Tensor:
        return decoded_files([pairs[i][1] for i in rows.tolist()], lambda file: _mask(file, void, size, crop))

    def place(row: int) -> str:
        return str(pairs[row][1])

    names = tuple(map(str, range(known)))
    none = torch.zeros(len(pairs), dtype=torch.int64)
    return Raw(take, none, names, place, task=Segmentation(share), answers=answers)


def _pairs(home: Path) -> list[tuple[Path, Path]]:
    """The images of a folder, each with its mask, in the order of their names."""
    parts: dict[str, dict[str, Path]] = {}
    for part in ("images", "masks"):
        if not (home / part).is_dir():
            raise InvalidData(f"{home}: needs folders images and masks, of files with the same names")
        files = (p for p in (home / part).iterdir() if p.suffix.lower() in SUFFIXES)
        parts[part] = {p.stem: p for p in files if not p.name.startswith(".")}
    odd = sorted(parts["images"].keys() ^ parts["masks"].keys())
    if odd or not parts["images"]:
        what = f"{odd[0]!r} has no image or no mask of its name" if odd else "has no images"
        raise InvalidData(f"{home}: {what}")
    return [(parts["images"][name], parts["masks"][name]) for name in sorted(parts["images"])]


def _classes(files: list[Path], void: int) -> int:
    """How many classes masks name, 2 at least."""
    with ThreadPoolExecutor() as pool:
        return max(2, 1 + max(pool.map(lambda file: int(_mask(file, void).max()), files)))


def _mask(file: Path, void: int, size: int | None = None, crop: int | None = None) -> Tensor:
    """The classes of a mask (H, W), -1 where there is none; raises `InvalidData` naming the file."""
    try:
        with Image.open(file) as opened:
            require_room(8.0 * opened.size[0] * opened.size[1], str(file))
            if opened.mode not in ("L", "P", "1", "I", "I;16"):
                raise InvalidData(f"{file}: is {opened.mode}; a mask is a grey or palette image of classes")
            image = cropped(resized(opened, size, Image.Resampling.NEAREST), crop, file)
            classes = torch.from_numpy(np.array(image).astype(np.int64))
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise InvalidData(f"{file}: cannot be read as a mask: {error}") from error
    return classes.masked_fill(classes == void, NOTHING)
