"""Where an adversarial example may lie: the threats there are."""

from __future__ import annotations

from robustbench_lite.core.registry import Entry


def _entry(name: str, where: str, summary: str, paper: str = "") -> tuple[str, Entry]:
    first = {"box": "", "patch": "size"}.get(name, "eps")
    return name, Entry(name, f"robustbench_lite.threats.{where}", summary, paper=paper, first=first)


ENGSTROM, KANG = "Engstrom et al. 2019, arXiv:1712.02779", "Kang et al. 2019, arXiv:1908.08016"

THREATS: dict[str, Entry] = dict(
    [
        _entry("linf", "ball:linf", "linf:8/255: no feature changes by more; linf:min: the smallest"),
        _entry("l2", "ball:l2", "l2:0.5: Euclidean length; l2:min: the smallest"),
        _entry("l1", "ball:l1", "l1:12: the sum of changes; l1:min: the smallest"),
        _entry("l0", "ball:l0", "l0:1: pixels that change; l0:min: the fewest"),
        _entry("box", "box:box", "anything inside the box, whatever its distance"),
        _entry("patch", "patch:patch", "patch:5x5[,eps=0.3][,top=0,left=0]: one rectangle of pixels",
               "Brown et al. 2017, arXiv:1712.09665"),
        _entry("rotation", "geometry:rotation",
               "rotation:15[,shift=0.1][,scale=0.1]: turned by degrees, moved and scaled by shares", ENGSTROM),
        _entry("affine", "geometry:affine",
               "affine:0.1: an affine map whose matrix is so near to the identity", ENGSTROM),
        _entry("flow", "geometry:flow", "flow:1.5[,grid=8]: pixels displaced by a smooth field, in pixels",
               "Xiao et al. 2018, arXiv:1801.02612"),
        _entry("wasserstein", "wasserstein:wasserstein",
               "wasserstein:0.1[,reach=2]: mass carried from pixel to pixel, its mean way in pixels",
               "Wong et al. 2019, arXiv:1902.07906"),
        _entry("color", "photometry:color",
               "color:0.2[,hue=20]: brightness, contrast and saturation by shares, hue by degrees",
               "Laidlaw & Feizi 2019, arXiv:1906.00001"),
        _entry("negative", "photometry:negative", "negative:1: blended with its negative, 1 being that itself",
               "Hosseini et al. 2017, arXiv:1703.06857"),
        _entry("blur", "photometry:blur", "blur:1.5: a Gaussian blur, its standard deviation in pixels"),
        _entry("fog", "weather:fog", "fog:0.5[,grid=8]: a smooth white veil, by its thickness", KANG),
        _entry("snow", "weather:snow", "snow:0.5: white flakes, by their whiteness", KANG),
        _entry("rain", "weather:rain", "rain:0.5: grey streaks, by their whiteness", KANG),
    ]
)  # fmt: skip
