"""Labels that are there or not: any number of them a sample, each with one number of a network."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC, LinearSVC
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import robustbench_lite as rb
from robustbench_lite.core.dense import MultiLabel
from robustbench_lite.core.errors import InvalidData, InvalidModel, InvalidParameter
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.random import Stream

TASK = MultiLabel()


def linear(labels: int = 4, seed: int = 0, last: nn.Module | None = None) -> nn.Module:
    """Planes through the middle of the box."""
    torch.manual_seed(seed)
    layer = nn.Linear(6, labels)
    layer.bias.data = -0.5 * layer.weight.data.sum(1)
    return nn.Sequential(nn.Flatten(), layer, *([] if last is None else [last])).eval()


def labelled(module: nn.Module, n: int = 60) -> tuple[Tensor, Tensor]:
    """Samples in the middle of the box, with the labels that the network gives them."""
    x = 0.4 + 0.2 * torch.rand(n, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, (module(x) > 0).long()


@given(
    st.lists(st.lists(st.integers(-1, 1), min_size=3, max_size=3), min_size=1, max_size=6), st.integers(0, 7)
)
def test_the_loss_is_jaccard_s_over_known_labels(meant: list[list[int]], bits: int) -> None:
    said = [(bits >> k) & 1 for k in range(3)]
    y = torch.tensor(meant)
    found = TASK.error(torch.tensor([said] * len(meant)), y, 2)
    right = TASK.right(torch.tensor([said] * len(meant)), y)
    for one, error, good in zip(meant, found.tolist(), right.tolist(), strict=True):
        known = [k for k in range(3) if one[k] >= 0]
        first, second = {k for k in known if said[k]}, {k for k in known if one[k]}
        assert error == pytest.approx(
            1 - len(first & second) / len(first | second) if first | second else 0.0
        )
        assert good == (first == second)


def test_a_goal_adds_one_label_or_takes_it_away_and_leaves_the_others_alone() -> None:
    y = torch.tensor([[1, 0, 1], [0, 0, -1]])
    scores = torch.stack([torch.zeros(2, 3), torch.tensor([[0.3, -2.0, 1.0], [-0.1, -0.2, 9.0]])], 1)
    stream = Stream.of(0, torch.arange(2))
    target = parse_goal("class:2").resolve(scores, y, stream, task=TASK)
    assert target is not None
    assert target[:, 0].tolist() == [[-1, -1, 0], [-1, -1, -1]]
    least = parse_goal("least_likely").resolve(scores[:1], y[:1], Stream(stream.key[:1]), task=TASK)
    assert least is not None
    assert least[0, 0].tolist() == [-1, 1, -1]
    drawn = parse_goal("random").resolve(scores[:1], y[:1], Stream(stream.key[:1]), task=TASK)
    assert drawn is not None
    assert int((drawn >= 0).sum()) == 1
    with pytest.raises(InvalidParameter, match="a label below 3"):
        parse_goal("class:3").resolve(scores, y, stream, task=TASK)
    assert parse_goal("class:7").misfit(2, TASK) is None
    assert parse_goal("top:1").misfit(2, TASK) is not None


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_label_of_a_linear_network_falls_where_its_plane_is_near_enough(norm: str) -> None:
    module = linear()
    x, y = labelled(module)
    layer = module[1]
    assert isinstance(layer, nn.Linear)
    eps = 0.05
    far = (module(x)[:, 2].abs() / layer.weight[2].norm(p=1 if norm == "linf" else 2)).detach()
    found = rb.attack(module, x, y, "pgd", f"{norm}:{eps}", goal="class:2")
    clear = (far - eps).abs() > 1e-4
    assert torch.equal(torch.from_numpy(found.records["success"].to_numpy())[clear], (far < eps)[clear])
    assert 0 < found.records["success"].mean() < 1
    changed = (module(found.adversarial) > 0).long() != y
    assert changed[torch.from_numpy(found.records["success"].to_numpy()), 2].all()


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd", "square:steps=100", "noise", "dag"])
def test_what_is_broken_has_a_wrong_label_and_what_cannot_be_is_not(attack: str) -> None:
    module = linear(seed=3)
    x, y = labelled(module)
    layer = module[1]
    assert isinstance(layer, nn.Linear)
    threat = "linf:0.03"
    found = rb.attack(module, x, y, attack, threat)
    won = torch.from_numpy(found.records["success"].to_numpy())
    far = (module(x).abs() / layer.weight.abs().sum(1)).amin(1).detach()
    assert not won[far > 0.0301].any()
    if attack in ("pgd", "apgd"):
        assert won[far < 0.02].float().mean() > 0.9
    said = (module(found.adversarial) > 0).long()
    assert torch.equal((said != y).any(1), won)
    wrong = found.records["wrong_share"].to_numpy()
    assert np.allclose(wrong, (said != y).float().mean(1).numpy())
    assert set(found.records["task"]) == {"multilabel"}


def test_sigmoids_parts_of_outputs_and_unknown_labels_are_read() -> None:
    plain, squashed = linear(), linear(last=nn.Sigmoid())
    x, y = labelled(plain)
    y[0, 1] = -1

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = plain

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"features": x.flatten(1)[:, :3], "labels": self.net(x)}

    first = rb.attack(plain, x, y, "pgd:steps=10", "linf:0.05").records
    for module in (squashed, Two().eval()):
        other = rb.attack(module, x, y, "pgd:steps=10", "linf:0.05").records
        assert other["success"].tolist() == first["success"].tolist()
        assert np.allclose(other["linf"], first["linf"], atol=1e-4)


def test_one_label_a_row_is_a_class_and_what_does_not_fit_is_told() -> None:
    module = linear()
    x, y = labelled(module)
    one_hot = torch.eye(4).long()[torch.arange(len(x)) % 4]
    assert set(rb.attack(module, x, one_hot, "fgsm", "linf:0.1").records["task"]) == {"classification"}
    with pytest.raises(InvalidModel, match="a number a label"):
        rb.attack(lambda z: np.zeros((len(z), 3)), x, y, "noise", "linf:0.1")
    with pytest.raises(InvalidModel, match="must be"):
        rb.attack(linear(5), x, y, "fgsm", "linf:0.1")
    with pytest.raises(InvalidData):
        rb.attack(module, x, y[:-1], "fgsm", "linf:0.1")


def test_a_file_of_labels_is_attacked_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = linear()
    x, y = labelled(module)
    np.savez(tmp_path / "sets.npz", x=x.reshape(-1, 1, 2, 3).numpy(), y=y.numpy())
    run = rb.run(
        f"npz:{tmp_path / 'sets.npz'}", [module], ["pgd", "noise"], ["linf:0.05"], out=tmp_path / "run"
    )
    assert not run.failures
    answers = run.table("answers").set_index("attack")
    assert answers.loc["pgd", "clean_iou"] == 1.0
    assert answers.loc["pgd", "iou"] < answers.loc["noise", "iou"] <= 1.0
    assert any(
        "any number of them a sample, which is broken where any is wrong" in note for note in run.notes
    )
    page = (tmp_path / "run" / "report.html").read_text()
    assert "taken for" in page


def test_minus_one_means_not_there_and_splits_are_read_together(tmp_path: Path) -> None:
    module = linear()
    x, y = labelled(module)
    plain = rb.attack(module, x, y, "pgd:steps=5", "linf:0.03").records
    signed = rb.attack(module, x, 2 * y - 1, "pgd:steps=5", "linf:0.03").records
    assert signed["success"].tolist() == plain["success"].tolist()
    for other in (y.tolist(), pd.DataFrame(y.numpy())):
        assert (
            rb.attack(module, x, other, "pgd:steps=5", "linf:0.03")
            .records["success"]
            .equals(plain["success"])
        )
    held = rb.load_data(TensorDataset(x, y))
    assert (held.task.kind, held.y.tolist()) == ("multilabel", y.tolist())
    one_hot = torch.eye(4).long()[torch.arange(len(x)) % 4]
    one_hot[3] = 0
    with pytest.raises(InvalidData, match="sample 3: has 0 of 4 classes"):
        rb.attack(module, x, one_hot, "fgsm", "linf:0.1")
    one_hot[3, 1] = 1
    np.savez(tmp_path / "both.npz", x=x.numpy(), y=one_hot.numpy(), x_train=x.numpy(), y_train=y.numpy())
    data = rb.load_data(f"npz:{tmp_path / 'both.npz'}")
    assert (data.task.kind, data.y.tolist()) == ("multilabel", one_hot.tolist())
    assert data.training().y.tolist() == y.tolist()


def test_a_label_that_nobody_knows_is_not_sought() -> None:
    module = linear()
    x, y = labelled(module)
    y[:10, 0] = -1
    records = rb.attack(module, x, y, "pgd:steps=5", "linf:0.5", goal="class:0").records
    assert (records["forwards"][:10] == 0).all()
    assert not records["success"][:10].any()
    for goal in ("random", "least_likely"):
        assert rb.attack(module, x, y, "pgd:steps=5", "linf:0.5", goal=goal).records["forwards"].min() > 0


def tagged() -> tuple[Tensor, np.ndarray, Tensor]:
    """Points of a table and three labels of each, some with none and some with two."""
    x = torch.rand(150, 4, generator=torch.Generator().manual_seed(3))
    weight = torch.tensor([[1.0, -1.0, 0.0, 0.2], [0.0, 1.0, -1.0, 0.1], [0.3, 0.0, 1.0, -1.0]])
    y = (x @ weight.T > 0.1).long()
    return x, x.numpy(), y


@pytest.mark.parametrize(
    "make",
    [
        lambda: OneVsRestClassifier(LogisticRegression(C=10)),
        lambda: MultiOutputClassifier(LogisticRegression(C=10)),  # a list of probabilities
        lambda: MLPClassifier((16,), max_iter=800, random_state=0),
        lambda: RandomForestClassifier(10, random_state=0),
        lambda: OneVsRestClassifier(LinearSVC(C=10)),  # decisions alone
        lambda: RidgeClassifier(),
        lambda: MultiOutputClassifier(SVC(probability=True, random_state=0)),  # which say two things
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_estimators_of_several_labels_are_asked_for_them(make: Callable[[], BaseEstimator]) -> None:
    x, array, y = tagged()
    estimator = make().fit(array, y.numpy())
    model = rb.load_model(estimator, rb.load_data((x, y)))
    assert model.task.kind == "multilabel"
    assert (model.prediction(model.scores(x)).numpy() == estimator.predict(array)).all()
    scored = model.access.name == "SCORE"
    attack = "square:steps=60" if scored else "noise:steps=50"
    found = rb.attack(estimator, x[:40], y[:40], attack, "linf:0.2")
    assert found.records["valid"].all()
    said = estimator.predict(found.adversarial.numpy())[found.success.numpy()]
    assert (said != y[:40][found.success].numpy()).any(1).all()
    assert found.success.sum() >= 5


def test_functions_of_several_labels_say_how_they_are_read() -> None:
    x, _, y = tagged()
    weight = np.random.default_rng(0).normal(size=(4, 3))

    def scores(features: np.ndarray) -> np.ndarray:
        return features @ weight

    def shares(features: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-features @ weight))

    def labels(features: np.ndarray) -> np.ndarray:
        return (features @ weight > 0).astype(int)

    data = rb.load_data((x, y))
    made = [rb.load_model(function, data) for function in (scores, shares, labels)]
    said = [model.prediction(model.scores(x)) for model in made]
    assert torch.equal(said[0], said[1])
    assert torch.equal(said[0], said[2])
    assert [model.access.name for model in made] == ["SCORE", "SCORE", "DECISION"]
    assert any("scores, there above 0" in note for note in made[0].notes)
    assert any("probabilities, there above 0.5" in note for note in made[1].notes)
    with pytest.raises(InvalidModel, match=r"must be \(\d+, 3\), a number a label"):
        rb.load_model(lambda features: features, data)
    with pytest.raises(InvalidModel, match="no model"):
        rb.load_model(LogisticRegression, data)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match="reject"):
        rb.load_model(scores, data, reading=rb.Reading(reject=2))
    same = RandomForestClassifier(5, random_state=0).fit(x.numpy(), y.numpy() * [1, 1, 0])
    constant = rb.load_model(same, data)  # of a label that never is there it gives one column
    assert constant.access.name == "DECISION"
    assert any("its predictions count" in note for note in constant.notes)
