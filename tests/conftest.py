"""What all tests share: a cache of trained models, small models that need no training, and real data."""

import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.attacks import ATTACKS
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.model import Model
from robustbench_lite.core.registry import build, load
from robustbench_lite.core.threat import Norm
from robustbench_lite.data.data import Data
from robustbench_lite.judging.judge import Originals, look_clean
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.zoo.linear import LinearModel
from robustbench_lite.models.zoo.networks import resnet18
from robustbench_lite.records.schema import frame
from robustbench_lite.search.attack import AnyAttack, Attack
from robustbench_lite.search.driver import Samples
from robustbench_lite.search.fitting import fit
from robustbench_lite.testing import Check

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
SHORT: dict[str, str] = {
    "acg": "steps=40",
    "admix": "steps=3",
    "alma": "steps=60",
    "alma_prox": "steps=60,step_size=0.02",
    "apgd": "steps=40",
    "asma": "steps=60,rate=0.1,least=0.05",
    "auto": "steps=8,queries=30",
    "bandits": "steps=60",
    "blended_noise": "steps=12",
    "blur": "steps=12",
    "boundary": "steps=60,tries=30",
    "brendel_bethge": "steps=25,tries=30",
    "cma": "steps=10,population=8",
    "contrast": "steps=12",
    "cornersearch": "steps=60,batch=20",
    "curve": "rounds=3",
    "cw": "steps=30,rounds=3,rate=0.1,weight=1",
    "dag": "steps=60,step_size=0.02",
    "dense_pdpgd": "steps=100,dual_rate=0.5,step_size=0.1",
    "ead": "steps=20,rounds=4",
    "evolutionary": "steps=60,tries=30",
    "fab": "steps=20",
    "few_pixels": "steps=10,candidates=20",
    "fmn": "steps=40",
    "fooling": "steps=40,population=50",
    "genattack": "steps=40",
    "geoda": "steps=3,queries=20,tries=30",
    "grid": "points=3",
    "hopskipjump": "steps=3,queries=20,tries=30",
    "iterative": "steps=20",
    "jitter": "steps=20",
    "jsma": "steps=10",
    "lbfgs": "rounds=3",
    "nattack": "steps=10,population=20",
    "nes": "steps=10,pairs=8",
    "newtonfool": "steps=40",
    "one_pixel": "steps=5,population=20",
    "opt": "steps=2,queries=3,tries=30",
    "parsimonious": "steps=100",
    "pdgd": "steps=60",
    "pdpgd": "steps=60",
    "pgd": "steps=20",
    "pgd_l0": "steps=20",
    "pixle": "steps=100",
    "pointwise": "steps=80",
    "procedural": "steps=10,images=40",
    "qeba": "steps=3,queries=20,tries=30",
    "rays": "steps=100",
    "salt_and_pepper": "steps=12",
    "sigma_zero": "steps=40",
    "sign_flip": "steps=40,tries=30",
    "sign_opt": "steps=3,queries=10,tries=30",
    "signhunter": "steps=100",
    "simba": "steps=60",
    "sparse_rs": "steps=100",
    "sparsefool": "steps=30",
    "spgd": "steps=30",
    "spsa": "steps=10,pairs=8",
    "square": "steps=200",
    "substitute": "samples=60,rounds=2,epochs=8,steps=4",
    "superdeepfool": "steps=30",
    "surfree": "steps=10,tries=30",
    "trust_region": "steps=30",
    "universal": "steps=20",
    "vfga": "steps=8",
    "vmifgsm": "steps=3,neighbours=4",
    "vnifgsm": "steps=3,neighbours=4",
    "zoo": "steps=20,rounds=3,coordinates=16",
}


def short(name: str) -> str:
    """A registered attack as short as the laws may be tested on."""
    return f"{name}:{SHORT[name]}" if name in SHORT else name


def together(checks: Sequence[Check]) -> list[tuple[str, list[Check]]]:
    """Checks of one thing as one test: a test costs more than most laws; each that is broken is named."""
    found: dict[str, list[Check]] = {}
    for check in checks:
        found.setdefault(str(check).rpartition("-")[0], []).append(check)
    return list(found.items())


def hold(checks: Sequence[Check]) -> None:
    """Hold something to every one of its laws, and raise what all of those that it breaks say."""
    broken: list[Exception] = []
    for check in checks:
        try:
            check()
        except Exception as error:
            error.add_note(str(check))
            broken.append(error)
    if broken:
        raise ExceptionGroup("broken laws", broken)


