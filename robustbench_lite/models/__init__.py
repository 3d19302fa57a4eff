"""The model zoo: one file a family; `load_model` takes names, modules and functions."""

from __future__ import annotations

from robustbench_lite.core.registry import Entry


def _entry(
    name: str, where: str, summary: str, access: str, paper: str = "", task: str = "classification"
) -> tuple[str, Entry]:
    first = {"torchvision": "name", "timm": "name", "hf": "name", "weights": "path"}.get(name, "")
    return name, Entry(name, f"robustbench_lite.models.{where}", summary, access, "", paper, first, task=task)


MODELS: dict[str, Entry] = dict(
    [
        _entry("linear", "zoo.linear:train_linear", "least squares on one-hot targets", "structure"),
        _entry("logistic", "zoo.linear:train_logistic", "softmax regression", "structure"),
        _entry("svm", "zoo.classical:train_svm", "support vector machine with an RBF kernel", "gradient"),
        _entry("linear_svm", "zoo.classical:train_linear_svm", "linear support vector machine", "structure"),
        _entry("knn", "zoo.classical:train_knn", "nearest neighbours, k from validation", "structure"),
        _entry("tree", "zoo.classical:train_tree", "decision tree", "structure"),
        _entry("forest", "zoo.classical:train_forest", "random forest of 100 trees", "structure"),
        _entry("boosting", "zoo.classical:train_boosting", "gradient-boosted trees", "structure"),
        _entry("mlp", "zoo.classical:train_mlp", "one hidden layer of 128 units", "gradient"),
        _entry("cnn", "zoo.networks:train_cnn", "small residual network that adapts to the image", "gradient"),
        _entry("conv_small", "zoo.networks:train_conv_small", "two strided convolutions: quick to train, to prove things about", "gradient", "Wong & Kolter 2018, arXiv:1711.00851"),
        _entry("lenet", "zoo.networks:train_lenet", "LeNet-5", "gradient", "LeCun et al. 1998"),
        _entry("vgg", "zoo.networks:train_vgg", "small VGG", "gradient", "Simonyan & Zisserman 2014, arXiv:1409.1556"),
        _entry("resnet18", "zoo.networks:train_resnet18", "ResNet-18 for 32×32 images; wants a GPU", "gradient", "He et al. 2015, arXiv:1512.03385"),
        _entry("unet", "zoo.dense:train_unet", "small U-Net: a class a pixel", "gradient", "Ronneberger et al. 2015, arXiv:1505.04597", "segmentation"),
        _entry("tagger", "zoo.dense:train_tagger", "convolutions with a score a label: multi-label", "gradient", "", "multilabel"),
        _entry("reader", "zoo.dense:train_reader", "convolutions with a head a place: strings", "gradient", "", "sequence"),
        _entry("torchvision", "torch.pretrained:from_torchvision", "torchvision:NAME[,weights=DEFAULT|none]", "gradient"),
        _entry("timm", "torch.hubs:from_timm", "timm:NAME[,weights=none]; wants the extra timm", "gradient"),
        _entry("hf", "torch.hubs:from_transformers", "hf:NAME or hf:FOLDER: transformers' image classifiers; wants the extra hf", "gradient"),
        _entry("weights", "torch.pretrained:from_weights", "weights:FILE,network=package.module:function: a state dict", "gradient", task=""),
        ("ensemble", Entry("ensemble", "robustbench_lite.models.ensemble:ensemble", "ensemble(NAME,NAME): several as one", "its members'", inner="many")),
        ("features", Entry("features", "robustbench_lite.models.features:features", "features(NETWORK,ESTIMATOR): an estimator on what a network's last layer is given", "gradient", inner="chain")),
        ("transformed", Entry("transformed", "robustbench_lite.models.transformed:transformed", "transformed(NAME,rotation=15,shift=0.1,scale=0.1,noise=0.05): a random change first", "gradient", "", "Athalye et al. 2018, arXiv:1707.07397", inner="one")),
    ]
)  # fmt: skip
