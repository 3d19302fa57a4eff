"""Arrays as PNG files that a page carries in itself."""

from __future__ import annotations

import base64
import io

import numpy as np
from matplotlib import colormaps
from PIL import Image


def picture(image: np.ndarray) -> str:
    """An image (C, H, W) in [0, 1] as a data address."""
    levels = (np.clip(image, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    return _address(levels[:, :, 0] if levels.shape[2] == 1 else levels)


def moving(frames: np.ndarray) -> str:
    """Images (f, C, H, W) uint8 as one that moves, five a second, and rests on the last."""
    pages = [Image.fromarray(frame[0] if len(frame) == 1 else frame.transpose(1, 2, 0)) for frame in frames]
    held = io.BytesIO()
    shown = [200] * (len(pages) - 1) + [1500]
    pages[0].save(held, "PNG", save_all=True, append_images=pages[1:], duration=shown, loop=0)
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def signed(change: np.ndarray) -> tuple[str, float]:
    """A perturbation (C, H, W), blue below zero, orange above, and by how much it was magnified."""
    largest = float(np.abs(change).max()) or 1.0
    mean = change.mean(0) / largest
    low, high = np.array([33, 102, 172]), np.array([202, 96, 20])
    weight = np.abs(mean)[:, :, None]
    colours = 247 * (1 - weight) + np.where(mean[:, :, None] < 0, low, high) * weight
    return _address(colours.round().astype(np.uint8)), 1 / largest


def mask(classes: np.ndarray) -> str:
    """A class a pixel (H, W) as colours, the same for a class everywhere; white where there is none."""
    palette = (colormaps["tab20"](np.arange(20))[:, :3] * 255).round().astype(np.uint8)
    background = np.array([32, 32, 32], np.uint8)
    colours = np.where((classes > 0)[..., None], palette[(classes - 1) % len(palette)], background)
    return _address(np.where((classes < 0)[..., None], np.uint8(255), colours))


def heat(values: np.ndarray) -> str:
    """A map (H, W) of what matters, from white to the accent colour."""
    top = float(np.abs(values).max()) or 1.0
    weight = np.clip(np.abs(values) / top, 0, 1)[:, :, None]
    colours = 255 * (1 - weight) + np.array([47, 111, 143]) * weight
    return _address(colours.round().astype(np.uint8))


def _address(pixels: np.ndarray) -> str:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()