def attack_with(
    model: object,
    x: Tensor,
    y: Tensor,
    attack: object,
    threat: object = "linf:8/255",
    seed: int = 0,
    *,
    goal: object = "untargeted",
    targets: Tensor | None = None,
    domain: Domain | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
    **options: object,
) -> rb.AttackResult:
    """`rb.attack` with settings of the search and parameters of the attack as keywords."""
    search, parameters = settings_in({"seed": seed, **options})
    within = rb.parse_threat(threat, domain)  # type: ignore[arg-type]
    made = named_with(attack, parameters)
    aim = goal if targets is None else targets
    return rb.attack(model, x, y, made, within, aim, search, progress)  # type: ignore[arg-type]


def diagnose_with(
    model: object,
    x: Tensor,
    y: Tensor,
    attack: object,
    threat: object = "linf:8/255",
    seed: int = 0,
    *,
    goal: str = "untargeted",
    domain: Domain | None = None,
    **options: object,
) -> pd.DataFrame:
    """`rb.diagnose`, likewise."""
    search, parameters = settings_in({"seed": seed, **options})
    within = rb.parse_threat(threat, domain)  # type: ignore[arg-type]
    return rb.diagnose(model, x, y, named_with(attack, parameters), within, goal, search)  # type: ignore[arg-type]


def run_with(
    data: object = "digits",
    models: Sequence[object] | None = None,
    attacks: Sequence[object] | None = None,
    threats: Sequence[object] | None = None,
    samples: int | None = 500,
    device: str = "auto",
    out: Path | None = None,
    resume: bool = False,
    **options: object,
) -> rb.Results:
    """`rb.run` with everything as keywords."""
    search, others = settings_in({"device": device, **options})
    config = rb.Config(samples=samples, **others)  # type: ignore[arg-type]
    folder = rb.Folder.create(out, resume) if out is not None else None
    return rb.run(data, models, attacks, threats, search, config, folder)  # type: ignore[arg-type]


def settings_in(options: Mapping[str, object]) -> tuple[rb.Search, dict[str, object]]:
    """The settings of a search among keywords, and the other keywords."""
    known = {field.name for field in fields(rb.Search)}
    settings = {name: value for name, value in options.items() if name in known}
    return rb.Search(**settings), {k: v for k, v in options.items() if k not in known}  # type: ignore[arg-type]


def named_with(attack: object, parameters: Mapping[str, object]) -> AnyAttack:
    """An attack by name with parameters as values."""
    if isinstance(attack, Attack):
        return attack
    made = get_attack(str(attack))
    changed = {**{f.name: getattr(made, f.name) for f in fields(made)}, **parameters}
    return build(type(made), changed)


def samples_for(x: Tensor, y: Tensor, ids: Tensor, scores: Tensor) -> Samples:
    """Samples as a search sees them, with the model's scores (n, K) of them."""
    return Samples(x, y, ids, scores, scores.argmax(1))


def learnt_by(*arguments: object) -> dict[str, Tensor]:
    """What `fit` learns."""
    return dict(fit(*arguments).artifact)  # type: ignore[arg-type]


def recorded(columns: Mapping[str, object], n: int) -> pd.DataFrame:
    """Records with the columns that follow from those given: rates, outcomes and the threat's parts."""
    success = np.broadcast_to(np.asarray(columns["success"], dtype=bool), (n,))
    label, clean = (np.broadcast_to(np.asarray(columns[c]), (n,)) for c in ("label", "clean_prediction"))
    threat = str(columns["threat"])
    norm = threat.partition(":")[0]
    distance = columns.get(norm)
    usual: dict[str, object] = {
        "success_rate": success.astype(float),
        "clean_rate": (label == clean).astype(float),
        "outcome": np.where(label != clean, "wrong", np.where(success, "broken", "held")).astype(object),
        "attack_name": str(columns["attack"]).partition(":")[0],
        "threat_kind": "ball",
        "norm": norm,
        "minimum": columns.get("eps") is None,
        "distance": distance,
        "zero_gradients": 0,
        "data": "d", "family": "f", "valid": True, "forwards": 1, "backwards": 0, "seconds": 0.1,
    }  # fmt: skip
    return frame(usual | dict(columns), n)


def look(model: Model, x: Tensor, y: Tensor) -> Originals:
    """Samples as the judge sees them."""
    ids = torch.arange(len(y))
    return Originals(x, y, ids, look_clean(model, x, y, ids))


def attack_class(name: str) -> type[AnyAttack]:
    """The class of a registered attack."""
    found = load(ATTACKS[name].where, "attack")
    assert isinstance(found, type)
    assert issubclass(found, Attack)
    return found


def threats_of(name: str, sizes: Mapping[Norm, float]) -> list[str]:
    """Every threat that a registered attack on classes claims: of the sizes given, and the smallest."""
    cls = attack_class(name)
    if "classification" not in cls.tasks:
        return []
    fixed = [f"{norm}:{sizes[norm]:g}" for norm in sorted(cls.norms)] if cls.fixed_budget else []
    return fixed + ([f"{norm}:min" for norm in sorted(cls.norms)] if cls.minimum_norm else [])
