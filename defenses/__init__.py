"""The defenses: what is trained, and what is put around a model."""

from __future__ import annotations

from robustbench_lite.core.registry import Entry


def _entry(name: str, where: str, summary: str, paper: str = "") -> tuple[str, Entry]:
    return name, Entry(name, f"robustbench_lite.defenses.{where}", summary, paper=paper, inner="one")


DEFENSES: dict[str, Entry] = dict(
    [
        _entry("adversarial_pruning", "classical.neighbours:AdversarialPruning", "knn on samples of different classes kept apart", "Yang et al. 2020, arXiv:1906.03310"),
        _entry("binary_detector", "detection.binary:BinaryDetector", "refuses what a second network takes for adversarial", "Metzen et al. 2017, arXiv:1702.04267"),
        _entry("bit_depth", "transformation.quantising:BitDepth", "values rounded to few levels", "Xu, Evans & Qi 2018, arXiv:1704.01155"),
        _entry("bound_training", "training.bounds:BoundTraining", "the worst scores that intervals allow are minimised", "Gowal et al. 2018, arXiv:1810.12715"),
        _entry("cutout", "training.regularised:Cutout", "a square of each image blackened in training", "DeVries & Taylor 2017, arXiv:1708.04552"),
        _entry("density", "detection.embedding:Density", "refuses what is rare in its class", "Feinman et al. 2017, arXiv:1703.00410"),
        _entry("distillation", "training.distillation:Distillation", "another's answers learnt at a high temperature", "Papernot et al. 2016, arXiv:1511.04508"),
        _entry("dual_norm", "classical.linear:DualNorm", "logistic or linear_svm on its exact worst case", "Xu, Caramanis & Mannor 2009 (JMLR)"),
        _entry("ensemble_training", "training.adversarial:EnsembleTraining", "trained on points made on other networks", "Tramèr et al. 2018, arXiv:1705.07204"),
        _entry("fgsm_training", "training.adversarial:FGSMTraining", "trained on one step from a random point", "Wong, Rice & Kolter 2020, arXiv:2001.03994"),
        _entry("free_training", "training.adversarial:FreeTraining", "each batch several times, adversary and weights at once", "Shafahi et al. 2019, arXiv:1904.12843"),
        _entry("gaussian_blur", "transformation.smoothing:GaussianBlur", "a Gaussian blur", "Carlini & Wagner 2017, arXiv:1705.07263"),
        _entry("jpeg", "transformation.jpeg:JPEG", "written as JPEG and read again", "Guo et al. 2018, arXiv:1711.00117"),
        _entry("label_smoothing", "training.regularised:LabelSmoothing", "labels that leave a share to other classes", "Szegedy et al. 2016, arXiv:1512.00567"),
        _entry("magnet", "detection.reconstruction:MagNet", "refuses what an autoencoder cannot draw, cleans the rest", "Meng & Chen 2017, arXiv:1705.09064"),
        _entry("mahalanobis", "detection.embedding:Mahalanobis", "refuses what lies far from every class", "Lee et al. 2018, arXiv:1807.03888"),
        _entry("mart", "training.adversarial:MART", "TRADES that weighs what is wrong more", "Wang et al. 2020 (ICLR)"),
        _entry("median", "transformation.smoothing:Median", "the median of a square around each value", "Xu, Evans & Qi 2018, arXiv:1704.01155"),
        _entry("mixup", "training.regularised:Mixup", "trained on means of two samples", "Zhang et al. 2018, arXiv:1710.09412"),
        _entry("noise_training", "training.regularised:NoiseTraining", "trained on noisy samples", "Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918"),
        _entry("patch_median", "transformation.smoothing:PatchMedian", "patches of the training images instead of its own", "Guo et al. 2018, arXiv:1711.00117"),
        _entry("pgd_training", "training.adversarial:PGDTraining", "trained on what projected gradient descent makes", "Madry et al. 2018, arXiv:1706.06083"),
        _entry("pixel_deflection", "transformation.randomised:PixelDeflection", "random pixels replaced by others nearby", "Prakash et al. 2018, arXiv:1801.08926"),
        _entry("purification", "transformation.purification:Purification", "a denoising autoencoder first", "Meng & Chen 2017, arXiv:1705.09064"),
        _entry("resize_pad", "transformation.randomised:ResizePad", "made smaller and put somewhere, at random", "Xie et al. 2018, arXiv:1711.01991"),
        _entry("robust_trees", "classical.trees:RobustTrees", "trees, forests and boosting whose splits hold", "Andriushchenko & Hein 2019, arXiv:1906.03526"),
        _entry("smoothed", "certified.smoothed:Smoothed", "the vote of noisy copies, with proven radii", "Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918"),
        _entry("squeezing", "detection.squeezing:Squeezing", "refuses where coarser inputs change the answer", "Xu, Evans & Qi 2018, arXiv:1704.01155"),
        _entry("thermometer", "transformation.quantising:Thermometer", "trained on codes without a slope", "Buckman et al. 2018 (ICLR)"),
        _entry("total_variation", "transformation.smoothing:TotalVariation", "the nearest image of little variation", "Guo et al. 2018, arXiv:1711.00117"),
        _entry("trades", "training.adversarial:TRADES", "accuracy against how far an adversary moves the answer", "Zhang et al. 2019, arXiv:1901.08573"),
        _entry("universal_training", "training.adversarial:UniversalTraining", "trained beside one growing perturbation", "Shafahi et al. 2018, arXiv:1811.11304"),
    ]
)  # fmt: skip
