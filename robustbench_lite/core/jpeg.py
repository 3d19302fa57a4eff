"""Images through a JPEG file."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def through_jpeg(x: Tensor, quality: int) -> Tensor:
    """Images written as JPEG and read again; they have no slope.

    Parameters
    ----------
    x : Tensor
        (n, C, H, W) in [0, 1], of 1 or 3 channels.
    quality : int
        From 1 to 100.

    Returns
    -------
    Tensor
        Shaped like x.

    Examples
    --------
    >>> round(through_jpeg(torch.full((1, 1, 8, 8), 0.2), 75).mean().item(), 4)
    0.2
    """
    pixels = (x.detach() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    read = np.empty_like(pixels)
    for place, image in enumerate(pixels):
        file = io.BytesIO()
        colours = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        Image.fromarray(colours).save(file, "JPEG", quality=quality)
        found = np.asarray(Image.open(file))
        read[place] = found[None] if found.ndim == 2 else found.transpose(2, 0, 1)
    return torch.from_numpy(read).to(x) / 255
