"""Common corruptions (Hendrycks & Dietterich 2019, section 3): no adversary, the same for every model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from torch import Tensor

from robustbench_lite.attacks.corruptions import blur, digital, noise, weather
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Access, Model, reference_precision
from robustbench_lite.core.parameters import Range
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.random import Stream
from robustbench_lite.core.threat import Norm, Threat
from robustbench_lite.search.attack import Attack, Iterate
from robustbench_lite.threats.transform import no_images

SMALL = 64  # pixels to a side, up to which the strengths are those of CIFAR-10-C, above those of ImageNet-C

Corrupt = Callable[[Tensor, int, bool, Stream], Tensor]
KINDS: Mapping[str, Corrupt] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "fog": weather.fog,
    "snow": weather.snow,
    "brightness": digital.brightness,
    "contrast": digital.contrast,
    "saturate": digital.saturate,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}


@dataclass(frozen=True)
class Corruption(Attack[Iterate]):
    """One corruption of ImageNet-C and CIFAR-10-C at one severity, by its authors' formula and strength.

    Of their fifteen and four, frost is a photograph and spatter a chain of image filters: both are left out.
    Images stay as fine as their numbers; the published files hold 8-bit ones, which `cifar10c` reads. Up to
    64 pixels to a side strengths are those of CIFAR-10-C, above those of ImageNet-C.

    Parameters
    ----------
    kind : str, default "gaussian_noise"
        `gaussian_noise`, `shot_noise`, `impulse_noise`, `speckle_noise`; `gaussian_blur`, `defocus_blur`,
        `glass_blur`, `motion_blur`, `zoom_blur`; `fog`, `snow`; `brightness`, `contrast`, `saturate`,
        `elastic_transform`, `pixelate`, `jpeg_compression`.
    severity : int, default 3
        From 1 to 5.

    Notes
    -----
    Cost: one forward pass. Every sample is corrupted, those that the model has wrong too.

    Examples
    --------
    >>> str(Corruption(kind="fog", severity=5))
    'corruption:kind=fog,severity=5'
    """

    kind: Literal[
        "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "gaussian_blur", "defocus_blur",
        "glass_blur", "motion_blur", "zoom_blur", "fog", "snow", "brightness", "contrast", "saturate",
        "elastic_transform", "pixelate", "jpeg_compression",
    ] = "gaussian_noise"  # fmt: skip
    severity: Annotated[int, Range(1, 5)] = 3

    name = "corruption"
    access = Access.DECISION
    norms = frozenset[Norm]()
    threats = frozenset({"box"})
    paper = "Hendrycks & Dietterich 2019, arXiv:1903.12261"
    every_sample = True
    control = True

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        shape = model.input_shape
        refusal = super().refuses(model, threat, goal) or no_images(self.name, threat.domain, shape)
        if refusal:
            return refusal
        if self.kind == "saturate" and shape[0] != 3:
            return f"{self.name}: an image of {shape[0]} channels has no colours to saturate"
        if self.kind == "jpeg_compression" and shape[0] not in (1, 3):
            return f"{self.name}: JPEG is for 1 or 3 channels; not for {shape[0]}"
        return None

    def start(self, problem: Problem) -> Iterate:
        low, high = problem.threat.domain.bounds(problem.x0)
        x = (problem.x0 - low) / (high - low).clamp_min(1e-30)
        small = max(x.shape[2:]) <= SMALL
        with reference_precision():
            corrupted = KINDS[self.kind](x, self.severity, small, problem.steady("corruption"))
        return Iterate(z=problem.project(low + corrupted.clamp(0, 1) * (high - low)))
