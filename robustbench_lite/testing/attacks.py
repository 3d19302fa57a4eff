"""The laws of attacks, on every threat that an attack claims."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from functools import partial

import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.api import AttackResult, attack
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.errors import RobustError
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.settings import Search
from robustbench_lite.core.threat import Norm, Threat, norms
from robustbench_lite.search.attack import AnyAttack, Composite, Fitted
from robustbench_lite.search.normal import NormalForm
from robustbench_lite.testing.check import Check
from robustbench_lite.testing.subjects import (
    Counting,
    flat_model,
    linear_model,
    small_answers,
    small_forest,
    small_network,
)
from robustbench_lite.threats.named import parse_threat

SIZES = {Norm.LINF: "0.2", Norm.L2: "0.6", Norm.L1: "2", Norm.L0: "2"}
TRANSFORMS = (  # beside a rotation, which every law is tried on
    "affine:0.4", "flow:1.5,grid=4", "wasserstein:0.5", "color:0.8", "negative:1", "blur:1.5",
    "fog:0.8,grid=4", "snow:1", "rain:1", "patch:3x3", "rotation:20+linf:0.1",
)  # fmt: skip
PLAIN = Search(certify=0.0)  # without bounds, which are a law of their own
GOALS = ("untargeted,confidence=0.9", "class:0,margin=0.5")  # that ask for more than another class


@dataclass(frozen=True)
class Case:
    """An attack under a threat that it claims, on a model of its kind."""

    attack: AnyAttack
    threat: Threat
    task: str = "classification"

    @property
    def goal(self) -> str:
        """The plain goal, or where the attack aims at something, a class."""
        refused = self.attack.refuses(self.model(), self.threat, parse_goal("untargeted"))
        return "class:0" if refused else "untargeted"

    def model(self, classes: int = 3, double: bool = False) -> Model:
        """A small model with the access that the attack needs."""
        if self.task != "classification":
            return small_answers(self.task, classes, double=double)
        if self.attack.access is Access.STRUCTURE:
            plain = linear_model(classes)
            refused = self.attack.refuses(plain, self.threat, parse_goal("untargeted"))
            return small_forest(classes) if refused else plain
        return small_network(classes, double=double)

    def run(
        self, model: Model, x: Tensor, y: Tensor, goal: str = "", search: Search | None = None
    ) -> AttackResult:
        """The attack on samples; what can be proven of them is a law of its own."""
        settings = replace(search or PLAIN, certify=0.0)
        return attack(model, x, y, self.attack, self.threat, goal or self.goal, settings)

    def broken(self, model: Model, x: Tensor, y: Tensor) -> list[bool]:
        """Whether what the model says of each input is what the goal asks for."""
        target = None if self.goal == "untargeted" else torch.zeros_like(y)
        reached: list[bool] = model.task.reached(model.prediction(model.scores(x)), y, target).tolist()
        return reached


def attack_checks(given: str | AnyAttack) -> list[Check]:
    """Every law for every threat that an attack claims.

    Parameters
    ----------
    given : str or Attack
        As short as the laws may be tested on: steps and restarts are what cost.

    Returns
    -------
    list of Check
        Each callable without arguments; `str(check)` is a test's id.
    """
    chosen = get_attack(given)
    pairs: list[tuple[Case, Callable[[Case], None]]] = []
    if "classification" in chosen.tasks:
        pairs += [(Case(chosen, threat), law) for threat in claimed(chosen) for law in LAWS]
    if "transform" in chosen.threats:
        others = [parse_threat(text) for text in TRANSFORMS]
        fit = [t for t in others if chosen.refuses(small_network(), t, parse_goal("untargeted")) is None]
        pairs += [(Case(chosen, threat), law) for threat in fit for law in MAIN_LAWS]
    if "segmentation" in chosen.tasks:
        # One threat will do for attacks that are the same on classes.
        of_their_own = "classification" not in chosen.tasks
        balls = [threat for threat in claimed(chosen) if threat.kind == "ball"]
        met = balls if of_their_own else balls[-1:]
        pairs += [(Case(chosen, threat, "segmentation"), law) for threat in met for law in ANSWER_LAWS]
        if "sequence" in chosen.tasks:
            pairs += [(Case(chosen, met[0], "sequence"), law) for law in MAIN_ANSWER_LAWS]
    found = [
        Check(f"{case.attack}-{case.threat}-{case.task}-{law.__name__}", partial(law, case))
        for case, law in pairs
    ]
    return [*found, *(Check(f"{chosen}-{law.__name__}", partial(law, chosen)) for law in ALONE)]


def claimed(chosen: AnyAttack) -> Iterator[Threat]:
    """The threats that an attack says it works under: one size a norm, the smallest, and the other kinds."""
    cls = type(chosen)
    texts: list[str] = []
    if "ball" in cls.threats and cls.fixed_budget:
        texts += [f"{norm}:{SIZES[norm]}" for norm in sorted(cls.norms)]
    if "ball" in cls.threats and cls.minimum_norm:
        texts += [f"{norm}:min" for norm in sorted(cls.norms)]
    others = (("box", "box"), ("transform", "rotation:30,shift=0.2"))
    texts += [text for kind, text in others if kind in cls.threats]
    return (parse_threat(text) for text in texts)


def samples_of(model: Model, n: int = 20) -> tuple[Tensor, Tensor]:
    """Random inputs with the model's own answers as labels."""
    x = torch.rand((n, *model.input_shape), generator=torch.Generator().manual_seed(0))
    return x, model.prediction(model.scores(x))


