"""How much a file may unfold to: what it declares is measured before anything is read."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from robustbench_lite.core.errors import InvalidData


def require_room(size: float, what: str) -> None:
    """Raise `InvalidData` where so many bytes are more than half of the machine's memory."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        memory = 16 << 30
    if size > memory / 2:
        raise InvalidData(f"{what}: would take {size / 2**30:.3g} GiB; this machine has {memory / 2**30:.3g}")


def require_unfolds(file: Path) -> None:
    """Raise `InvalidData` where the members of a ZIP file are larger than the machine's memory allows."""
    try:
        with zipfile.ZipFile(file) as members:
            size = sum(info.file_size for info in members.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidData(f"{file}: cannot be read: {error}") from None
    require_room(size, str(file))
