"""The defenses: what is trained, and what is put around a model."""

from __future__ import annotations

from robustbench_lite.core.registry import Entry


def _entry(name: str, where: str, summary: str, paper: str = "") -> tuple[str, Entry]:
    return name, Entry(name, f"robustbench_lite.defenses.{where}", summary, paper=paper, inner="one")


DEFENSES: dict[str, Entry] = dict(
    [
        _entry("bound_training", "training.bounds:BoundTraining", "the worst scores that intervals allow are minimised", "Gowal et al. 2018, arXiv:1810.12715"),
        _entry("cutout", "training.regularised:Cutout", "a square of each image blackened in training", "DeVries & Taylor 2017, arXiv:1708.04552"),
        _entry("distillation", "training.distillation:Distillation", "another's answers learnt at a high temperature", "Papernot et al. 2016, arXiv:1511.04508"),
        _entry("ensemble_training", "training.adversarial:EnsembleTraining", "trained on points made on other networks", "Tramèr et al. 2018, arXiv:1705.07204"),
        _entry("fgsm_training", "training.adversarial:FGSMTraining", "trained on one step from a random point", "Wong, Rice & Kolter 2020, arXiv:2001.03994"),
        _entry("free_training", "training.adversarial:FreeTraining", "each batch several times, adversary and weights at once", "Shafahi et al. 2019, arXiv:1904.12843"),
        _entry("label_smoothing", "training.regularised:LabelSmoothing", "labels that leave a share to other classes", "Szegedy et al. 2016, arXiv:1512.00567"),
        _entry("mart", "training.adversarial:MART", "TRADES that weighs what is wrong more", "Wang et al. 2020 (ICLR)"),
        _entry("mixup", "training.regularised:Mixup", "trained on means of two samples", "Zhang et al. 2018, arXiv:1710.09412"),
        _entry("noise_training", "training.regularised:NoiseTraining", "trained on noisy samples", "Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918"),
        _entry("pgd_training", "training.adversarial:PGDTraining", "trained on what projected gradient descent makes", "Madry et al. 2018, arXiv:1706.06083"),
        _entry("trades", "training.adversarial:TRADES", "accuracy against how far an adversary moves the answer", "Zhang et al. 2019, arXiv:1901.08573"),
        _entry("universal_training", "training.adversarial:UniversalTraining", "trained beside one growing perturbation", "Shafahi et al. 2018, arXiv:1811.11304"),
    ]
)  # fmt: skip
