"""The same attack here and in other libraries, interleaved in one process; needs the extra `peers`.

Ours is timed as the search alone, as theirs is: nobody's success is judged inside the clock, ours is judged
after it. Printed: how many times faster, success or median distance of each side.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.attacks.composite.auto import Auto
from robustbench_lite.attacks.decision_based.hopskipjump import HopSkipJump
from robustbench_lite.attacks.fixed_budget.pgd import PGD
from robustbench_lite.attacks.minimum_norm.cw import CW
from robustbench_lite.attacks.minimum_norm.ddn import DDN
from robustbench_lite.attacks.minimum_norm.deepfool import DeepFool
from robustbench_lite.attacks.minimum_norm.fmn import FMN
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.attacks.score_based.square import Square
from robustbench_lite.attacks.sparse.one_pixel import OnePixel
from robustbench_lite.attacks.universal.universal import Universal
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.model import Effort
from robustbench_lite.core.settings import Precision, Search
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.zoo.training import Schedule, fit_network
from robustbench_lite.search.attack import Attack
from robustbench_lite.search.driver import Outcome, search
from robustbench_lite.threats.named import parse_threat
from tests.benchmarks.timing import interleaved, seconds
from tests.conftest import cifar10_resnet18, learnt_by, samples_for

pytestmark = [pytest.mark.benchmark, pytest.mark.peers]
foolbox = pytest.importorskip("foolbox", reason="needs the extra peers")
torchattacks = pytest.importorskip("torchattacks", reason="needs the extra peers")
PRECISIONS = ["float32", "auto"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@dataclass(frozen=True)
class Setting:
    """A model and samples that it has right."""

    model: TorchModel
    x: Tensor
    y: Tensor

    def ours(self, attack: Attack, threat: str, precision: Precision) -> Callable[[], Outcome]:
        samples = samples_for(self.x, self.y, torch.arange(len(self.y)), self.scores(self.x))
        how = Search(precision=precision, batch_size=len(self.y))
        within, goal = parse_threat(threat), parse_goal("untargeted")
        return lambda: search(attack, self.model, within, goal, samples, how)

    def whole(self) -> nn.Module:
        """The module with its normalisation, as other libraries take it."""

        class Whole(nn.Module):
            def __init__(self, model: TorchModel) -> None:
                super().__init__()
                self.inner, self.outer = model.module, model

            def forward(self, x: Tensor) -> Tensor:
                return self.outer.scores(x)

        return Whole(self.model).eval()

    def scores(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([self.model.scores(p.to(self.model.device)).cpu() for p in x.split(256)])

    def success(self, adversarial: Tensor) -> float:
        return float((self.scores(adversarial).argmax(1) != self.y).float().mean())

    def median(self, adversarial: Tensor, norm: float) -> float:
        """Failures are infinite."""
        broken = self.scores(adversarial).argmax(1) != self.y
        size = torch.linalg.vector_norm((adversarial - self.x).flatten(1), norm, dim=1)
        return float(torch.where(broken, size, torch.inf).median())


@pytest.fixture(scope="module")
def digits() -> Setting:
    """Two convolutions and two dense layers on 500 digits."""
    data = rb.load_data("digits", samples=500)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10)),
        )
        fit_network(module, data.training(), Schedule(15, rate=2e-3), 0, lambda done: None)
    model = TorchModel(module, (1, 8, 8), name="digits cnn")
    return Setting(model, data.x, data.y)


def cifar(data: rb.Data, folder: Path, which: str, device: str, count: int) -> Setting:
    """The first images that both networks have right."""
    nets = [cifar10_resnet18(folder, name, device) for name in ("clean", "robust")]
    right = torch.ones(len(data), dtype=torch.bool)
    with torch.no_grad():
        for net in nets:
            says = torch.cat([net.scores(p.to(device)).argmax(1).cpu() for p in data.x.split(256)])
            right &= says == data.y
    rows = right.nonzero()[:count, 0]
    return Setting(nets[which == "robust"], data.x[rows], data.y[rows])


def told(benchmark: BenchmarkFixture, **figures: float | str) -> None:
    benchmark.extra_info.update(figures)
    shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
    print("\n  " + ", ".join(shown))


def compare(
    benchmark: BenchmarkFixture,
    setting: Setting,
    ours: Callable[[], Outcome],
    theirs: Callable[[], Tensor],
    norm: float | None,
    rounds: int,
) -> None:
    def finished() -> None:
        if theirs().is_cuda:
            torch.cuda.synchronize()

    cold = seconds(ours)
    faster = 1 / interleaved(ours, finished, rounds)
    began = time.perf_counter()
    mine = benchmark.pedantic(ours, rounds=1).z
    warm = time.perf_counter() - began
    other = theirs().detach().cpu()
    figure = setting.success if norm is None else lambda a: setting.median(a, norm)
    told(benchmark, times_faster=faster, ours=figure(mine), theirs=figure(other), cold_s=cold, warm_s=warm)


def in_foolbox(setting: Setting, attack: object, eps: float | None) -> Callable[[], Tensor]:
    device = setting.model.device
    wrapped = foolbox.PyTorchModel(setting.whole(), bounds=(0, 1), device=device)
    x, y = setting.x.to(device), setting.y.to(device)
    return lambda: attack(wrapped, x, y, epsilons=eps)[1]  # type: ignore[no-any-return, operator]


def in_torchattacks(setting: Setting, attack: object) -> Callable[[], Tensor]:
    x, y = setting.x.to(setting.model.device), setting.y.to(setting.model.device)
    return lambda: attack(x, y)  # type: ignore[no-any-return, operator]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("peer", ["torchattacks", "foolbox", "art"])
def test_pgd_on_digits(benchmark: BenchmarkFixture, digits: Setting, peer: str, precision: Precision) -> None:
    if peer == "torchattacks":
        theirs = in_torchattacks(
            digits, torchattacks.PGD(digits.whole(), eps=0.1, alpha=0.025, steps=40, random_start=True)
        )
    elif peer == "foolbox":
        theirs = in_foolbox(digits, foolbox.attacks.LinfPGD(abs_stepsize=0.025, steps=40), 0.1)
    else:
        art = pytest.importorskip("art.attacks.evasion")
        classifier = pytest.importorskip("art.estimators.classification").PyTorchClassifier(
            digits.whole(), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1)
        )
        made = art.ProjectedGradientDescentPyTorch(
            classifier, eps=0.1, eps_step=0.025, max_iter=40, num_random_init=1, batch_size=500, verbose=False
        )
        x, y = digits.x.numpy(), digits.y.numpy()

        def theirs() -> Tensor:
            return torch.from_numpy(made.generate(x, y))

    ours = digits.ours(PGD(40, step_size=0.025), "linf:0.1", precision)
    compare(benchmark, digits, ours, theirs, None, rounds=5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_ddn_on_digits(benchmark: BenchmarkFixture, digits: Setting, precision: Precision) -> None:
    theirs = in_foolbox(digits, foolbox.attacks.DDNAttack(steps=100), None)
    compare(benchmark, digits, digits.ours(DDN(100), "l2:min", precision), theirs, 2, rounds=4)


SMALLEST = [
    ("fab:steps=30", "fab", "l2", {"norm": 2, "n_iter": 30}),
    ("fab:steps=30", "fab", "linf", {"norm": float("inf"), "n_iter": 30}),
    ("fab:steps=30", "fab", "l1", {"norm": 1, "n_iter": 30}),
    ("ddn:steps=200", "ddn", "l2", {"steps": 200}),
    ("fmn:steps=200", "fmn", "linf", {"norm": float("inf"), "steps": 200}),
    ("cw:steps=200,rounds=5", "carlini_wagner_l2", "l2", {"binary_search_steps": 5, "max_iterations": 200}),
    ("superdeepfool", "sdf", "l2", {}),
    ("alma:steps=200", "alma", "l2", {"distance": "l2", "num_steps": 200}),
    ("sigma_zero:steps=200", "sigma_zero", "l0", {"num_steps": 200}),
    ("vfga", "vfga", "l0", {"targeted": False}),
]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("ours", "theirs", "norm", "options"),
    SMALLEST,
    ids=[f"{o.partition(':')[0]}-{n}" for o, _, n, _ in SMALLEST],
)
def test_smallest_perturbations_on_digits(
    benchmark: BenchmarkFixture,
    digits: Setting,
    ours: str,
    theirs: str,
    norm: str,
    options: dict[str, object],
    precision: Precision,
) -> None:
    """Against adversarial-library, on the samples that the network has right."""
    library = pytest.importorskip("adv_lib.attacks", reason="needs adv-lib")
    right = (digits.scores(digits.x).argmax(1) == digits.y).nonzero()[:200, 0]
    setting = Setting(digits.model, digits.x[right], digits.y[right])
    whole, power = setting.whole(), {"l0": 0.0, "l1": 1.0, "l2": 2.0, "linf": torch.inf}[norm]
    run = setting.ours(get_attack(ours), f"{norm}:min", precision)

    def peer() -> Tensor:
        return getattr(library, theirs)(whole, setting.x, setting.y, **options)  # type: ignore[no-any-return]

    compare(benchmark, setting, run, peer, power, rounds=7)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_square_on_digits(benchmark: BenchmarkFixture, digits: Setting, precision: Precision) -> None:
    peer = torchattacks.Square(
        digits.whole(), norm="Linf", eps=0.1, n_queries=300, n_restarts=1, loss="margin"
    )
    ours = digits.ours(Square(300), "linf:0.1", precision)
    compare(benchmark, digits, ours, in_torchattacks(digits, peer), None, rounds=3)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_auto_on_digits(benchmark: BenchmarkFixture, digits: Setting, precision: Precision) -> None:
    """Against torchattacks' AutoAttack: APGD-CE, APGD-T, FAB-T and 5,000 squares."""
    some = Setting(digits.model, digits.x[:200], digits.y[:200])
    peer = torchattacks.AutoAttack(
        some.whole(), norm="Linf", eps=0.1, version="standard", n_classes=10, seed=0
    )
    ours = some.ours(Auto(), "linf:0.1", precision)
    compare(benchmark, some, ours, in_torchattacks(some, peer), None, rounds=1)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("which", ["clean", "robust"])
