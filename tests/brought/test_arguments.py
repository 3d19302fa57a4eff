"""Whatever is handed to the public functions: a result, or an error of ours in one line."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import robustbench_lite as rb
from robustbench_lite.core.errors import RobustError

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand((12, 1, 4, 4), generator=GENERATOR)
FLAT = X.flatten(1).numpy()
Y = torch.arange(12) % 3


def network(classes: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))


NET = network()
ESTIMATOR = LogisticRegression().fit(FLAT, Y.numpy())
ODD: list[object] = [
    None, True, False, 0, 1, -1, 3, 2**80, 0.1, -0.5, float("nan"), float("inf"), "", " ", "linf:0.1", "pgd",
    "x:y", "²", "a" * 500, "\0", b"bytes", [], [0], [0] * 12, (), ("linf", 0.1), ("a", "b", "c"), {},
    {"x": 1},
    set(), object(), int, len, lambda a: a, nn.Linear(2, 2), np.zeros(3), np.array("text"),
    np.array([None, 1]), torch.zeros(0), torch.tensor(3.0), torch.zeros(2, 2, dtype=torch.complex64),
    pd.DataFrame({"a": ["b"]}), pd.Series([1, 2]), rb.Domain(), rb.Search(), Exception("mine"), range(3), 1j,
]  # fmt: skip


def told(call: Callable[[], object]) -> str | None:
    """What an error of ours says; None for a result. Anything else is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except RobustError as error:
            return str(error)
    return None


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    place=st.sampled_from(["model", "x", "y", "attack", "threat", "goal", "search"]),
    value=st.sampled_from(range(len(ODD))),
)
def test_attack_answers_or_says_what_is_wrong(place: str, value: int) -> None:
    arguments: dict[str, Any] = {
        "model": NET, "x": X, "y": Y, "attack": "noise:steps=2", "threat": "linf:0.1", "goal": "untargeted",
        "search": None,
    }  # fmt: skip
    arguments[place] = ODD[value]
    said = told(lambda: rb.attack(**arguments))
    assert said is None or "\n" not in said


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    place=st.sampled_from(["data", "models", "attacks", "threats", "search", "config"]),
    value=st.sampled_from(range(len(ODD))),
    inside=st.booleans(),
)
def test_run_answers_or_says_what_is_wrong(place: str, value: int, inside: bool) -> None:
    arguments: dict[str, Any] = {
        "data": (X, Y), "models": [NET], "attacks": ["noise:steps=2"], "threats": ["linf:0.1"],
    }  # fmt: skip
    odd = ODD[value]
    arguments[place] = [odd] if inside and place in ("models", "attacks", "threats") else odd
    if arguments[place] is None and place == "data":
        return  # the default
    told(lambda: rb.run(**arguments))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=st.sampled_from(range(len(ODD))), second=st.sampled_from(range(len(ODD))))
def test_data_models_and_threats_answer_or_say_what_is_wrong(value: int, second: int) -> None:
    one: Any = ODD[value]
    other: Any = ODD[second]
    told(lambda: rb.load_data((one, other)))
    told(lambda: rb.load_data(one))
    told(lambda: rb.load_model(one, (X, Y)))
    told(lambda: rb.parse_threat(one))
    told(lambda: rb.load_data("digits", samples=one))
    told(lambda: rb.load_data("digits", seed=one, samples=3))
    told(lambda: rb.Search(seed=one, batch_size=other))


def success(model: Any, x: Any, y: Any, **more: Any) -> float:
    return float(rb.attack(model, x, y, "fgsm", **{"threat": "linf:0.2", **more}).success.float().mean())


def test_arrays_frames_lists_and_labels_of_every_kind_are_the_same_samples() -> None:
    expected = success(NET, X, Y)
    for x in (X.numpy(), X.tolist(), X.double(), X.numpy().astype(">f4")):
        assert success(NET, x, Y) == expected
    hot = nn.functional.one_hot(Y, 3)
    for y in (Y.tolist(), Y.numpy(), Y.float(), hot, hot.numpy(), Y[:, None], pd.Series(Y.numpy()), Y.int()):
        assert success(NET, X, y) == expected
    flat = success(ESTIMATOR, FLAT, Y)
    for x in (pd.DataFrame(FLAT), sparse.csr_matrix(FLAT), torch.tensor(FLAT).to_sparse(), FLAT.tolist()):
        assert success(ESTIMATOR, x, Y) == flat
    for threat in (("linf", 0.2), "linf:0.2", rb.parse_threat("linf:0.2")):
        assert success(NET, X, Y, threat=threat) == expected
    targets = (Y + 1) % 3
    for goal in (targets, targets.tolist(), targets.numpy()):
        assert success(NET, X, Y, goal=goal) == success(NET, X, Y, goal=targets)


def test_an_estimators_own_labels_are_its_classes() -> None:
    names = np.array(["cat", "dog", "emu"])[Y.numpy()]
    named = LogisticRegression().fit(FLAT, names)
    shifted = LogisticRegression().fit(FLAT, Y.numpy() + 5)
    expected = rb.attack(ESTIMATOR, FLAT, Y, "exact", "l2:min").records
    for model, y in ((named, names), (shifted, Y.numpy() + 5)):
        found = rb.attack(model, FLAT, y, "exact", "l2:min").records
        assert np.allclose(found["distance"], expected["distance"], rtol=1e-5)
    table = rb.run((FLAT, names), [named], ["exact"], ["linf:0.1"])
    assert set(table.class_names) == {"cat", "dog", "emu"}


