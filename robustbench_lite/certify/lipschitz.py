"""Networks by how much their scores can change at all: the product of what each step stretches by.

A step stretches no difference by more than its spectral norm (Szegedy et al. 2013, section 4.3), a ReLU by
none, so that a margin cannot fall to 0 nearer than itself over the product (Tsuzuku, Sato & Sugiyama 2018,
arXiv:1802.04034, proposition 1). Crude, but at the price of a pass, for networks too large for anything else.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustbench_lite.certify.certifier import ROUNDING, Bounds, Question
from robustbench_lite.certify.networks import GUARD, transposed, units_of
from robustbench_lite.core.goal import Goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.structure import Layers, Product, Step, outcomes
from robustbench_lite.core.threat import Norm, Threat

LEAST = 1e-6  # in the units of x: where no sample has more, nothing is said to be proven
MOST = 2e9  # multiplications for the singular values of a step, above which its largest sums have to do
UNITS = 100_000  # rectified
ROWS = 256  # samples asked at once
SURE = 1 + 1e-9  # what singular values may be off by


class LipschitzBounds:
    """A sound distance for networks of known steps, whatever their size."""

    def refuses(self, model: Model, threat: Threat, goal: Goal) -> str | None:
        """None for networks whose steps are known, under l2, l1 and linf, if they are not very large."""
        held = model.structure
        if not isinstance(held, Layers) or threat.norm not in (Norm.L2, Norm.L1, Norm.LINF):
            return f"{model.name} is no network of known steps under l2, l1 or linf"
        units = units_of(held)
        return (
            None
            if units <= UNITS
            else f"{model.name} has {units} rectified units; at most {UNITS} tell anything"
        )

    def bounds(self, question: Question) -> Bounds:
        """The least margin over what it can change by: in l1 as in l2, in linf over the root of d as well."""
        held, x0 = question.model.structure, question.x0
        assert isinstance(held, Layers)
        with torch.no_grad():
            parts = [question.model.scores(part) for part in torch.split(x0, ROWS)]
            scores = torch.cat(parts).double()
            own = scores.gather(1, question.y[:, None])
            margin = own - scores - 2 * GUARD * (1 + scores.abs().amax(1, keepdim=True))
            stretch = margin_stretch(held).to(x0.device)
        nearest = torch.where(question.sought, margin / stretch[question.y], torch.inf).amin(1).clamp_min(0)
        if question.norm is Norm.LINF:
            nearest = nearest / math.sqrt(x0[0].numel())
        distance = nearest * (1 - ROUNDING)
        if not len(distance) or float(distance.max()) < LEAST:
            distance = distance * torch.nan  # nothing that a table could show
        return Bounds(distance, torch.zeros_like(distance, dtype=torch.bool), "Lipschitz constant")


def margin_stretch(layers: Layers) -> Tensor:
    """By how much the score of one class less another's can change for a step of length 1 (K, K) float64.

    Where the last step is a matrix, its rows' differences; else √2 times what the scores stretch by.
    """
    x = torch.zeros(1, *layers.shape, dtype=layers.dtype, device=layers.device)
    shapes = [tuple(value.shape[1:]) for value in outcomes(layers, x)]
    stretch = [1.0]
    for step in layers.steps:
        before = [stretch[source] for source in step.inputs]
        if step.kind == "add":
            stretch.append(sum(before))
        else:
            stretch.append(before[0] * (step_norm(step, shapes, layers) if step.kind == "affine" else 1.0))
    last = layers.steps[-1]
    matrix = _matrix(last)
    if matrix is None:
        return torch.full((layers.classes, layers.classes), math.sqrt(2) * stretch[-1], dtype=torch.float64)
    return (
        torch.cdist(matrix, matrix, compute_mode="donot_use_mm_for_euclid_dist")
        * SURE
        * stretch[last.inputs[0]]
    )


def step_norm(step: Step, shapes: list[tuple[int, ...]], layers: Layers) -> float:
    """No less than the spectral norm of an affine step, and exact for matrices and for factors."""
    assert step.magnitude is not None
    shape = shapes[step.inputs[0]]
    still = torch.zeros(1, *shape, dtype=layers.dtype, device=layers.device)
    rows = step.magnitude(still + 1)
    columns = transposed(step.magnitude, torch.ones_like(rows), shape)
    summed = max(rows.numel(), columns.numel())  # numbers of one sign, at most, each of which is rounded
    sums = math.sqrt(float(rows.amax()) * float(columns.amax()))
    sums *= (1 + summed * torch.finfo(layers.dtype).eps) * SURE
    matrix = _matrix(step)
    if matrix is not None and _price(*matrix.shape) <= MOST:
        return min(sums, float(torch.linalg.matrix_norm(matrix, 2)) * SURE)
    if isinstance(step.affine, nn.Conv2d) and step.affine.groups == 1:
        kernel = step.affine.weight.detach().double()
        spread = [d * (k - 1) for d, k in zip(step.affine.dilation, kernel.shape[2:], strict=True)]
        side = [size + extra for size, extra in zip(shape[1:], spread, strict=True)]
        if side[0] * side[1] * _price(*kernel.shape[:2]) <= MOST:
            return min(sums, _convolution_norm(kernel, step.affine.dilation, side) * SURE)
    return sums


def _convolution_norm(kernel: Tensor, dilation: tuple[int, ...], side: list[int]) -> float:
    """The spectral norm of a convolution on a torus, of which one with zeros about the image is a part.

    Its singular values are those of the kernel's Fourier transform at each frequency (Sedghi, Gupta & Long
    2019, theorem 6).
    """
    wide = kernel.new_zeros(*kernel.shape[:2], *side)
    wide[
        :, :, : dilation[0] * kernel.shape[2] : dilation[0], : dilation[1] * kernel.shape[3] : dilation[1]
    ] = kernel
    frequencies = torch.fft.fft2(wide).permute(2, 3, 0, 1)
    return float(torch.linalg.matrix_norm(frequencies, 2).amax())


def _matrix(step: Step) -> Tensor | None:
    """The matrix of a step that is one, float64 on the CPU."""
    if isinstance(step.affine, nn.Linear):
        return step.affine.weight.detach().double().cpu()
    return step.affine.matrix.double().cpu() if isinstance(step.affine, Product) else None


def _price(rows: int, columns: int) -> float:
    """Multiplications that the singular values of a matrix take, about."""
    return 10.0 * rows * columns * min(rows, columns)
