"""The attacks: one file each, mathematics only; the driver does the rest."""

from __future__ import annotations

from robustbench_lite.core.registry import Entry


def _entry(name: str, cls: str, summary: str, access: str, norms: str, paper: str) -> tuple[str, Entry]:
    where = f"robustbench_lite.attacks.{name}:{cls}"
    return name, Entry(name, where, summary, access, norms, paper)


ATTACKS: dict[str, Entry] = dict(
    [
        _entry("exact", "Exact", "the smallest perturbation of a linear model or a tree", "structure",
               "l0 l1 l2 linf",
               "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599; Chen et al. 2019, arXiv:1906.03849"),
        _entry("fgsm", "FGSM", "one step along the gradient's sign", "gradient", "l1 l2 linf",
               "Goodfellow et al. 2014, arXiv:1412.6572"),
        _entry("iterative", "Iterative", "FGSM in small steps; targeted too", "gradient", "l1 l2 linf",
               "Kurakin et al. 2016, arXiv:1607.02533"),
        _entry("linear_demo", "LinearDemo", "a linear model's exact worst case, in closed form", "structure",
               "l0 l1 l2 linf", "Goodfellow et al. 2014, arXiv:1412.6572"),
        _entry("noise", "Noise", "random points of the ball: the control", "decision", "l0 l1 l2 linf",
               "Carlini et al. 2019, arXiv:1902.06705"),
    ]
)  # fmt: skip