def test_pgd_on_a_resnet(
    benchmark: BenchmarkFixture, cifar10: rb.Data, real_data: Path, which: str, precision: Precision
) -> None:
    setting = cifar(cifar10, real_data, which, "cpu", 64)
    peer = torchattacks.PGD(setting.whole(), eps=8 / 255, alpha=2 / 255, steps=20, random_start=True)
    ours = setting.ours(PGD(20, step_size=2 / 255), "linf:8/255", precision)
    compare(benchmark, setting, ours, in_torchattacks(setting, peer), None, rounds=1)


def test_one_pixel_on_digits(benchmark: BenchmarkFixture, digits: Setting) -> None:
    """Queries a second against the model's own forward rate, and success against the exhaustive grid's."""
    some = Setting(digits.model, digits.x[:100], digits.y[:100])
    rates = {}
    for size in (64, 128, 256, 512, 1024, 2048):
        points = torch.rand(size, 1, 8, 8)
        rates[size] = size / min(seconds(lambda p=points: digits.model.scores(p)) for _ in range(20))
    figures: dict[str, float | str] = {"forward_rate": max(rates.values())}
    for precision in PRECISIONS:
        run = some.ours(OnePixel(steps=20), "l0:1", precision)
        began = time.perf_counter()
        done = run()
        rate = float(done.forwards.sum()) / (time.perf_counter() - began)
        figures |= {f"{precision}_over_forward": rate / max(rates.values())}
    evolved = some.ours(OnePixel(), "l0:1", "auto")
    grid = some.ours(OnePixel("exhaustive"), "l0:1", "auto")()
    found = benchmark.pedantic(evolved, rounds=1)
    figures |= {"evolution": some.success(found.z), "exhaustive": some.success(grid.z)}
    peer = torchattacks.OnePixel(some.whole(), pixels=1, steps=10, popsize=10, inf_batch=512)
    began = time.perf_counter()
    theirs = peer(some.x[:20], some.y[:20])
    told(benchmark, **figures, peer_s_for_20=time.perf_counter() - began,
         peer=Setting(some.model, some.x[:20], some.y[:20]).success(theirs))  # fmt: skip


