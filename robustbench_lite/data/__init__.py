"""Data sets: real ones by name, and the user's own."""

from __future__ import annotations

from robustbench_lite.core.registry import Entry


def _entry(name: str, where: str, summary: str, paper: str = "") -> tuple[str, Entry]:
    first = "path" if name in ("folder", "masks", "npz", "csv", "cifar10c", "parquet", "webdataset") else ""
    return name, Entry(name, f"robustbench_lite.data.{where}", summary, paper=paper, first=first)


DATA: dict[str, Entry] = dict(
    [
        _entry("digits", "builtin:digits", "1797 grey 8×8 digits, in scikit-learn", "Alpaydin & Kaynak 1998"),
        _entry("digit_sets", "canvases:digit_sets", "digits on 32×32 canvases, the labels those that are there: multi-label"),
        _entry("digit_scenes", "canvases:digit_scenes", "digits on 32×32 canvases, a label a pixel: segmentation"),
        _entry("digit_strings", "canvases:digit_strings", "two to four digits in a row, a label a place: strings"),
        _entry("mnist", "vision:mnist", "70,000 grey 28×28 digits", "LeCun et al. 1998"),
        _entry("fashionmnist", "vision:fashionmnist", "70,000 grey 28×28 clothes", "Xiao et al. 2017"),
        _entry("cifar10", "vision:cifar10", "60,000 colour 32×32 images, 10 classes", "Krizhevsky 2009"),
        _entry("cifar100", "vision:cifar100", "60,000 colour 32×32 images, 100 classes", "Krizhevsky 2009"),
        _entry("svhn", "vision:svhn", "99,289 colour 32×32 house numbers", "Netzer et al. 2011"),
        _entry("breast_cancer", "builtin:breast_cancer", "569 samples, 30 features, 2 classes"),
        _entry("wine", "builtin:wine", "178 samples, 13 features, 3 classes"),
        _entry("iris", "builtin:iris", "150 samples, 4 features, 3 classes"),
        _entry("folder", "folder:folder", "folder:PATH[,size=N][,crop=N][,grey=true]: one sub-folder a class"),
        _entry("parquet", "shards:parquet", "parquet:PATH[,image=NAME][,label=NAME][,size=N]: images as Hugging Face writes them"),
        _entry("webdataset", "shards:webdataset", "webdataset:PATH[,size=N][,crop=N]: tar files of KEY.png and KEY.cls"),
        _entry("cifar10c", "corrupted:cifar10c", "cifar10c:PATH[,kind=fog][,severity=3]: published corrupted images",
               "Hendrycks & Dietterich 2019, arXiv:1903.12261"),
        _entry("masks", "masks:masks", "masks:PATH[,size=N][,share=0.99][,void=255]: folders images and masks"),
        _entry("npz", "arrays:npz", "npz:PATH: arrays x and y, uint8 or float in [0, 1]"),
        _entry("csv", "tabular:CSV", "csv:PATH,label=NAME[,integer=A|B][,fixed=C|D][,split=1]: a table of numbers and text"),
    ]
)  # fmt: skip
