"""Trained weights, kept under the user's cache folder by a hash of everything that determines them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, device

from robustbench_lite.data.data import Data

Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Trained:
    """How a named model is trained: seed; device; report: called with (model, fraction done)."""

    seed: int = 0
    device: device = field(default_factory=lambda: device("cpu"))
    report: Report = lambda what, fraction: None


def cache_folder() -> Path:
    """Where weights are kept between runs; the environment variable ROBUST_CACHE names another place."""
    named = os.environ.get("ROBUST_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("robustbench-lite"))


def remember(
    recipe: str, version: int, data: Data, train: Trained, fit: Callable[[], dict[str, Tensor]]
) -> Mapping[str, Tensor]:
    """The weights of a recipe (its name, parameters and version) trained on data; trained once, then read."""
    key = f"{recipe} {version} {train.seed} {data.training().fingerprint()}"
    file = cache_folder() / "models" / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
    if file.exists():
        try:
            return load(file.read_bytes())  # not mapped: the file may be replaced while it is in use
        except (SafetensorError, OSError):  # a broken file is trained anew
            file.unlink(missing_ok=True)
    train.report(recipe, 0.0)
    weights = {name: value.detach().cpu().contiguous() for name, value in fit().items()}
    train.report(recipe, 1.0)
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
    os.close(handle)
    save_file(weights, temporary)
    Path(temporary).replace(file)
    return weights
