"""Arrays in .npz files: never unpickled, and nothing is read that declares more than memory holds."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from robustbench_lite.core.errors import InvalidData


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; raises `InvalidData` naming it where it cannot be read."""
    require_unfolds(file)
    try:
        with np.load(file, allow_pickle=False) as held:
            for name in held.files:
                with held.zip.open(f"{name}.npy") as member:
                    shape, dtype = _declared(member)
                    require_room(math.prod(shape) * dtype.itemsize, f"{file}: {name}")
            return {name: held[name] for name in held.files}
    except InvalidData:
        raise
    except Exception as error:  # a damaged file fails in as many ways as there are readers in it
        said = " ".join(str(error).split()) or type(error).__name__
        raise InvalidData(f"{file}: cannot be read as .npz: {said}") from None


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A compressed .npz file."""
    with file.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, **arrays)


def memory() -> int:
    """The machine's memory in bytes; 16 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 16 << 30


def require_room(size: float, what: str) -> None:
    """Raise `InvalidData` where so many bytes are more than half of the machine's memory."""
    if size > memory() / 2:
        raise InvalidData(
            f"{what}: would take {size / 2**30:.3g} GiB; this machine has {memory() / 2**30:.3g}"
        )


def require_unfolds(file: Path) -> None:
    """Raise `InvalidData` where what a ZIP file unfolds to is more than memory holds, or it is none."""
    if file.exists() and not file.is_file():
        raise InvalidData(f"{file}: is no regular file")
    try:
        with zipfile.ZipFile(file) as members:
            size = sum(info.file_size for info in members.infolist())
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InvalidData(f"{file}: cannot be read: {error}") from None
    require_room(size, str(file))


def _declared(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and type that the header of an array in a file declares."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype
