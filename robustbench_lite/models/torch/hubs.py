"""Image classifiers of timm and of Hugging Face's transformers, their normalisation folded in."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from torch import nn

from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.guard import one_line
from robustbench_lite.data.data import Data
from robustbench_lite.models.cache import Trained
from robustbench_lite.models.checks import fitted_to
from robustbench_lite.models.torch.labels import by_name
from robustbench_lite.models.torch.module import TorchModel


def from_timm(data: Data, train: Trained, name: str, weights: str = "default") -> TorchModel:
    """One of timm's networks with its published weights; weights: `default`, or `none`: random.

    Weights come from timm's own cache, and are fetched where they are not there. Inputs stay in [0, 1];
    resize them where the data is loaded. Raises `InvalidModel`.
    """
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise InvalidModel(f"timm:{name}: needs timm: pip install 'robustbench-lite[timm]'") from None
    try:
        if weights.lower() == "none":
            module = timm.create_model(name, pretrained=False, num_classes=data.num_classes)
        else:
            module = timm.create_model(name, pretrained=True)
    except Exception as error:  # timm and what fetches for it have many words for no
        raise InvalidModel(f"timm:{name}: {one_line(error)}") from error
    facts = cast(Mapping[str, Sequence[float]], module.pretrained_cfg)
    labels = cast("Sequence[str] | None", facts.get("label_names"))
    ordered, notes = by_name(module, labels, data)
    made = _made(ordered, data, train, name, facts.get("mean"), facts.get("std"))
    made.notes += notes
    return made


def from_transformers(data: Data, train: Trained, name: str) -> TorchModel:
    """An image classifier of transformers: a folder that `save_pretrained` wrote, or a name on the hub.

    What its processor subtracts and divides by becomes a part of the model; resize inputs where the data is
    loaded. Raises `InvalidModel`.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        raise InvalidModel(f"hf:{name}: needs transformers: pip install 'robustbench-lite[hf]'") from None
    folder = Path(name).expanduser()
    place = str(folder) if folder.is_dir() else name
    try:
        module = transformers.AutoModelForImageClassification.from_pretrained(place, use_safetensors=True)
    except Exception as error:  # so have transformers
        raise InvalidModel(f"hf:{name}: {one_line(error)}") from error
    mean = std = None
    notes: tuple[str, ...] = ()
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(place)
        if getattr(processor, "do_normalize", False):
            mean, std = processor.image_mean, processor.image_std
    except Exception as error:
        notes = (f"its processor cannot be read ({one_line(error)}): inputs are not normalised",)
    called = module.config.id2label
    ordered, told = by_name(module, [str(called[number]) for number in sorted(called)], data)
    made = _made(ordered, data, train, Path(name).name, mean, std)
    made.notes += notes + told
    return made


def _made(
    module: nn.Module,
    data: Data,
    train: Trained,
    name: str,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> TorchModel:
    channels = data.x.shape[1]
    if mean is not None and len(mean) != channels:
        raise InvalidModel(f"{name}: takes {len(mean)} channels; {data.name} has {channels}")
    model = TorchModel(
        module, data.x.shape[1:], name=name, mean=mean, std=std, device=train.device, data=data
    )
    return fitted_to(model, data.num_classes)
