"""The Python face: attack one model on tensors, diagnose, and the lists of what there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.dense import MultiLabel, Segmentation
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidData, InvalidParameter
from robustbench_lite.core.goal import Goal, Targets, parse_goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.registry import entries
from robustbench_lite.core.settings import Search
from robustbench_lite.core.task import Classification
from robustbench_lite.core.threat import Threat
from robustbench_lite.data.arrays import told
from robustbench_lite.data.columns import Column, Columns
from robustbench_lite.data.data import Data
from robustbench_lite.data.given import classes, label_sets, labels_of_positions, numbered, numbers
from robustbench_lite.diagnosis.checks import diagnose_work
from robustbench_lite.jobs.job import Work, carry_out
from robustbench_lite.jobs.make import learn, starts_for
from robustbench_lite.jobs.proofs import prove
from robustbench_lite.judging.judge import look_clean
from robustbench_lite.models.load import ModelLike, load_model
from robustbench_lite.models.names import brought
from robustbench_lite.models.own import as_model
from robustbench_lite.progress import watched
from robustbench_lite.search.attack import AnyAttack, Fitted
from robustbench_lite.search.fitting import OutOfTime
from robustbench_lite.threats.named import doubts_of, parse_threat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    told : tuple of str
        What to know of the model and the threat.
    originals : Tensor
        (n, …) float32, what was attacked.
    """

    adversarial: Tensor
    records: pd.DataFrame
    z: Tensor
    told: tuple[str, ...] = ()
    originals: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)

    @property
    def success(self) -> Tensor:
        """Whether each sample was broken (n,), by the judge's word."""
        return torch.from_numpy(self.records["success"].to_numpy(dtype=bool).copy())

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the model, and what makes the result doubtful."""
        from robustbench_lite.reports.findings import doubts
        from robustbench_lite.reports.results import Results

        rows = Results(self.records).table("summary").to_dict("records")
        return tuple(
            dict.fromkeys([*self.told, *(said for row in rows for said in doubts(self.records, row))])
        )

    def plot(self, most: int = 6) -> Figure:
        """The samples that were broken, what they became and the change between; of no images, the distances.

        Parameters
        ----------
        most : int, default 6
            Samples at most.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from robustbench_lite.reports.figures.pairs import before_and_after, sizes

        axis = Domain().pixel_axis(self.originals.shape[1:])
        if axis is None or self.originals.dim() != 4:
            return sizes(self.records)
        won = self.success.nonzero()[:most, 0]
        before, after = (
            part.detach().cpu().float()[won].movedim(axis + 1, 3).numpy()
            for part in (self.originals, self.adversarial)
        )
        return before_and_after(before, after, self.records.iloc[won.tolist()])

    def _repr_html_(self) -> str:
        """A summary and the notes, for notebooks."""
        from robustbench_lite.reports.results import Results

        return Results(self.records, notes=self.notes).to_html()


