"""ONNX files: scores by onnxruntime, and gradients where onnx2torch can follow the graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.guard import one_line
from robustbench_lite.data.data import Data

if TYPE_CHECKING:
    import onnxruntime

MISSING = "needs onnxruntime: pip install 'robustbench-lite[onnx]'"
KINDS = {"tensor(double)": np.float64, "tensor(float16)": np.float16}
CLOSE = 1e-3  # of the largest score: what two runtimes may differ by


def read_onnx(file: Path, data: Data) -> nn.Module | Callable[[np.ndarray], np.ndarray]:
    """The network where onnx2torch makes the same of it, else a function that asks onnxruntime.

    Raises `InvalidModel` where onnxruntime is missing or the file holds no classifier of such inputs.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InvalidModel(f"{file}: {MISSING}") from None
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has an error of its own for each fault of a file
        raise InvalidModel(f"{file}: cannot be read as ONNX: {one_line(error)}") from None
    if len(session.get_inputs()) != 1:
        names = ", ".join(i.name for i in session.get_inputs())
        raise InvalidModel(f"{file}: takes {len(session.get_inputs())} inputs ({names}); must take one")
    asked = _Session(session, file.stem)
    return _converted(file, data, asked) or asked


class _Session:
    """A function on NumPy arrays that asks onnxruntime."""

    def __init__(self, session: onnxruntime.InferenceSession, name: str) -> None:
        self.session, self.__name__ = session, name
        self.input = session.get_inputs()[0]
        self.kind = KINDS.get(self.input.type, np.float32)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        shape = [d if isinstance(d, int) else -1 for d in self.input.shape[1:]]
        wanted = len(self.input.shape) == x.ndim or math.prod(shape) <= 0
        given = x if wanted else x.reshape(len(x), *shape)
        answers = self.session.run(None, {self.input.name: given.astype(self.kind)})
        found = [np.asarray(part) for part in answers]
        scores = [part for part in found if part.ndim == 2 and part.dtype.kind == "f" and len(part) == len(x)]
        return scores[0] if scores else found[0]


def _converted(file: Path, data: Data, asked: _Session) -> nn.Module | None:
    """The network as PyTorch's, where it can be made and says what onnxruntime says."""
    try:
        import onnx2torch

        made: nn.Module = onnx2torch.convert(str(file)).eval()
        x = data.x[:4]
        with torch.no_grad():
            ours = made(x)
        theirs = torch.from_numpy(np.concatenate([asked(row[None].numpy()) for row in x]))
        room = CLOSE * float(theirs.abs().max())
        return made if ours.shape == theirs.shape and bool(((ours - theirs).abs() <= room).all()) else None
    except Exception:  # a graph that it cannot follow is asked for scores alone
        return None