class Extra(Dataset[tuple[object, ...]]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> tuple[object, ...]:
        if i >= 12:
            raise IndexError(i)
        return X[i], nn.functional.one_hot(Y[i], 3), {"more": i}


def test_data_sets_with_more_fields_and_loaders_are_data() -> None:
    plain = rb.load_data((X, Y)).fingerprint()
    assert rb.load_data(Extra()).fingerprint() == plain
    assert rb.load_data(DataLoader(TensorDataset(X, Y), batch_size=5)).fingerprint() == plain


def test_labels_that_no_network_has_are_told_at_once() -> None:
    for y in (Y + 10**6, Y - 2, Y.float() + 0.5, torch.zeros(12, 3), Y[:5]):
        said = told(lambda y=y: rb.load_data((X, y)))  # type: ignore[misc]
        assert said is not None
        assert "\n" not in said


def test_what_comes_back_in_few_bits_lies_in_the_ball() -> None:
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        x = X.to(kind)
        for threat, eps in (("linf:0.1", 0.1), ("l2:0.3", 0.3)):
            found = rb.attack(NET, x, Y, "pgd:steps=5", threat)
            assert found.adversarial.dtype == kind
            delta = found.adversarial.double() - x.double()
            size = delta.abs().amax() if threat[1] == "i" else delta.flatten(1).norm(dim=1).amax()
            assert float(size) <= eps * (1 + 1e-6)
            again = NET(found.adversarial.float()).argmax(1)
            assert torch.equal(
                (again != Y)[found.success], torch.ones(int(found.success.sum()), dtype=torch.bool)
            )


@pytest.mark.parametrize("field", ["seed", "batch_size", "budget", "eot", "draws", "time_limit"])
@pytest.mark.parametrize("value", ["8", True, -3, float("inf"), float("nan"), 2**80, 1.5])
def test_settings_of_the_wrong_kind_are_refused(field: str, value: object) -> None:
    if (field, value) == ("time_limit", 1.5) or (value == 2**80 and field != "seed"):
        return
    with pytest.raises(RobustError, match=field):
        rb.Search(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("attack", ["exact", "ddn:steps=30"])
def test_the_smallest_perturbation_in_few_bits_is_past_the_boundary(attack: str, kind: torch.dtype) -> None:
    data = rb.load_data("digits", samples=60)
    model = rb.load_model("logistic", data)
    plain, short = (rb.attack(model, x, data.y, attack, "l2:min").records for x in (data.x, data.x.to(kind)))
    assert short["success"].sum() >= 0.9 * plain["success"].sum()
    assert (short.loc[short["success"], "distance"] >= short.loc[short["success"], "lower_bound"]).all()


def test_a_box_without_an_end_is_a_box() -> None:
    domain = rb.Domain(-float("inf"), float("inf"))
    for threat in ("l2:0.5", "l1:1", "linf:0.1", "l0:2"):
        found = rb.attack(NET, X, Y, "pgd:steps=5" if threat[1] != "0" else "fmn:steps=5" if 0 else "noise",
                          rb.parse_threat(threat, domain))  # fmt: skip
        assert not found.adversarial.isnan().any(), threat
        assert found.records["valid"].all(), threat


def test_a_threat_that_is_no_text_keeps_to_the_datas_domain() -> None:
    data = rb.load_data("iris")
    fixed = torch.tensor([False, True, True, True])
    data = rb.load_data(data)
    held = {**vars(data), "domain": rb.Domain(data.domain.low, data.domain.high, fixed, None, None)}
    data = rb.Data(**held)
    rates = [
        rb.run(data, ["logistic"], ["fgsm"], [threat]).table()["success"][0]
        for threat in ("linf:0.1", ("linf", 0.1), rb.parse_threat("linf:0.1"))
    ]
    assert len(set(rates)) == 1


def test_whole_numbers_are_lengths_too() -> None:
    from robustbench_lite.attacks.fixed_budget.pgd import PGD

    threat = rb.parse_threat("linf:25", rb.Domain(0.0, 255.0))
    x = (255 * X).round()
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    one, other = (rb.attack(net, x, Y, PGD(steps=5, step_size=s), threat).adversarial for s in (2, 2.0))
    assert torch.equal(one, other)


def test_a_model_is_attacked_where_it_is_and_what_is_said_of_it_counts_or_is_refused() -> None:
    moved: list[object] = []

    class Recording(rb.TorchModel):
        def to(self, device: torch.device | str) -> "Recording":
            moved.append(device)
            return self

    rb.attack(Recording(NET, (1, 4, 4)), X, Y, "noise", "linf:0.1")
    assert not moved
    for field, value in (("outputs", "sigmoid"), ("units", "own"), ("mean", "0.5")):
        with pytest.raises(RobustError, match=field):
            rb.load_model(f"linear:{field}={value}", "digits")
