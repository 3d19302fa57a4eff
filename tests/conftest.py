"""What all tests share: a cache of trained models, small models that need no training, and real data."""

import os
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.attacks import ATTACKS
from robustbench_lite.core.model import Model
from robustbench_lite.core.registry import load
from robustbench_lite.core.threat import Norm
from robustbench_lite.data.data import Data
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.zoo.linear import LinearModel
from robustbench_lite.models.zoo.networks import resnet18
from robustbench_lite.search.attack import Attack

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # tests run side by side


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Models are trained once for all workers, in a folder of this session's own."""
    base = tmp_path_factory.getbasetemp()
    os.environ["ROBUST_CACHE"] = str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of MNIST and CIFAR-10 that ROBUST_TEST_DATA names."""
    named = os.environ.get("ROBUST_TEST_DATA")
    if not named:
        pytest.skip("ROBUST_TEST_DATA does not name a folder with MNIST")
    return Path(named) / "data"


@pytest.fixture(scope="session")
def cifar10(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    """2,000 test images of CIFAR-10, re-encoded as JPEG: figures differ a little from the original pixels."""
    folder = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(real_data / "cifar10-jpeg.tar.gz") as packed:
        test = [m for m in packed if m.isfile() and m.name.startswith("test/")]
        wanted = [m for m in test if int(Path(m.name).stem) < 200]
        packed.extractall(folder, wanted, filter="data")
    for one in (folder / "test").iterdir():
        (folder / "train" / one.name).mkdir(parents=True)
    return rb.load_data(f"folder:{folder}")


def cifar10_resnet18(real_data: Path, which: str, device: str = "cpu") -> TorchModel:
    """The ResNet-18 trained on CIFAR-10, `clean` or adversarially `robust` at Linf 8/255."""
    held = load_file(real_data.parent / "models" / f"cifar10_resnet18_{which}.safetensors")
    mean, std = (held.pop(k).float().flatten().tolist() for k in ("mu", "sd"))
    short = {"c1": "conv1", "b1": "bn1", "c2": "conv2", "b2": "bn2", "sc": "downsample"}
    weights = {}
    for key, value in held.items():
        first, *rest = key.split(".")
        if first == "stem":
            rest[0] = ("conv1", "bn1")[int(rest[0])]
        elif first == "body":
            block = int(rest[0])
            rest = [f"layer{block // 2 + 1}", str(block % 2), short[rest[1]], *rest[2:]]
        else:
            rest = ["fc", *rest]
        weights[".".join(rest)] = value.float() if value.is_floating_point() else value
    module = resnet18(3, 32, 32, 10)
    module.load_state_dict(weights, strict=False)
    left = {k for k in module.state_dict() if not k.endswith("num_batches_tracked")} - set(weights)
    assert not left
    return TorchModel(module, (3, 32, 32), name=f"resnet18 {which}", mean=mean, std=std, device=device)


def linear_model(classes: int = 3, shape: tuple[int, ...] = (1, 4, 4), seed: int = 0) -> LinearModel:
    generator = torch.Generator().manual_seed(seed)
    d = int(torch.tensor(shape).prod())
    weight = torch.randn(classes, d, generator=generator)
    return LinearModel(weight, torch.randn(classes, generator=generator) * 0.1, shape, scaled=True)


def small_network(classes: int = 3, shape: tuple[int, ...] = (1, 4, 4), seed: int = 0) -> TorchModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        d = int(torch.tensor(shape).prod())
        module = nn.Sequential(nn.Flatten(), nn.Linear(d, 16), nn.Tanh(), nn.Linear(16, classes))
        for parameter in module.parameters():
            parameter.data *= 4
    return TorchModel(module, shape, name="small")


def samples_of(model: Model, n: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random inputs with the model's own answers as labels."""
    x = torch.rand((n, *model.input_shape), generator=torch.Generator().manual_seed(seed))
    return x, model.scores(x).argmax(1)


# What would take minutes at its defaults takes fewer steps here; the laws are the same.
SHORT: dict[str, dict[str, object]] = {
    "auto": {"steps": 20, "queries": 50},
    "cw": {"steps": 30, "rounds": 3, "rate": 0.1, "weight": 1.0},
    "fab": {"steps": 20},
    "hopskipjump": {"steps": 3, "queries": 20, "tries": 30},
    "lbfgs": {"rounds": 4},
    "nes": {"steps": 10, "pairs": 8},
    "one_pixel": {"steps": 5, "population": 20},
    "simba": {"steps": 60},
    "sparse_rs": {"steps": 100},
    "spsa": {"steps": 10, "pairs": 8},
    "square": {"steps": 200},
}


def attack_class(name: str) -> type[Attack]:
    """The class of a registered attack."""
    found = load(ATTACKS[name].where, "attack")
    assert isinstance(found, type)
    assert issubclass(found, Attack)
    return found


def threats_of(name: str, sizes: Mapping[Norm, float]) -> list[str]:
    """Every threat that a registered attack claims: of the sizes given, and the smallest."""
    cls = attack_class(name)
    fixed = [f"{norm}:{sizes[norm]:g}" for norm in sorted(cls.norms)] if cls.fixed else []
    return fixed + ([f"{norm}:min" for norm in sorted(cls.norms)] if cls.minimal else [])
