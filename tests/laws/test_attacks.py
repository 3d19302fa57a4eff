"""The laws that every registered attack obeys, on every norm it claims."""

import copy
from dataclasses import fields

import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.attacks import ATTACKS
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.errors import InvalidParameter, RobustError, UnknownName
from robustbench_lite.core.model import Access, Model
from robustbench_lite.core.threat import Norm, norms
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.zoo.linear import LinearModel
from robustbench_lite.search.attack import Composite, Fitted, defaults
from robustbench_lite.threats.named import parse_threat
from tests.conftest import SHORT, attack_class, linear_model, samples_of, small_network, threats_of

SIZES = {Norm.LINF: 0.2, Norm.L2: 0.6, Norm.L1: 2.0, Norm.L0: 2.0}


def model_for(name: str, classes: int = 3) -> Model:
    structure = attack_class(name).access is Access.STRUCTURE
    return linear_model(classes) if structure else small_network(classes)


CASES = [(name, threat) for name in ATTACKS for threat in threats_of(name, SIZES)]
cases = pytest.mark.parametrize(("name", "threat"), CASES, ids=[f"{n}-{t}" for n, t in CASES])
names = pytest.mark.parametrize("name", list(ATTACKS))


def run(name: str, threat: str, model: Model, x: Tensor, y: Tensor, **options: object) -> rb.AttackResult:
    return rb.attack(model, x, y, name, threat, **(SHORT.get(name, {}) | options))  # type: ignore[arg-type]


@names
def test_the_table_tells_the_truth_about_the_class(name: str) -> None:
    cls, entry = attack_class(name), ATTACKS[name]
    assert (entry.name, cls.name) == (name, name)
    assert entry.access == cls.access.name.lower()
    assert entry.norms == " ".join(sorted(cls.norms))
    assert entry.paper == cls.paper
    assert cls.__doc__
    assert entry.summary


@names
def test_parameters_are_frozen_and_checked(name: str) -> None:
    attack = get_attack(name)
    assert attack_class(name)(**defaults(attack_class(name))) == attack
    with pytest.raises(UnknownName, match="nonsense"):
        get_attack(f"{name}:nonsense=1")
    for field in fields(attack):
        with pytest.raises(AttributeError):
            setattr(attack, field.name, 1)
        if field.type in ("int", "float", "int | None", "float | None"):
            with pytest.raises(InvalidParameter, match=field.name):
                get_attack(f"{name}:{field.name}=many")
            with pytest.raises(InvalidParameter, match=field.name):
                get_attack(f"{name}:{field.name}=-3")


@cases
def test_points_are_admissible_and_success_is_recomputed(name: str, threat: str) -> None:
    model = model_for(name)
    x, y = samples_of(model, 30)
    result = run(name, threat, model, x, y)
    records = result.records
    assert records["valid"].all()
    assert records["reason"].isna().all()
    assert result.adversarial.shape == x.shape
    broken = model.scores(result.adversarial).argmax(1) != y
    assert records["success"].tolist() == broken.tolist()
    within = parse_threat(threat)
    size = norms(result.adversarial.double() - x.double(), within.domain, within.norm)
    assert torch.allclose(torch.tensor(records[str(within.norm)].to_numpy(float)), size)
    if within.eps is not None:
        assert (size <= within.eps).all()
    assert ((records["queries_at_success"].notna()) == records["success"]).all()


@cases
def test_it_is_at_least_as_strong_as_noise(name: str, threat: str) -> None:
    if name == "noise":
        return
    model = model_for(name)
    x, y = samples_of(model, 60)
    control = "linf:1" if threat.endswith("min") else threat
    noise = run("noise", control, model, x, y, steps=0).records["success"].sum()
    assert run(name, threat, model, x, y).records["success"].sum() >= max(noise, 1)


