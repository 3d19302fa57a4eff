"""Trained models, kept under the user's cache folder by a hash of everything that determines them."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import filelock
import platformdirs
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, device

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.data.data import Data

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

Thing = TypeVar("Thing")
log = logging.getLogger(__name__)
Report = Callable[[str, float], None]


@dataclass(frozen=True)
class Trained:
    """How a named model is trained: seed; device; report: called with (model, fraction done)."""

    seed: int = 0
    device: device = field(default_factory=lambda: device("cpu"))
    report: Report = lambda what, fraction: None


def cache_folder() -> Path:
    """Where trained models, and what was proven, are kept; the variable ROBUST_CACHE names another place."""
    named = os.environ.get("ROBUST_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("robustbench-lite"))


def remember(
    recipe: str, version: int, data: Data, train: Trained, fit: Callable[[], dict[str, Tensor]]
) -> Mapping[str, Tensor]:
    """The weights of a recipe (its name, parameters and version) trained on data; trained once, then read."""

    def read(file: Path) -> Mapping[str, Tensor]:
        try:
            return load(file.read_bytes())  # not mapped: the file may be replaced while it is in use
        except SafetensorError as error:
            raise InvalidModel(f"{file}: {error}") from error

    def write(weights: Mapping[str, Tensor], file: Path) -> None:
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, file)

    return _kept(recipe, version, data, train, "safetensors", fit, read, write)


def remember_estimator(
    recipe: str, version: int, data: Data, train: Trained, fit: Callable[[], BaseEstimator]
) -> BaseEstimator:
    """The same for a fitted estimator."""
    from robustbench_lite.models.sklearn.files import read_estimator, write_estimator

    return _kept(recipe, version, data, train, "skops", fit, read_estimator, write_estimator)


def place_of(recipe: str, version: int, data: Data, train: Trained, suffix: str) -> Path:
    """The file of whatever a recipe makes of data: a trained model, or what there is of one so far."""
    key = f"{recipe} {version} {train.seed} {data.training().fingerprint()}"
    return cache_folder() / "models" / f"{hashlib.sha256(key.encode()).hexdigest()}.{suffix}"


def _kept(
    recipe: str,
    version: int,
    data: Data,
    train: Trained,
    suffix: str,
    fit: Callable[[], Thing],
    read: Callable[[Path], Thing],
    write: Callable[[Thing, Path], None],
) -> Thing:
    file = place_of(recipe, version, data, train, suffix)

    def known() -> Thing | None:
        try:
            return read(file) if file.exists() else None
        except (InvalidModel, OSError):  # a broken file is trained anew
            file.unlink(missing_ok=True)
            return None

    found = known()
    if found is not None:
        return found
    with _alone_at(file):
        found = known()  # another process may have trained it meanwhile
        if found is not None:
            return found
        train.report(recipe, 0.0)
        found = fit()
        train.report(recipe, 1.0)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
            os.close(handle)
            write(found, Path(temporary))
            Path(temporary).replace(file)
        except OSError as error:
            log.warning("%s is not kept, and will be trained again: %s", recipe, error)
            return found
    return read(file)  # as any later run will have it, to the last bit


@contextlib.contextmanager
def _alone_at(file: Path) -> Iterator[None]:
    """Wait while another process trains what goes into a file; where nothing can be written, just go on."""
    lock = filelock.FileLock(cache_folder() / "locks" / file.stem)
    with contextlib.suppress(OSError):
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