def test_universal_on_digits(benchmark: BenchmarkFixture, digits: Setting) -> None:
    """Fitted on 500 training images, judged on 500 others, against ART's DeepFool version."""
    art = pytest.importorskip("art.attacks.evasion")
    classifier = pytest.importorskip("art.estimators.classification").PyTorchClassifier(
        digits.whole(), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1)
    )
    training = rb.load_data("digits").training()
    x, y = training.x[:500], training.y[:500]
    held = samples_for(x, y, torch.arange(500), digits.scores(x))
    threat, goal = parse_threat("linf:0.2"), parse_goal("untargeted")
    began = time.perf_counter()
    delta = benchmark.pedantic(
        lambda: learnt_by(Universal(images=500), digits.model, threat, goal, held)["delta"], rounds=1
    )
    ours_s = time.perf_counter() - began
    made = art.UniversalPerturbation(
        classifier, attacker="deepfool", eps=0.2, max_iter=1, norm=np.inf, verbose=False
    )
    began = time.perf_counter()
    made.generate(x.numpy(), np.eye(10)[y.numpy()])
    theirs_s = time.perf_counter() - began
    theirs = torch.from_numpy(np.asarray(made.noise)).float().reshape(1, 1, 8, 8)
    told(
        benchmark, ours=digits.success((digits.x + delta).clamp(0, 1)), ours_s=ours_s,
        theirs=digits.success((digits.x + theirs).clamp(0, 1)), theirs_s=theirs_s,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["knn", "forest", "svm"])