def points_are_admissible_and_success_is_recomputed(case: Case) -> None:
    """What is returned lies inside the threat, and the records say what the model says."""
    model = case.model()
    x, y = samples_of(model, 30)
    result = case.run(model, x, y)
    records = result.records
    assert records["valid"].all(), records["reason"].dropna().unique()
    assert records["reason"].isna().all(), records["reason"].dropna().unique()
    assert result.adversarial.shape == x.shape
    assert records["success"].tolist() == case.broken(model, result.adversarial, y)
    assert torch.equal(case.threat.render(result.z, x), result.adversarial)
    if case.threat.norm is not None:
        delta = result.adversarial.double() - x.double()
        size = norms(delta, case.threat.domain, case.threat.norm)
        assert torch.allclose(torch.tensor(records[str(case.threat.norm)].to_numpy(float)), size)
    if case.threat.eps is not None:
        assert (torch.tensor(records["distance"].to_numpy(float)) <= case.threat.eps).all()
    assert ((records["queries_at_success"].notna()) == records["success"]).all()
    assert (records["outcome"] == records["success"].map({True: "broken", False: "held"})).all()


def nothing_lies_nearer_than_what_is_proven(case: Case) -> None:
    """On every model with bounds: the judge raises for a success below one."""
    if case.threat.norm is None:
        return
    for model in (linear_model(), small_forest()):
        if case.attack.refuses(model, case.threat, parse_goal("untargeted")) is None:
            x, y = samples_of(model, 6)
            records = attack(model, x, y, case.attack, case.threat).records
            assert records["bound_kind"].notna().all()


def it_is_at_least_as_strong_as_noise(case: Case) -> None:
    """An attack that a random point beats is none."""
    if case.attack.control:
        return
    model = case.model()
    x, y = samples_of(model, 20 if case.attack.access is Access.STRUCTURE else 60)  # each a programme there
    control = parse_threat("linf:1") if case.threat.minimum else case.threat
    random = replace(case, attack=get_attack("noise:steps=0"), threat=control)
    noise = random.run(model, x, y, case.goal).records["success"].sum()
    assert case.run(model, x, y).records["success"].sum() >= max(noise, 1)


def the_seed_makes_the_run_and_the_batch_size_does_not(case: Case) -> None:
    """In float64: a float32 matrix product rounds differently in another batch, and steps let that grow."""
    model = case.model(double=True)
    x, y = samples_of(model, 16)
    one, again = (case.run(model, x, y, search=Search(seed=3)) for _ in range(2))
    assert torch.equal(one.adversarial, again.adversarial)
    split = case.run(model, x, y, search=Search(seed=3, batch_size=6))
    if not isinstance(case.attack, Fitted):
        assert torch.allclose(one.adversarial, split.adversarial, atol=1e-6)
        for column in ("success", "forwards", "backwards", "queries_at_success"):
            assert one.records[column].equals(split.records[column]), column


def nothing_of_the_callers_changes(case: Case) -> None:
    """Neither samples, nor labels, nor the model, nor torch's generator."""
    model = case.model()
    x, y = samples_of(model, 8)
    before = x.clone(), y.clone(), model.scores(x), torch.get_rng_state()
    case.run(model, x, y)
    assert torch.equal(before[0], x)
    assert torch.equal(before[1], y)
    assert torch.equal(before[2], model.scores(x))
    assert torch.equal(before[3], torch.get_rng_state())