class Doubled(nn.Module):
    """A network in float64."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        assert isinstance(model, TorchModel)
        self.inner = copy.deepcopy(model.module).double()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x.double())
        return scores


@cases
def test_the_seed_makes_the_run_and_the_batch_size_does_not(name: str, threat: str) -> None:
    # In float64: a float32 matrix product rounds differently in another batch size, and steps let that grow.
    model = model_for(name)
    model = model if isinstance(model, LinearModel) else TorchModel(Doubled(model), model.input_shape)
    x, y = samples_of(model, 40)
    one = run(name, threat, model, x, y, seed=3)
    again = run(name, threat, model, x, y, seed=3)
    assert torch.equal(one.adversarial, again.adversarial)
    split = run(name, threat, model, x, y, seed=3, batch_size=7)
    if not issubclass(attack_class(name), Fitted):
        assert torch.allclose(one.adversarial, split.adversarial, atol=1e-6)
        for column in ("success", "forwards", "backwards", "queries_at_success"):
            assert one.records[column].equals(split.records[column]), column


@cases
def test_nothing_of_the_callers_changes(name: str, threat: str) -> None:
    model = model_for(name)
    x, y = samples_of(model, 8)
    before = x.clone(), y.clone(), model.fingerprint(), torch.get_rng_state()
    run(name, threat, model, x, y)
    assert torch.equal(before[0], x)
    assert torch.equal(before[1], y)
    assert before[2] == model.fingerprint()
    assert torch.equal(before[3], torch.get_rng_state())


@cases
def test_one_sample_and_two_classes(name: str, threat: str) -> None:
    model = model_for(name, classes=2)
    x, y = samples_of(model, 1)
    result = run(name, threat, model, x, y)
    assert result.adversarial.shape == x.shape
    assert result.records["valid"].all()


@cases
def test_samples_that_are_wrong_already_are_no_successes(name: str, threat: str) -> None:
    model = model_for(name)
    x, y = samples_of(model, 6)
    result = run(name, threat, model, x, (y + 1) % 3)
    assert not result.records["success"].any()
    if not attack_class(name).every_sample:
        assert torch.equal(result.adversarial, x)
        assert (result.records["forwards"] == 0).all()


@cases
def test_corners_of_the_box(name: str, threat: str) -> None:
    model = model_for(name)
    x = (torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    x[0], x[1] = 0, 1
    result = run(name, threat, model, x, model.scores(x).argmax(1))
    assert result.records["valid"].all()
    assert result.records["reason"].isna().all()


@cases
@pytest.mark.parametrize("goal", ["random", "least_likely", "top:2"])
def test_targets(name: str, threat: str, goal: str) -> None:
    model = model_for(name, classes=4)
    x, y = samples_of(model, 20)
    records = run(name, threat, model, x, y, goal=goal).records
    reached = records.loc[records["success"].astype(bool)]
    assert (reached["adversarial_prediction"] == reached["target"]).all()
    assert (records["target"] != records["label"]).all()
    assert records["valid"].all()


@cases
def test_a_given_target(name: str, threat: str) -> None:
    model = model_for(name, classes=4)
    x, y = samples_of(model, 10)
    records = run(name, threat, model, x, y, targets=(y + 1) % 4).records
    assert records["target"].tolist() == ((y + 1) % 4).tolist()
    with pytest.raises(RobustError, match="target"):
        run(name, threat, model, x, y, targets=y)


@cases
@pytest.mark.parametrize("budget", [1, 5, 12])
def test_the_budget_is_obeyed(name: str, threat: str, budget: int) -> None:
    model = model_for(name)
    x, y = samples_of(model, 10)
    records = run(name, threat, model, x, y, budget=budget).records
    assert (records["forwards"] + records["backwards"] <= budget).all()


@cases
def test_more_steps_never_lower_success(name: str, threat: str) -> None:
    if "steps" not in {field.name for field in fields(get_attack(name))}:
        pytest.skip("takes no steps")
    model = model_for(name)
    x, y = samples_of(model, 40)
    few, many = (run(name, threat, model, x, y, steps=steps).records for steps in (2, 12))
    if name in ("noise", "iterative"):  # the same path, only longer
        assert (few["success"] <= many["success"]).all()
    assert few["success"].sum() <= many["success"].sum()


class Flat(Model):
    """The same scores everywhere: nothing to climb."""

    name, family, num_classes, input_shape, device = "flat", "test", 3, (1, 4, 4), torch.device("cpu")

    def scores(self, x: Tensor) -> Tensor:
        return torch.tensor([3.0, 1.0, 0.0]) + 0 * x.flatten(1)[:, :1]

    def to(self, device: torch.device | str) -> Model:
        return self

    def fingerprint(self) -> str:
        return "flat"


@cases
def test_flat_gradients_end_cleanly(name: str, threat: str) -> None:
    if attack_class(name).access is Access.STRUCTURE:
        pytest.skip("works on structure")
    x = torch.rand(5, 1, 4, 4)
    records = run(name, threat, Flat(), x, torch.zeros(5, dtype=torch.int64)).records
    assert records["valid"].all()
    assert not records["success"].any()


@names
def test_every_pass_is_counted(name: str) -> None:
    """What the records say is what the model was really asked."""
    asked = {"forward": 0, "backward": 0}
    inner = model_for(name)

    class Counting(Model):
        name, family, num_classes, input_shape = "counting", "test", 3, (1, 4, 4)
        device = torch.device("cpu")
        access = inner.access

        def scores(self, x: Tensor) -> Tensor:
            asked["forward"] += len(x)
            scores = inner.scores(x)
            if scores.requires_grad:
                scores.register_hook(lambda g: asked.__setitem__("backward", asked["backward"] + len(g)))
            return scores

        @property
        def structure(self) -> object:
            return inner.structure

        def to(self, device: torch.device | str) -> Model:
            return self

        def fingerprint(self) -> str:
            return "counting"

    if issubclass(attack_class(name), Composite | Fitted):
        pytest.skip("its parts are counted")
    model = Counting()
    x, y = samples_of(inner, 10)
    records = run(name, threats_of(name, SIZES)[0], model, x, y, batch_size=10).records
    clean = 10
    judged = 10 + int(records["success"].sum())  # a first look at all, a second at successes
    assert int(records["forwards"].sum()) == asked["forward"] - clean - judged
    assert int(records["backwards"].sum()) == asked["backward"]
