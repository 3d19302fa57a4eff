"""Where an adversarial example may lie: the threats there are."""

from __future__ import annotations

from robustbench_lite.core.registry import Entry


def _entry(name: str, where: str, summary: str, paper: str = "") -> tuple[str, Entry]:
    first = "" if name == "box" else "eps"
    return name, Entry(name, f"robustbench_lite.threats.{where}", summary, paper=paper, first=first)


THREATS: dict[str, Entry] = dict(
    [
        _entry("linf", "ball:linf", "linf:8/255: no feature changes by more; linf:min: the smallest"),
        _entry("l2", "ball:l2", "l2:0.5: Euclidean length; l2:min: the smallest"),
        _entry("l1", "ball:l1", "l1:12: the sum of changes; l1:min: the smallest"),
        _entry("l0", "ball:l0", "l0:1: pixels that change; l0:min: the fewest"),
        _entry("box", "box:box", "anything inside the box, whatever its distance"),
        _entry(
            "rotation",
            "affine:rotation",
            "rotation:15[,shift=0.1]: turned and moved",
            "Engstrom et al. 2019, arXiv:1712.02779",
        ),
    ]
)
