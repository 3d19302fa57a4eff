"""The Python face: attack one model on tensors, and the lists of what there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.attacks import ATTACKS
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidData, InvalidParameter
from robustbench_lite.core.goal import Targets, parse_goal
from robustbench_lite.core.model import parse_precision
from robustbench_lite.core.registry import Entry, entries
from robustbench_lite.data import DATA
from robustbench_lite.data.data import Data
from robustbench_lite.diagnosis.checks import diagnose as find_flags
from robustbench_lite.jobs.job import Cell, execute, learn
from robustbench_lite.judging.judge import clean_scores
from robustbench_lite.models import MODELS
from robustbench_lite.models.load import ModelLike, as_model, load_model
from robustbench_lite.search.attack import Attack
from robustbench_lite.search.driver import Progress, Search
from robustbench_lite.threats.named import parse_threat


@dataclass(frozen=True)
class AttackResult:
    """adversarial: same shape and dtype as x; records: one row a sample, judged."""

    adversarial: Tensor
    records: pd.DataFrame

    @property
    def success(self) -> Tensor:
        """Whether each sample was broken (n,), by the judge's word."""
        return torch.from_numpy(self.records["success"].to_numpy(dtype=bool))


def attack(
    model: ModelLike,
    x: Tensor,
    y: Tensor,
    attack: str | Attack,
    threat: str = "linf:8/255",
    seed: int = 0,
    *,
    goal: str = "untargeted",
    targets: Tensor | None = None,
    domain: Domain | None = None,
    batch_size: int | None = None,
    budget: int | None = None,
    eot: int = 1,
    precision: str = "auto",
    compile: bool | None = None,
    time_limit: float | None = None,
    eight_bit: bool = False,
    progress: Progress = lambda fraction: None,
    **parameters: object,
) -> AttackResult:
    """Attack a model on samples x (n, …) in [0, 1] with classes y (n,), and judge what comes back.

    model: a `torch.nn.Module`, a scikit-learn classifier, a NumPy function, a `Model`, or a name of the zoo
    trained on digits. attack: a name with parameters (`"iterative:steps=100"`, or as keywords, checked
    against its fields), or an `Attack`. targets (n,): the classes to reach, for goal `given`. domain: the
    inputs there are, where that is not the box [0, 1] of images. The search runs where the model is. Raises
    `InvalidParameter`, `InvalidData`, `Unsupported`.
    """
    how = Search(seed, batch_size, budget, time_limit, eot, parse_precision(precision), compile)
    cell = _cell(model, x, y, attack, parameters, threat, goal, targets, domain, how, eight_bit)
    done = execute(cell, learnt=learn(cell, cell.data), progress=progress)
    moved = done.adversarial.to(x)
    changed = done.adversarial != cell.data.x
    return AttackResult(torch.where(changed.to(x.device), moved, x), done.records)


def diagnose(
    model: ModelLike,
    x: Tensor,
    y: Tensor,
    attack: str | Attack,
    threat: str = "linf:8/255",
    seed: int = 0,
    *,
    goal: str = "untargeted",
    domain: Domain | None = None,
    batch_size: int | None = None,
    eot: int = 1,
    **parameters: object,
) -> pd.DataFrame:
    """Whether an attack's success can be trusted: one row a check, with its number, its limit, what is next.

    The arguments are `attack`'s. Raises `Unsupported` for what is no gradient attack at a fixed eps.
    """
    how = Search(seed, batch_size, eot=eot)
    return find_flags(_cell(model, x, y, attack, parameters, threat, goal, None, domain, how))


def _cell(
    model: ModelLike,
    x: Tensor,
    y: Tensor,
    attack: str | Attack,
    parameters: Mapping[str, object],
    threat: str,
    goal: str,
    targets: Tensor | None,
    domain: Domain | None,
    how: Search,
    eight_bit: bool = False,
) -> Cell:
    """Tensors, names and numbers as one cell, everything checked."""
    if isinstance(attack, Attack):
        chosen = attack
        if parameters:
            raise InvalidParameter("parameters", sorted(parameters), "none beside a ready Attack")
    else:
        chosen = get_attack(attack, parameters)
    if targets is not None and goal == "untargeted":
        goal = str(Targets.GIVEN)
    data = _as_data(x, y, domain)
    found = load_model(model) if isinstance(model, str) else as_model(model, data.x.shape[1:], x=data.x)
    names = tuple(str(c) for c in range(found.num_classes))
    data = replace(data, class_names=names, source=lambda: data)
    if int(data.y.max()) >= found.num_classes:
        raise InvalidData(f"y has class {int(data.y.max())}; the model has {found.num_classes}")
    return Cell(
        data,
        found,
        chosen,
        parse_threat(threat, data.domain),
        parse_goal(goal),
        clean_scores(found, data.x),
        how,
        eight_bit,
        None if targets is None else targets.cpu(),
    )


def list_attacks() -> pd.DataFrame:
    """Every attack: name, one line, access, norms, paper."""
    return _listing("attacks", ATTACKS, ["summary", "access", "norms", "paper"])


def list_models() -> pd.DataFrame:
    """Every named model: name, one line, access, paper."""
    return _listing("models", MODELS, ["summary", "access", "paper"])


def list_data() -> pd.DataFrame:
    """Every data set: name, one line, paper."""
    return _listing("data", DATA, ["summary", "paper"])


def _listing(kind: str, table: Mapping[str, Entry], columns: list[str]) -> pd.DataFrame:
    rows = [[e.name, *(getattr(e, c) for c in columns)] for e in entries(kind, table).values()]
    return pd.DataFrame(rows, columns=["name", *columns]).set_index("name")


def _as_data(x: Tensor, y: Tensor, domain: Domain | None) -> Data:
    if not x.is_floating_point():
        raise InvalidData(f"x is {x.dtype}; must be floating point in [0, 1]: divide integer images by 255")
    if x.dim() < 2 or y.shape != x.shape[:1] or y.is_floating_point() or not len(y):
        raise InvalidData(
            f"x {tuple(x.shape)}, y {y.dtype} {tuple(y.shape)}; must be (n, …) and (n,) classes"
        )
    plain = x.detach().cpu().float()
    within = domain or Domain()
    good = within.inside(plain)
    if not bool(good.all()):
        row = int((~good).nonzero()[0])
        low, high = float(plain[row].min()), float(plain[row].max())
        raise InvalidData(f"x, sample {row}: values from {low:g} to {high:g}; must lie in the box, [0, 1]")
    if int(y.min()) < 0:
        raise InvalidData(f"y, sample {int(y.argmin())}: class {int(y.min())}; must be at least 0")
    return Data("own data", plain, y.cpu().long(), torch.arange(len(y)), ("0", "1"), within)