def one_sample_and_two_classes(case: Case) -> None:
    """The smallest input there is."""
    model = case.model(classes=2)
    x, y = samples_of(model, 1)
    result = case.run(model, x, y)
    assert result.adversarial.shape == x.shape
    assert result.records["valid"].all()


def samples_that_are_wrong_already_are_no_successes(case: Case) -> None:
    """A model's own mistakes are nobody's success."""
    model = case.model()
    x, y = samples_of(model, 6)
    result = case.run(model, x, (y + 1) % 3)
    assert not result.records["success"].any()
    assert (result.records["outcome"] == "wrong").all()
    if not case.attack.every_sample:
        assert torch.equal(result.z, case.threat.origin(x))
        assert (result.records["forwards"] == 0).all()


def corners_of_the_box(case: Case) -> None:
    """Samples that lie at the edge of what there is."""
    model = case.model()
    x = (torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    x[0], x[1] = 0, 1
    result = case.run(model, x, model.prediction(model.scores(x)))
    assert result.records["valid"].all()
    assert result.records["reason"].isna().all()


def targets(case: Case) -> None:
    """A success under a goal with targets is the target."""
    model = case.model(classes=4)
    x, y = samples_of(model, 12)
    for goal in ("random", "least_likely", "top:2"):
        records = case.run(model, x, y, goal).records
        reached = records.loc[records["success"].astype(bool)]
        assert (reached["adversarial_prediction"] == reached["target"]).all()
        assert (records["target"] != records["label"]).all()
        assert records["valid"].all()


def a_given_target(case: Case) -> None:
    """Classes that a user names; y itself is refused."""
    model = case.model(classes=4)
    x, y = samples_of(model, 10)
    wanted = (y + 1) % 4
    records = attack(model, x, y, case.attack, case.threat, wanted, PLAIN).records
    assert records["target"].tolist() == wanted.tolist()
    said = _refusal(lambda: attack(model, x, y, case.attack, case.threat, y))
    assert said is not None, "y was taken as a target"
    assert "target" in said


def the_budget_is_obeyed(case: Case) -> None:
    """To the last pass; a sample that no pass was left for is not attacked."""
    model = case.model()
    x, y = samples_of(model, 10)
    for budget in (1, 5, 12):
        records = case.run(model, x, y, search=Search(budget=budget)).records
        assert (records["forwards"] + records["backwards"] <= budget).all()
        unspent = records["forwards"] + records["backwards"] == 0
        assert (records.loc[unspent, "outcome"] == "unattacked").all()


def more_steps_never_lower_success(case: Case) -> None:
    """Twelve steps break what two break, in number."""
    if "steps" not in {field.name for field in fields(case.attack)}:
        return
    model = case.model()
    x, y = samples_of(model, 40)
    few, many = (
        replace(case, attack=replace(case.attack, **{"steps": steps})).run(model, x, y).records
        for steps in (2, 12)
    )
    if case.attack.name in ("noise", "iterative"):  # the same path, only longer
        assert (few["success"] <= many["success"]).all()
    assert few["success"].sum() <= many["success"].sum()


def flat_gradients_end_cleanly(case: Case) -> None:
    """Where no slope shows an attack still ends, and says that it met none."""
    if case.attack.access is Access.STRUCTURE:
        return
    x = torch.rand((5, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    records = case.run(flat_model(), x, torch.zeros(5, dtype=torch.int64)).records
    assert records["valid"].all()
    assert not records["success"].any()


def every_pass_is_counted(case: Case) -> None:
    """What the records say is what the model was really asked, and no more than the schedule foretells."""
    if isinstance(case.attack, Fitted):
        return  # what is learnt is counted apart
    counting = Counting(case.model(6))  # classes: more than most attacks look at first
    x, y = samples_of(counting, 10)
    counting.reset()
    records = case.run(counting, x, y, search=Search(batch_size=10)).records  # measuring memory asks too
    before = counting.looked(len(x), int(records["success"].sum()))
    assert int(records["forwards"].sum()) == counting.forwards - before
    assert int(records["backwards"].sum()) == counting.backwards
    if not isinstance(case.attack, Composite):
        most = case.attack.schedule(counting, case.threat).most_passes
        taken = int((records["forwards"] + records["backwards"]).max())
        assert most is None or taken <= most, "the algorithm says less"


def a_flat_start_is_left(case: Case) -> None:
    """A gradient of zero at the sample itself stops no attack that asks for gradients."""
    if (
        case.attack.access is not Access.GRADIENT
        or case.threat.kind != "ball"
        or isinstance(case.attack, Fitted)
    ):
        return
    model = small_network(plateau=True)
    generator = torch.Generator().manual_seed(0)
    x = 0.5 + 0.02 * (torch.rand((12, 1, 4, 4), generator=generator) - 0.5)
    y = model.prediction(model.scores(x))
    size = {Norm.LINF: "0.45", Norm.L2: "1.8", Norm.L1: "7", Norm.L0: "16"}[case.threat.norm or Norm.L2]
    threat = case.threat if case.threat.minimum else parse_threat(f"{case.threat.norm}:{size}")
    records = Case(case.attack, threat).run(model, x, y).records
    steep = Case(case.attack, threat).run(small_network(), x, y).records["success"].any()
    one_shot = case.attack.schedule(model, threat).steps == 0
    assert records["success"].any() or one_shot or not steep, "nothing left the plateau"


def steps_of_features_are_kept(case: Case) -> None:
    """Every point lies on the grid of features that take steps, of any width and offset, and in the box."""
    if case.threat.kind != "ball":
        return
    model = case.model()
    # A row of features each: continuous, tenths from .03 on, sevenths, and steps finer than pixels have.
    width = torch.tensor([0.0, 0.1, 1 / 7, 1 / 99_999], dtype=torch.float64)[:, None].expand(1, 4, 4)
    offset = torch.tensor([0.0, 0.03, 0.0, 0.0], dtype=torch.float64)[:, None].expand(1, 4, 4)
    count = 4 if case.attack.access is Access.STRUCTURE else 15  # each a programme over whole numbers
    drawn = torch.rand((count, 1, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    stepped, size = width > 0, width.clamp_min(1e-9)
    most = ((1 - offset) / size).floor()
    x = torch.where(stepped, offset + (drawn * most).round() * width, drawn).float()
    y = model.prediction(model.scores(x))
    domain = replace(case.threat.domain, spacing=width.contiguous())
    if case.attack.refuses(model, case.threat.within(domain), parse_goal("untargeted")):
        return
    result = Case(case.attack, case.threat.within(domain)).run(model, x, y)
    assert result.records["valid"].all(), result.records["reason"].dropna().unique()
    steps = (result.adversarial.double() - offset) / size
    off = ((steps - steps.round()).abs() * width)[:, stepped]
    assert float(off.max()) < 4e-7


def any_box_is_the_same(case: Case) -> None:
    """On model(x / 256) in a box 256 times as wide: the same to the last bit, at 256 times the distance."""
    model, form = case.model(), NormalForm(1 / 256)
    x, y = samples_of(model, 10)
    plain = case.run(model, x, y)
    wide = replace(case, attack=form.attack(case.attack), threat=form.threat(case.threat))
    wider = wide.run(form.model(model), 256 * x, y)
    assert torch.equal(wider.adversarial, 256 * plain.adversarial)
    unit = 1.0 if case.threat.norm is Norm.L0 or not case.threat.over_inputs else 256.0
    for column, times in (("success", 1.0), ("forwards", 1.0), ("backwards", 1.0), ("distance", unit)):
        one, other = (r.records[column].to_numpy(float) for r in (plain, wider))
        assert ((times * one == other) | (one != one)).all(), column


def positions_are_counted(case: Case) -> None:
    """The shares and errors of the records are those of the answers; what has no label counts in nothing."""
    model = case.model()
    x, said = samples_of(model, 12)
    y = said.clone()
    y.flatten(1)[:, ::3] = -1
    result = case.run(model, x, y)
    now = model.prediction(model.scores(result.adversarial))
    for column, held in (
        ("clean_wrong_share", model.task.wrong_share(said, y)),
        ("wrong_share", model.task.wrong_share(now, y)),
        ("error", model.task.error(now, y, model.num_classes)),
    ):
        assert torch.allclose(torch.tensor(result.records[column].to_numpy(float)), held), column
    wrong = ((now != y) & (y >= 0)).flatten(1).sum(1).double() / (y >= 0).flatten(1).sum(1)
    assert result.records["wrong_share"].tolist() == wrong.tolist()
    assert result.records[["label", "target", "adversarial_prediction"]].isna().all(axis=None)


def masks_are_reached(case: Case) -> None:
    """A success under a goal with a mask shows the mask; a mask that is there already is nothing to reach."""
    model = case.model()
    x, y = samples_of(model, 12)
    for goal, target in (("class:0", torch.zeros_like(y)), ((y + 1) % 3, (y + 1) % 3), (y, y)):
        records = attack(model, x, y, case.attack, case.threat, goal, PLAIN).records
        before = model.task.reached(y, y, target)
        assert not records.loc[before.tolist(), "success"].any()
        assert records["valid"].all()


def it_is_frozen_and_pickles(chosen: AnyAttack) -> None:
    """An attack is a value: it cannot be changed, and can be sent to another process."""
    for field in fields(chosen):
        try:
            setattr(chosen, field.name, 1)
        except FrozenInstanceError:
            continue
        raise AssertionError(f"{field.name} can be set")
    assert pickle.loads(pickle.dumps(chosen)) == chosen


def every_pair_runs_or_is_refused_in_a_line(chosen: AnyAttack) -> None:
    """Under every threat there is, and under goals with options, with models of every access."""
    from robustbench_lite.core.registry import entries

    texts = [f"{norm}:{size}" for norm, size in SIZES.items()] + [f"{norm}:min" for norm in Norm]
    texts += ["box", "rotation:20,shift=0.1", "patch:2x2"]
    assert {text.partition(":")[0] for text in texts} <= set(entries("threats"))
    network = small_network()
    answers = [small_answers(task) for task in ("segmentation", "sequence") if task in chosen.tasks]
    for model in (linear_model(), network, *answers):
        x, y = samples_of(model, 3)
        pairs = [(text, "untargeted") for text in texts]
        pairs += [(text, goal) for text in ("linf:0.1", "l2:min") for goal in GOALS]
        for text, goal_text in pairs:
            threat, goal = parse_threat(text), parse_goal(goal_text)
            if goal_text == "untargeted" and not chosen.refuses(model, threat, goal):
                continue  # which the other laws run
            frames: list[pd.DataFrame] = []
            run = partial(attack, model, x, y, chosen, threat, goal, PLAIN)
            said = _refusal(lambda: frames.append(run().records))  # noqa: B023
            assert (said is None) == (chosen.refuses(model, threat, goal) is None)
            assert said is None or "\n" not in said
            assert all(records["valid"].all() for records in frames)


def _refusal(ask: Callable[[], object]) -> str | None:
    """What is said where something is refused; None where it is done."""
    try:
        ask()
    except RobustError as error:
        return str(error)
    return None


LAWS: Sequence[Callable[[Case], None]] = (
    points_are_admissible_and_success_is_recomputed,
    nothing_lies_nearer_than_what_is_proven,
    it_is_at_least_as_strong_as_noise,
    the_seed_makes_the_run_and_the_batch_size_does_not,
    nothing_of_the_callers_changes,
    one_sample_and_two_classes,
    samples_that_are_wrong_already_are_no_successes,
    corners_of_the_box,
    targets,
    a_given_target,
    the_budget_is_obeyed,
    more_steps_never_lower_success,
    flat_gradients_end_cleanly,
    every_pass_is_counted,
    a_flat_start_is_left,
    steps_of_features_are_kept,
    any_box_is_the_same,
)
MAIN_ANSWER_LAWS: Sequence[Callable[[Case], None]] = (
    points_are_admissible_and_success_is_recomputed,
    it_is_at_least_as_strong_as_noise,
    positions_are_counted,
)
ANSWER_LAWS: Sequence[Callable[[Case], None]] = (
    *MAIN_ANSWER_LAWS,
    masks_are_reached,
    the_seed_makes_the_run_and_the_batch_size_does_not,
    nothing_of_the_callers_changes,
    samples_that_are_wrong_already_are_no_successes,
    corners_of_the_box,
    the_budget_is_obeyed,
    every_pass_is_counted,
    any_box_is_the_same,
)
MAIN_LAWS = (points_are_admissible_and_success_is_recomputed, it_is_at_least_as_strong_as_noise)
ALONE: Sequence[Callable[[AnyAttack], None]] = (
    it_is_frozen_and_pickles,
    every_pair_runs_or_is_refused_in_a_line,
)
