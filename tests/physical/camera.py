"""A camera in arithmetic: what a photograph of a sheet goes through, to try its reading without paper."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from robustbench_lite.core.errors import require
from robustbench_lite.physical.photograph import plane_map


@dataclass(frozen=True)
class Camera:
    """A perspective, light, a lens, a sensor and a file.

    Parameters
    ----------
    tilt : float, default 0.0
        The share of its side by which each corner may lie elsewhere, in [0, 0.3).
    turn : int, default 0
        Quarters by which the sheet lies turned.
    blur : float, default 0.0
        The lens's standard deviation in pixels.
    gamma : float, default 1.0
        Of the sensor.
    shade : float, default 0.0
        The share of light that one side of the paper lacks, in [0, 1).
    noise : float, default 0.0
        The sensor's standard deviation, in [0, 1].
    quality : int, optional
        Of the JPEG file; None: none is written.
    seed : int, default 0
    """

    tilt: float = 0.0
    turn: int = 0
    blur: float = 0.0
    gamma: float = 1.0
    shade: float = 0.0
    noise: float = 0.0
    quality: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.tilt < 0.3, "tilt", self.tilt, "in [0, 0.3)")
        require(0 <= self.shade < 1, "shade", self.shade, "in [0, 1)")

    def taken(self, sheet: Image.Image, side: int) -> np.ndarray:
        """A photograph (side, side, 3) in [0, 1] of a sheet on a grey table."""
        random = np.random.default_rng(self.seed)
        sheet = sheet.rotate(90 * self.turn, expand=True, fillcolor="white")
        wide, tall = sheet.size
        share = 0.9 * min(side / wide, side / tall)
        half = np.array([wide, tall]) * share / 2
        corners = side / 2 + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        corners += self.tilt * side * random.uniform(-0.5, 0.5, (4, 2)) * 0.5
        whole = np.array([[0, 0], [wide, 0], [wide, tall], [0, tall]], dtype=float)
        back = plane_map(corners, whole).flatten()[:8].tolist()
        shown = sheet.transform(
            (side, side), Image.Transform.PERSPECTIVE, back, Image.Resampling.BICUBIC, fillcolor="#8a8a8a"
        )
        light = np.asarray(shown, dtype=np.float64) / 255
        light = light * (1 - self.shade * np.linspace(0, 1, side))[None, :, None]
        light = ndimage.gaussian_filter(light, (self.blur, self.blur, 0)) if self.blur else light
        light = light**self.gamma + self.noise * random.standard_normal(light.shape)
        levels = (np.clip(light, 0, 1) * 255).round().astype(np.uint8)
        if self.quality is not None:
            file = io.BytesIO()
            Image.fromarray(levels).save(file, "JPEG", quality=self.quality)
            levels = np.asarray(Image.open(file))
        taken: np.ndarray = levels / 255
        return taken
