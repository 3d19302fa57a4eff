"""A faster copy of a network to search with: convolutions folded, channels last, in fewer bits."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from robustbench_lite.core.model import reference_precision
from robustbench_lite.core.settings import Precision
from robustbench_lite.models.torch.outputs import as_scores


def resolved(precision: Precision, module: nn.Module, device: torch.device) -> Precision:
    """What `auto` comes to for a module on a device."""
    if precision != "auto":
        return precision
    convolves = any(isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d) for m in module.modules())
    if convolves and _multiplies_bfloat16(device):
        return "bfloat16"
    return "tf32" if device.type == "cuda" else "float32"


def faster(module: nn.Module, precision: Precision, x: Tensor) -> nn.Module:
    """A copy with batch normalisation folded into convolutions, channels last, in the precision's bits.

    x (n, …): inputs on which the folded copy must still say what the module says; else it is not folded:
    tracing freezes what is drawn at random, and cannot follow every module.
    """
    made = _folded(module, x)
    if not any(p.dim() == 5 for p in made.parameters()):
        made = made.to(memory_format=torch.channels_last)
    return made.to(torch.bfloat16) if precision == "bfloat16" else made


def _folded(module: nn.Module, x: Tensor) -> nn.Module:
    plain = copy.deepcopy(module).eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own, about its own past
        from torch.fx.experimental.optimization import fuse
    try:
        made: nn.Module = fuse(plain).eval().requires_grad_(False)
        with torch.no_grad(), reference_precision():
            first, second, folded = (as_scores(m(x)) for m in (plain, plain, made))
    except Exception:  # tracing runs the user's code on symbols, and fails in as many ways as there are codes
        return plain
    room = 1e-3 * first.abs().amax().clamp_min(1e-6)
    same = bool(torch.equal(first, second)) and bool(((first - folded).abs() <= room).all())
    return made if same else plain


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
