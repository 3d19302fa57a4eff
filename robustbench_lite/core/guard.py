"""The guard around code of others: whatever it does becomes one line that names the code and the call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from robustbench_lite.core.errors import InvalidModel, RobustError

WIDTH = 200  # letters of a foreign message that are shown


@contextmanager
def foreign(name: str, call: str) -> Iterator[None]:
    """Run code of others; `InvalidModel` for whatever it raises, `sys.exit` among it.

    What is ours passes as it is, and so do an interrupt and a lack of memory, which the caller mends.
    """
    try:
        yield
    except (RobustError, KeyboardInterrupt, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        if is_out_of_memory(error):
            raise
        raise InvalidModel(f"{name}: {call} fails: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The first cause of an error: its type and the first line it says."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}{': ' * bool(said)}{said[:WIDTH]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device ran out of memory, which smaller batches may mend."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
