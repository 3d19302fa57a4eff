"""Models in files: read without running what they hold, or one line that says how to save it otherwise."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Callable
from pathlib import Path

from robustbench_lite.core.errors import InvalidData, InvalidModel
from robustbench_lite.core.guard import foreign, one_line
from robustbench_lite.core.npz import require_unfolds
from robustbench_lite.data.data import Data
from robustbench_lite.models.names import SUFFIXES


def read_model(file: Path, data: Data) -> object:
    """What a file holds, as something `as_model` takes; raises `InvalidModel` naming the file."""
    if not file.is_file():
        raise InvalidModel(f"{file}: {'is no file' if file.exists() else 'no such file'}")
    suffix = next(suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix))
    return READERS[suffix](file, data)


def _skops(file: Path, data: Data) -> object:
    from robustbench_lite.models.sklearn.files import read_estimator

    return read_estimator(file)


def _torch(file: Path, data: Data) -> object:
    """A TorchScript file; weights alone need a network."""
    import torch

    names: list[str] = []
    with contextlib.suppress(InvalidData):
        require_unfolds(file)
        with zipfile.ZipFile(file) as members:
            names = members.namelist()
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        raise InvalidModel(
            f"{file}: reading what torch.export.save wrote may run any code, so it is not read; name a "
            "function that returns torch.export.load(FILE).module(), package.module:function, or save the "
            "network with torch.jit.save or as ONNX"
        )
    script = any("/code/" in name or name.endswith("/constants.pkl") for name in names)
    if not script:
        raise InvalidModel(
            f"{file}: holds weights, or nothing that torch.jit.save wrote; name the network they belong to: "
            f"weights:{file},network=package.module:function"
        )
    try:
        return torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # the reader says no in many words
        raise InvalidModel(f"{file}: cannot be read as TorchScript: {one_line(error)}") from None


def _onnx(file: Path, data: Data) -> object:
    from robustbench_lite.models.onnx import read_onnx

    return read_onnx(file, data)


def _boosted(file: Path, data: Data) -> object:
    """An XGBoost classifier as its save_model wrote it."""
    try:
        import xgboost
    except ImportError:
        raise InvalidModel(f"{file}: needs XGBoost: pip install 'robustbench-lite[boost]'") from None
    made = xgboost.XGBClassifier()
    with foreign(str(file), "reading it as an XGBoost classifier"):
        made.load_model(file)
    return made


def _text(file: Path, data: Data) -> object:
    """A LightGBM classifier as Booster.save_model wrote it."""
    with file.open("rb") as lines:
        if lines.readline(100).strip() != b"tree":
            raise InvalidModel(f"{file}: is no model that LightGBM's Booster.save_model wrote")
    try:
        import lightgbm
    except ImportError:
        raise InvalidModel(f"{file}: needs LightGBM: pip install 'robustbench-lite[boost]'") from None
    from robustbench_lite.models.sklearn.boosted import LightGBMBooster

    with foreign(str(file), "reading it as a LightGBM classifier"):
        return LightGBMBooster(lightgbm.Booster(model_file=str(file)))


def _weights(file: Path, data: Data) -> object:
    raise InvalidModel(
        f"{file}: holds weights; name the network they belong to: "
        f"weights:{file},network=package.module:function"
    )


def _pickled(file: Path, data: Data) -> object:
    raise InvalidModel(
        f"{file}: a pickle may run any code when it is read, so it is not; load it yourself and save it with "
        "skops.io.dump(estimator, 'FILE.skops'), or name a function that returns it, package.module:function"
    )


def _keras(file: Path, data: Data) -> object:
    raise InvalidModel(
        f"{file}: is not read; export it to ONNX (tf2onnx), or name a function on NumPy arrays that calls "
        "it, package.module:function"
    )


READERS: dict[str, Callable[[Path, Data], object]] = {
    ".skops": _skops,
    ".onnx": _onnx,
    ".safetensors": _weights,
    ".torchscript": _torch,
    ".pt2": _torch,
    ".pt": _torch,
    ".pth": _torch,
    ".ckpt": _torch,
    ".ubj": _boosted,
    ".json": _boosted,
    ".txt": _text,
    ".lgb": _text,
    ".joblib": _pickled,
    ".pickle": _pickled,
    ".pkl": _pickled,
    ".keras": _keras,
    ".h5": _keras,
}
