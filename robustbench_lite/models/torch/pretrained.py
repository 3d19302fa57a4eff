"""Networks that people already have: torchvision's by name, and weights in a file for one of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import cast
from urllib.error import URLError

import torch
from safetensors.torch import load
from torch import Tensor, nn

from robustbench_lite.core.errors import InvalidModel, InvalidParameter, UnknownName
from robustbench_lite.core.guard import foreign, one_line
from robustbench_lite.core.registry import load as load_reference
from robustbench_lite.data.data import Data
from robustbench_lite.models.cache import Trained
from robustbench_lite.models.checks import fitted_to
from robustbench_lite.models.torch.labels import by_name
from robustbench_lite.models.torch.module import TorchModel

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")


def from_torchvision(data: Data, train: Trained, name: str, weights: str = "DEFAULT") -> TorchModel:
    """One of torchvision's networks with its published weights, whose normalisation joins the model.

    Inputs stay in [0, 1]; resize them where the data is loaded (`folder:PATH,size=256,crop=224`). weights:
    a name from torchvision, `DEFAULT`, or `none`: random, with the data's classes. Raises `UnknownName`,
    and `InvalidModel` where the weights are not there and cannot be fetched.
    """
    from torchvision import models

    if name not in models.list_models():
        raise UnknownName("torchvision model", name, models.list_models())
    shape = data.x.shape[1:]
    if weights.lower() == "none":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            module = models.get_model(name, weights=None, num_classes=data.num_classes)
        plain = TorchModel(module, shape, name=name, device=train.device)
        return fitted_to(plain, data.num_classes)
    known = models.get_model_weights(name)
    if weights not in known.__members__:
        raise InvalidParameter("weights", weights, f"none or one of {', '.join(known.__members__)}")
    chosen = known[weights]
    try:
        module = models.get_model(name, weights=chosen)
    except (URLError, OSError, RuntimeError) as error:
        where = torch.hub.get_dir()
        raise InvalidModel(
            f"{name}: its weights are not in {where}/checkpoints and could not be fetched from {chosen.url} "
            f"({error}); put the file there, or take weights=none"
        ) from error
    means = chosen.transforms()
    ordered, notes = by_name(module, chosen.meta.get("categories"), data)
    model = TorchModel(ordered, shape, name=name, mean=means.mean, std=means.std, device=train.device)
    model.notes += notes
    return fitted_to(model, data.num_classes)


def from_weights(data: Data, train: Trained, path: str, network: str) -> nn.Module:
    """A network made by `package.module:function`, with the weights of a .safetensors or .pt file.

    A .pt file is read as tensors only, never as code. Raises `InvalidModel` naming what does not fit.
    """
    function = load_reference(network, "network")
    with foreign(network, "the call that makes it"):
        made = function() if callable(function) else None
    if not isinstance(made, nn.Module):
        raise InvalidParameter("network", network, "package.module:function that returns a torch.nn.Module")
    file = Path(path).expanduser()
    try:
        weights = without_prefix(_weights(file), made.state_dict())
        result = made.load_state_dict(weights, strict=False)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise InvalidModel(f"{path}: {' '.join(str(error).split())}") from None
    for what, names in (("lacks", result.missing_keys), ("has besides", result.unexpected_keys)):
        if names:
            raise InvalidModel(f"{path}: {what} {_some(names)} of {network}")
    return made


def _weights(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            held: object = load(file.read_bytes())
        else:
            held = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as there are readers in it
        raise InvalidModel(f"{file}: cannot be read as weights: {one_line(error)}") from None
    for name in ("state_dict", "model_state_dict", "model", "net", "weights"):
        if isinstance(held, dict) and isinstance(held.get(name), dict):
            held = held[name]
    named = isinstance(held, dict) and bool(held) and all(isinstance(key, str) for key in held)
    if not named or not all(isinstance(v, Tensor) for v in cast(dict[str, object], held).values()):
        raise InvalidModel(f"{file}: holds no weights by name")
    return cast(dict[str, Tensor], held)


def without_prefix(weights: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Weights under the names a network knows, where these only have something in front of them.

    Parallel training adds `module.`, compiling `_orig_mod.`, Lightning and others `model.` or `net.`.
    """
    found = dict(weights)
    for prefix in PREFIXES * 2:
        if all(key.startswith(prefix) for key in found) and not set(found) & set(wanted):
            found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
