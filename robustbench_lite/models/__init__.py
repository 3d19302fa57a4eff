"""The model zoo: one file a family; `load_model` takes names, modules and functions."""

from __future__ import annotations

from robustbench_lite.core.registry import Entry


def _entry(name: str, where: str, summary: str, access: str, paper: str = "") -> tuple[str, Entry]:
    return name, Entry(name, f"robustbench_lite.models.{where}", summary, access, "", paper)


MODELS: dict[str, Entry] = dict(
    [
        _entry("linear", "linear:train_linear", "least squares on one-hot targets", "structure"),
        _entry("logistic", "linear:train_logistic", "softmax regression", "structure"),
        _entry("svm", "classical:train_svm", "support vector machine with an RBF kernel", "gradient"),
        _entry("linear_svm", "classical:train_linear_svm", "linear support vector machine", "structure"),
        _entry("knn", "classical:train_knn", "nearest neighbours, k from validation", "gradient"),
        _entry("tree", "classical:train_tree", "decision tree", "structure"),
        _entry("forest", "classical:train_forest", "random forest of 100 trees", "gradient"),
        _entry("boosting", "classical:train_boosting", "gradient-boosted trees", "gradient"),
        _entry("mlp", "classical:train_mlp", "one hidden layer of 128 units", "gradient"),
        _entry("cnn", "networks:train_cnn", "small residual network that adapts to the image", "gradient"),
        _entry("lenet", "networks:train_lenet", "LeNet-5", "gradient", "LeCun et al. 1998"),
        _entry("vgg", "networks:train_vgg", "small VGG", "gradient",
               "Simonyan & Zisserman 2014, arXiv:1409.1556"),
        _entry("resnet18", "networks:train_resnet18", "ResNet-18 for 32×32 images; wants a GPU", "gradient",
               "He et al. 2015, arXiv:1512.03385"),
        _entry("torchvision", "people:from_torchvision", "torchvision:NAME[,weights=DEFAULT|none]",
               "gradient"),
        _entry("weights", "people:from_weights", "weights:FILE,network=package.module:function: a state dict",
               "gradient"),
    ]
)  # fmt: skip
