"""Maps of what decides a score: by gradients, and by covering parts of the image; any model of images."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from robustbench_lite.core.oracle import Oracle
from robustbench_lite.core.random import Stream
from robustbench_lite.core.task import margin

WINDOWS = 8  # along each side of an image, for occlusion


def slopes(oracle: Oracle, x: Tensor, classes: Tensor) -> Tensor:
    """The gradient of the score of each image's class.

    Parameters
    ----------
    oracle : Oracle
    x : Tensor
        (m, …).
    classes : Tensor
        (m,) int64.

    Returns
    -------
    Tensor
        (m, …).
    """
    return oracle.gradient(x, lambda scores, s: scores.gather(1, classes[s, None])[:, 0])[0]


def saliency(oracle: Oracle, x: Tensor, classes: Tensor) -> Tensor:
    """How steeply the score of a class changes with each pixel (Simonyan et al. 2013, section 3.1).

    Parameters
    ----------
    oracle : Oracle
    x : Tensor
        (m, C, H, W).
    classes : Tensor
        (m,) int64.

    Returns
    -------
    Tensor
        (m, H, W), at least 0: the largest over channels.
    """
    return slopes(oracle, x, classes).abs().amax(1)


def smooth_gradient(
    oracle: Oracle, x: Tensor, classes: Tensor, draws: int = 32, noise: float = 0.1
) -> Tensor:
    """The mean gradient over noisy copies (Smilkov et al. 2017, section 3).

    Parameters
    ----------
    oracle : Oracle
    x : Tensor
        (m, C, H, W) in [0, 1].
    classes : Tensor
        (m,) int64.
    draws : int, default 32
    noise : float, default 0.1
        Its standard deviation.

    Returns
    -------
    Tensor
        (m, H, W), at least 0: the largest over channels.
    """
    # The same noise for all images, so that what differs between them is not the noise.
    stream = Stream.of(0, torch.zeros(1, dtype=torch.int64)).fold("smooth")
    added = noise * stream.gaussian((draws, *x.shape[1:])).to(x)
    copies = (x[:, None] + added).flatten(0, 1)
    found = slopes(oracle, copies, classes.repeat_interleave(draws))
    return found.view(len(x), draws, *x.shape[1:]).mean(1).abs().amax(1)


def integrated_gradients(oracle: Oracle, x: Tensor, classes: Tensor, points: int = 50) -> Tensor:
    """The gradient summed along the line from the black image (Sundararajan et al. 2017, equation 1).

    By the Gauss-Legendre rule, so that all values of an image sum up to what its score differs by from that
    of the black image, as far as the score is smooth.

    Parameters
    ----------
    oracle : Oracle
    x : Tensor
        (m, …).
    classes : Tensor
        (m,) int64.
    points : int, default 50
        On the line.

    Returns
    -------
    Tensor
        (m, …), of either sign.
    """
    place, weight = (torch.from_numpy(part).to(x) for part in np.polynomial.legendre.leggauss(points))
    share = ((place + 1) / 2).reshape(1, -1, *[1] * (x.dim() - 1))
    found = slopes(oracle, (share * x[:, None]).flatten(0, 1), classes.repeat_interleave(points))
    return x * torch.einsum("mp...,p->m...", found.view(len(x), points, *x.shape[1:]), weight / 2)


def occlusion(oracle: Oracle, x: Tensor) -> Tensor:
    """How much of its lead each image's own prediction loses to a grey window (Zeiler & Fergus 2014,
    section 4.2).

    Parameters
    ----------
    oracle : Oracle
    x : Tensor
        (m, C, H, W) in [0, 1].

    Returns
    -------
    Tensor
        (m, H, W), below 0 where the window adds to it.
    """
    height, width = x.shape[2:]
    tall, wide = (max(1, math.ceil(size / WINDOWS)) for size in (height, width))
    tops, lefts = (torch.arange(0, size, side) for size, side in ((height, tall), (width, wide)))
    covers = torch.zeros(len(tops) * len(lefts), height, width, dtype=torch.bool, device=x.device)
    for place, (top, left) in enumerate((t, e) for t in tops.tolist() for e in lefts.tolist()):
        covers[place, top : top + tall, left : left + wide] = True
    first = oracle.truth(x)[0]
    own = oracle.model.prediction(first).clamp_min(0)
    points = torch.where(covers[None, :, None], 0.5, x[:, None]).flatten(0, 1)
    lost = margin(oracle.truth(points)[0], own.repeat_interleave(len(covers))).view(len(x), -1)
    lost = lost - margin(first, own)[:, None]
    return torch.einsum("mp,phw->mhw", lost.to(x), covers.to(x))
