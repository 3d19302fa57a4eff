"""The Python face: attack one model on tensors, diagnose, and the lists of what there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidData
from robustbench_lite.core.goal import Goal, Targets, parse_goal
from robustbench_lite.core.registry import entries
from robustbench_lite.core.settings import Search
from robustbench_lite.core.threat import Threat
from robustbench_lite.data.data import Data
from robustbench_lite.diagnosis.checks import diagnose_work
from robustbench_lite.jobs.job import Work, carry_out
from robustbench_lite.jobs.make import learn, prove
from robustbench_lite.judging.judge import look_clean
from robustbench_lite.models.load import ModelLike, as_model, load_model
from robustbench_lite.search.attack import AnyAttack, Fitted
from robustbench_lite.threats.named import parse_threat

Progress = Callable[[float], None]


@dataclass(frozen=True)
class AttackResult:
    """What an attack came to.

    Parameters
    ----------
    adversarial : Tensor
        (n, …), the shape and type of the samples; the original where nothing better was found.
    records : pandas.DataFrame
        One judged row a sample.
    z : Tensor
        What the threat makes the inputs of: the inputs themselves for balls, angles and shifts for others.
    """

    adversarial: Tensor
    records: pd.DataFrame
    z: Tensor

    @property
    def success(self) -> Tensor:
        """Whether each sample was broken (n,), by the judge's word."""
        return torch.from_numpy(self.records["success"].to_numpy(dtype=bool))


def attack(
    model: ModelLike,
    x: Tensor,
    y: Tensor,
    attack: str | AnyAttack,
    threat: str | Threat = "linf:8/255",
    goal: str | Goal | Tensor = "untargeted",
    search: Search | None = None,
    progress: Progress = lambda fraction: None,
) -> AttackResult:
    """Attack a model on samples and judge what comes back.

    Parameters
    ----------
    model : torch.nn.Module, scikit-learn classifier, NumPy function, Model or str
        A name means a model of the zoo, trained on digits.
    x : Tensor
        (n, …) floating point, in the threat's domain: [0, 1] unless it says otherwise.
    y : Tensor
        (n,) whole numbers, the true classes.
    attack : str or Attack
        Such as `"iterative:steps=100"`.
    threat : str or Threat, default "linf:8/255"
        Text means the box [0, 1]; `rb.parse_threat(text, domain)` makes one in another domain.
    goal : str, Goal or Tensor, default "untargeted"
        `random`, `least_likely`, `top:3`, `class:7`, …; a tensor (n,) of classes to reach.
    search : Search, optional
        Seed, batch size, budget and the like. The search runs where the model is.
    progress : callable
        Called with the fraction done.

    Returns
    -------
    AttackResult

    Raises
    ------
    InvalidParameter, InvalidData, InvalidModel, Unsupported

    Examples
    --------
    >>> import robustbench_lite as rb
    >>> digits = rb.load_data("digits", samples=5)
    >>> rb.attack("linear", digits.x, digits.y, "exact", "l2:min").adversarial.shape
    torch.Size([5, 1, 8, 8])
    """
    work = work_of(model, x, y, attack, threat, goal, search or Search())
    found = carry_out(work, progress=progress)
    moved = found.adversarial.to(x)
    changed = found.adversarial != work.data.x
    return AttackResult(torch.where(changed.to(x.device), moved, x), found.records, found.z)


def diagnose(
    model: ModelLike,
    x: Tensor,
    y: Tensor,
    attack: str | AnyAttack,
    threat: str | Threat = "linf:8/255",
    goal: str | Goal | Tensor = "untargeted",
    search: Search | None = None,
) -> pd.DataFrame:
    """Whether an attack's success can be trusted: one row a check, with its number, its limit, what is next.

    The parameters are `attack`'s. Raises `Unsupported` for what is no gradient attack at a fixed eps.
    """
    return diagnose_work(work_of(model, x, y, attack, threat, goal, search or Search()))


def work_of(
    model: ModelLike,
    x: Tensor,
    y: Tensor,
    attack: str | AnyAttack,
    threat: str | Threat,
    goal: str | Goal | Tensor,
    search: Search,
) -> Work:
    """Tensors, names and numbers as a job made real, everything checked."""
    chosen = get_attack(attack)
    within = parse_threat(threat)
    given = goal.cpu() if isinstance(goal, Tensor) else None
    aim = (
        Goal(Targets.GIVEN)
        if isinstance(goal, Tensor)
        else parse_goal(goal)
        if isinstance(goal, str)
        else goal
    )
    data = _as_data(x, y, within.domain)
    found = load_model(model) if isinstance(model, str) else as_model(model, data.x.shape[1:], x=data.x)
    names = tuple(str(c) for c in range(found.num_classes))
    data = replace(data, class_names=names, source=lambda: data)
    if int(data.y.max()) >= found.num_classes:
        raise InvalidData(f"y has class {int(data.y.max())}; the model has {found.num_classes}")
    clean = look_clean(found, data.x, data.y, data.ids, search)
    work = Work(data, found, clean, chosen, within, aim, search, given=given)
    bounds, seconds = prove(found, within, aim, data, clean, search, given)
    work = replace(work, bounds=bounds, certify_seconds=seconds)
    return replace(work, fitting=learn(work, data)) if isinstance(chosen, Fitted) else work


def list_attacks() -> pd.DataFrame:
    """Every attack: name, one line, access, norms, paper."""
    return _listing("attacks", ["summary", "access", "norms", "paper"])


def list_models() -> pd.DataFrame:
    """Every named model: name, one line, access, paper."""
    return _listing("models", ["summary", "access", "paper"])


def list_data() -> pd.DataFrame:
    """Every data set: name, one line, paper."""
    return _listing("data", ["summary", "paper"])


def list_threats() -> pd.DataFrame:
    """Every threat: name, one line, paper."""
    return _listing("threats", ["summary", "paper"])


def _listing(kind: str, columns: list[str]) -> pd.DataFrame:
    rows = [[e.name, *(getattr(e, c) for c in columns)] for e in entries(kind).values()]
    return pd.DataFrame(rows, columns=["name", *columns]).set_index("name")


def _as_data(x: Tensor, y: Tensor, domain: Domain) -> Data:
    if not x.is_floating_point():
        raise InvalidData(f"x is {x.dtype}; must be floating point in [0, 1]: divide integer images by 255")
    if x.dim() < 2 or y.shape != x.shape[:1] or y.is_floating_point() or not len(y):
        raise InvalidData(
            f"x {tuple(x.shape)}, y {y.dtype} {tuple(y.shape)}; must be (n, …) and (n,) classes"
        )
    plain = x.detach().cpu().float()
    good = domain.inside(plain)
    if not bool(good.all()):
        row = int((~good).nonzero()[0])
        low, high = float(plain[row].min()), float(plain[row].max())
        raise InvalidData(f"x, sample {row}: values from {low:g} to {high:g}; must lie in the box, [0, 1]")
    if int(y.min()) < 0:
        raise InvalidData(f"y, sample {int(y.argmin())}: class {int(y.min())}; must be at least 0")
    return Data("own data", plain, y.cpu().long(), torch.arange(len(y)), ("0", "1"), domain)