def test_hopskipjump_on_digits(benchmark: BenchmarkFixture, name: str) -> None:
    """Ten steps in l2 on scikit-learn's estimators, about as many queries on both sides."""
    art = pytest.importorskip("art.attacks.evasion")
    estimators = pytest.importorskip("art.estimators.classification")
    data = rb.load_data("digits", samples=100)
    training = data.training()
    made = {
        "knn": KNeighborsClassifier(5),
        "forest": RandomForestClassifier(random_state=0),
        "svm": SVC(),
    }[name].fit(training.x.flatten(1).numpy(), training.y.numpy())
    model = rb.lift(made, (1, 8, 8))
    right = model.scores(data.x).argmax(1) == data.y
    x, y = data.x[right], data.y[right]
    asked = 0

    def predict(points: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(points)
        return np.eye(10)[made.predict(points.reshape(len(points), -1))]

    box = estimators.BlackBoxClassifierNeuralNetwork(
        predict, (1, 8, 8), 10, channels_first=True, clip_values=(0, 1)
    )
    jump = art.HopSkipJump(box, norm=2, max_iter=10, init_eval=100, init_size=100, verbose=False)
    samples = samples_for(x, y, torch.arange(len(y)), model.scores(x))
    threat, goal = parse_threat("l2:min"), parse_goal("untargeted")

    def ours() -> Outcome:
        return search(HopSkipJump(10), model, threat, goal, samples)

    began = time.perf_counter()
    theirs = torch.from_numpy(jump.generate(x.numpy()))
    their_seconds, their_queries = time.perf_counter() - began, asked / len(y)
    our_seconds = min(seconds(ours) for _ in range(2))
    mine = benchmark.pedantic(ours, rounds=1)

    def median(adversarial: Tensor) -> float:
        broken = model.scores(adversarial).argmax(1) != y
        return float(torch.where(broken, (adversarial - x).flatten(1).norm(dim=1), torch.inf).median())

    told(
        benchmark, times_faster=their_seconds / our_seconds, ours=median(mine.z),
        theirs=median(theirs), our_queries=float(mine.forwards.float().mean()), their_queries=their_queries,
    )  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize("work", ["pgd", "ddn", "fmn", "deepfool", "cw", "square", "auto"])
@pytest.mark.parametrize("which", ["clean", "robust"])
def test_on_a_gpu(
    benchmark: BenchmarkFixture, cifar10: rb.Data, real_data: Path, which: str, work: str
) -> None:
    counts = {"cw": 256, "square": 512, "auto": 500}
    setting = cifar(cifar10, real_data, which, "cuda", counts.get(work, 1024))
    eps, whole = 8 / 255, setting.whole()
    attacks = foolbox.attacks
    rows: dict[str, tuple[Attack, str, Callable[[], Tensor], float | None]] = {
        "pgd": (
            PGD(40, step_size=2 / 255),
            "linf:8/255",
            in_torchattacks(setting, torchattacks.PGD(whole, eps=eps, alpha=2 / 255, steps=40)),
            None,
        ),
        "ddn": (DDN(100), "l2:min", in_foolbox(setting, attacks.DDNAttack(steps=100), None), 2),
        "fmn": (
            FMN(100),
            "linf:min",
            in_foolbox(setting, attacks.LInfFMNAttack(steps=100), None),
            float("inf"),
        ),
        "deepfool": (DeepFool(), "l2:min", in_foolbox(setting, attacks.L2DeepFoolAttack(steps=50), None), 2),
        "cw": (
            CW(200, rounds=3),
            "l2:min",
            in_foolbox(setting, attacks.L2CarliniWagnerAttack(3, 200), None),
            2,
        ),
        "square": (
            Square(1000),
            "linf:8/255",
            in_torchattacks(setting, torchattacks.Square(whole, eps=eps, n_queries=1000)),
            None,
        ),
        "auto": (
            Auto(),
            "linf:8/255",
            in_torchattacks(setting, torchattacks.AutoAttack(whole, eps=eps, n_classes=10, seed=0)),
            None,
        ),
    }
    attack, threat, theirs, norm = rows[work]
    compare(benchmark, setting, setting.ours(attack, threat, "auto"), theirs, norm, rounds=3)


@pytest.mark.gpu
def test_one_step_on_a_gpu(benchmark: BenchmarkFixture, cifar10: rb.Data, real_data: Path) -> None:
    """A step of 512 images, none of which leaves, against the bare compiled bfloat16 pass."""
    setting = cifar(cifar10, real_data, "robust", "cuda", 512)
    steps = 100
    bare = setting.model.for_search("bfloat16", Effort(512, steps, compile=True))
    assert bare is not None
    x = setting.x.cuda()

    def passes() -> None:
        for _ in range(steps):
            leaf = x.detach().requires_grad_()
            torch.autograd.grad(bare.scores(leaf).sum(), leaf)
        torch.cuda.synchronize()

    samples = samples_for(setting.x, setting.y, torch.arange(512), setting.scores(setting.x))
    how = Search(precision="bfloat16", batch_size=512, compile=True)
    goal = parse_goal("untargeted,margin=1000")  # out of reach, so that every sample stays

    def ours() -> Outcome:
        return search(PGD(steps), setting.model, parse_threat("linf:8/255"), goal, samples, how)

    told(benchmark, over_bare=interleaved(ours, passes, 5))
    benchmark.pedantic(ours, rounds=1)