def attack(
    model: ModelLike,
    x: object,
    y: object,
    attack: str | AnyAttack | type[AnyAttack],
    threat: str | Threat | tuple[str, object] = "linf:8/255",
    goal: str | Goal | object = "untargeted",
    search: Search | None = None,
    progress: Progress | None = None,
) -> AttackResult:
    """Attack a model on samples and judge what comes back.

    Parameters
    ----------
    model : torch.nn.Module, scikit-learn classifier, NumPy function, Model or str
        A name means a model of the zoo, trained on digits.
    x : Tensor, array, DataFrame or list
        (n, …) floating point, in the threat's domain: [0, 1] unless it says otherwise.
    y : Tensor, array, Series or list
        (n,) the true classes: whole numbers, an estimator's own labels, or one-hot rows; (n, H, W) of a
        segmentation, -1 where a pixel has none; 0 and 1 (n, L) for labels that are there or not, unless every
        row has exactly one, which is then its class.
    attack : str, Attack or class of attacks
        Such as `"iterative:steps=100"`.
    threat : str or Threat, default "linf:8/255"
        Text means the box [0, 1]; `rb.parse_threat(text, domain)` makes one in another domain.
    goal : str, Goal, Tensor or list, default "untargeted"
        `random`, `least_likely`, `top:3`, `class:7`, …; or (n,) classes to reach, (n, H, W) masks.
    search : Search, optional
        Seed, batch size, budget and the like. The search runs where the model is.
    progress : callable, optional
        Called with the fraction done; None: a bar in a terminal or notebook, where it takes longer than two
        seconds.

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
    work = work_of(model, x, y, attack, threat, goal, Search() if search is None else search)
    with watched(str(work), progress) as tell:
        found = carry_out(work, progress=tell)
    notes = (*work.data.task.told(), *work.model.notes, *doubts_of(work.threat))
    if work.data.columns is not None:
        cells = torch.from_numpy(work.data.columns.array(found.adversarial))
        return AttackResult(
            cells.to(x) if isinstance(x, Tensor) else cells,
            found.records,
            found.z,
            notes,
            work.data.x,
        )
    handed = x.detach() if isinstance(x, Tensor) and x.is_floating_point() else work.data.x
    handed = handed.to_dense() if handed.layout is not torch.strided else handed
    moved, changed = found.adversarial.to(handed), found.adversarial != work.data.x
    adversarial = torch.where(changed.to(handed.device), moved, handed)
    return AttackResult(adversarial, found.records, found.z, notes, work.data.x)


def diagnose(
    model: ModelLike,
    x: object,
    y: object,
    attack: str | AnyAttack | type[AnyAttack],
    threat: str | Threat | tuple[str, object] = "linf:8/255",
    goal: str | Goal | object = "untargeted",
    search: Search | None = None,
) -> pd.DataFrame:
    """Whether an attack's success can be trusted: one row a check, with its number, its limit, what is next.

    The parameters are `attack`'s. Raises `Unsupported` for what is no gradient attack at a fixed eps.
    """
    return diagnose_work(work_of(model, x, y, attack, threat, goal, Search() if search is None else search))


def work_of(
    model: ModelLike,
    x: object,
    y: object,
    attack: str | AnyAttack | type[AnyAttack],
    threat: str | Threat | tuple[str, object],
    goal: str | Goal | object,
    search: Search,
) -> Work:
    """Tensors, names and numbers as a job made real, everything checked."""
    if not isinstance(search, Search):
        raise InvalidParameter("search", search, "a Search, such as Search(seed=1)")
    chosen, within = get_attack(attack), parse_threat(threat)
    data, written = _as_data(model, x, y, within.domain)
    within = within if data.columns is None else within.within(data.domain)
    aim, given = _aim(goal, data)
    found = _model_for(model, data)
    own = tuple(str(c) for c in range(found.num_classes))
    data = replace(data, class_names=(*data.class_names, *own[data.num_classes :]), source=lambda: data)
    if int(data.y.max()) >= found.num_classes:
        raise InvalidData(f"y has class {int(data.y.max())}; the model has {found.num_classes}")
    clean = look_clean(found, data.x, data.y, data.ids, search)
    starts = starts_for(chosen, data)
    work = Work(data, found, clean, chosen, within, aim, search, given=given, starts=starts, written=written)
    proof = prove(found, within, aim, data, clean, search, given)
    work = replace(work, bounds=proof.bounds, certify_seconds=proof.seconds)
    if not isinstance(chosen, Fitted):
        return work
    try:
        return replace(work, fitting=learn(work, data))
    except OutOfTime:
        return work


def _aim(goal: object, data: Data) -> tuple[Goal, Tensor | None]:
    """A goal, and the classes to reach where these were given."""
    if isinstance(goal, Goal):
        return goal, None
    if isinstance(goal, str):
        return parse_goal(goal), None
    if goal is None or isinstance(goal, int | float | dict):
        allowed = "a goal such as 'random' or 'class:7', or a class to reach for each sample"
        raise InvalidParameter("goal", goal, allowed)
    if data.y.dim() > 1:
        return Goal(Targets.GIVEN), labels_of_positions(goal, len(data), "goal", tuple(data.y.shape[1:]))
    targets, names = classes(goal, len(data), "goal")
    if names is not None:
        raise InvalidData("goal: classes to reach must be whole numbers")
    return Goal(Targets.GIVEN), targets


def _model_for(model: ModelLike, data: Data) -> Model:
    """The model: one of the zoo, trained on digits, or what a user brings, read with the help of the data."""
    if isinstance(model, str):
        made = load_model(model, data if brought(model)[0] else "digits")
        return as_model(made, data)
    return as_model(model, data)


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


def _as_data(model: object, x: object, y: object, domain: Domain) -> tuple[Data, torch.dtype | None]:
    """Samples as data, and the shorter type of number that they came in."""
    given = numbers(x, "x")
    if not given.is_floating_point():
        if given.dtype == torch.uint8 or given.is_complex() or given.is_quantized:
            raise InvalidData(
                f"x is {told(given)}; must be floating point in [0, 1]: divide integer images by 255"
            )
        given = given.double()
    if given.dim() < 2 or not given.numel():
        raise InvalidData(f"x has shape {tuple(given.shape)}; must be (n, …), samples with features")
    plain = given.float()
    columns = None
    if plain.dim() == 2 and bool(plain.isnan().any()):
        columns, plain, domain = _with_gaps(plain, domain)
    task = model.task if isinstance(model, Model) else Classification()
    if task.kind == "classification" and isinstance(y, Tensor | np.ndarray) and y.ndim == 3:
        task = Segmentation()
    sets = label_sets(y)
    if sets is not None and task.kind == "classification":
        task, y = MultiLabel(), sets
    if task.kind != "classification":
        answers = labels_of_positions(y, len(plain), "y")
        _inside(plain, domain)
        count = answers.shape[1] if task.kind == "multilabel" else int(answers.max()) + 1
        named = tuple(map(str, range(count)))
        data = Data("own data", plain, answers, torch.arange(len(answers)), named, domain, task=task)
        return data, given.dtype if given.dtype in (torch.float16, torch.bfloat16) else None
    labels = [] if getattr(model, "classes_", None) is None else list(model.classes_)  # type: ignore[attr-defined]
    own = numbered(y, labels, len(plain)) if labels else None
    names = None if own is None else tuple(map(str, labels))
    number = own
    if number is None:
        number, names = classes(y, len(plain), "y")
    _inside(plain, domain)
    if int(number.min()) < 0:
        raise InvalidData(f"y, sample {int(number.argmin())}: class {int(number.min())}; must be at least 0")
    named = tuple(names or map(str, range(int(number.max()) + 1)))
    data = Data("own data", plain, number, torch.arange(len(number)), named, domain, columns)
    return data, given.dtype if given.dtype in (torch.float16, torch.bfloat16) else None


def _inside(x: Tensor, domain: Domain) -> None:
    good = domain.inside(x)
    if not bool(good.all()):
        row = int((~good).nonzero()[0])
        low, high = float(x[row].min()), float(x[row].max())
        raise InvalidData(f"x, sample {row}: values from {low:g} to {high:g}; must lie in the box, [0, 1]")


def _with_gaps(x: Tensor, domain: Domain) -> tuple[Columns, Tensor, Domain]:
    """A table (n, d) with empty cells as features: numbers, and whether they are missing, which stays.

    Raises `InvalidData` where the box is not one for all features.
    """
    if isinstance(domain.low, Tensor) or isinstance(domain.high, Tensor) or domain.mask is not None:
        raise InvalidData(
            "x has empty cells (NaN); a box, mask or steps for each feature cannot be kept then"
        )
    gaps = x.isnan().any(0).tolist()
    columns = Columns(tuple(Column(f"feature {i}", gaps=gap) for i, gap in enumerate(gaps)))
    features = columns.scaled(pd.DataFrame(x.double().numpy(), columns=[c.name for c in columns.columns]))
    return columns, features.float(), replace(domain, mask=columns.mask, pixel_dim=None)
