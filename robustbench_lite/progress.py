"""A bar for what takes long, in a terminal or a notebook."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

PATIENCE = 2.0  # seconds before a bar is shown


@contextlib.contextmanager
def watched(title: str, asked: Callable[[float], None] | None) -> Iterator[Callable[[float], None]]:
    """Whom to tell the fraction done: what was asked for, else a bar that appears after two seconds."""
    if asked is not None:
        yield asked
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield lambda fraction: None
        return
    bar, began = Progress(console=console, transient=True), time.monotonic()
    task = bar.add_task(escape(title), total=1.0)

    def tell(fraction: float) -> None:
        if time.monotonic() - began > PATIENCE and not bar.live.is_started:
            bar.start()
        bar.update(task, completed=fraction)

    try:
        yield tell
    finally:
        bar.stop()
