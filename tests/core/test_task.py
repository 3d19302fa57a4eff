"""What a prediction, being right, a margin and a rejection are."""

import torch

import robustbench_lite as rb
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.task import Classification, margin
from robustbench_lite.models.names import Reading
from robustbench_lite.models.own import as_model
from tests.conftest import attack_with

SCORES = torch.tensor([[1.0, 3.0, 2.0], [torch.nan, 1.0, 0.0], [0.0, 1.0, 5.0], [2.0, 2.0, -torch.inf]])
Y = torch.tensor([0, 0, 0, 0])


def test_nan_is_no_prediction_and_infinity_is_none_of_its_business() -> None:
    task = Classification()
    assert task.prediction(SCORES).tolist() == [1, -1, 2, 0]
    assert task.answered(task.prediction(SCORES)).tolist() == [True, False, True, True]
    met = parse_goal("untargeted").met(task, SCORES, Y, None)
    assert met.tolist() == [True, False, True, False]
    assert parse_goal("untargeted,nan=success").met(task, SCORES, Y, None).tolist() == [
        True,
        True,
        True,
        False,
    ]


def test_a_refusal_is_no_success_unless_it_will_do() -> None:
    task = Classification(reject=2)
    assert task.rejected(task.prediction(SCORES)).tolist() == [False, False, True, False]
    assert parse_goal("untargeted").met(task, SCORES, Y, None).tolist() == [True, False, False, False]
    assert parse_goal("untargeted,rejection=success").met(task, SCORES, Y, None).tolist() == [
        True,
        False,
        True,
        False,
    ]
    # Past y alone is not enough: the class that rejects has to be passed too.
    assert task.margin(SCORES, Y, None, rejection=False)[2] == 1.0 - 5.0
    assert task.margin(SCORES, Y, None, rejection=True)[2] == margin(SCORES, Y)[2] == 5.0
    text = "untargeted,rejection=success,nan=success"
    assert str(parse_goal(text)) == text


def test_outcomes_of_a_model_with_a_class_that_rejects() -> None:
    data = rb.load_data("digits", samples=150)
    inner = rb.load_model("logistic", data)
    weight, bias = inner.structure.weight, inner.structure.bias  # type: ignore[union-attr]

    def cautious(x: object) -> object:
        """Ten classes, and an eleventh where the two likeliest are too close."""
        scores = torch.from_numpy(x).double().flatten(1) @ weight.T + bias  # type: ignore[arg-type]
        top = scores.topk(2, dim=1).values
        refusal = top[:, 1] + 3.0
        return torch.cat([scores, refusal[:, None]], 1).numpy()

    model = as_model(cautious, data, Reading(reject=10), "cautious")
    y = data.y
    held = attack_with(model, data.x, y, "square:steps=150", "linf:0.15").records
    counted = attack_with(
        model, data.x, y, "square:steps=150", "linf:0.15", goal="untargeted,rejection=success"
    ).records
    assert set(held["outcome"]) >= {"held", "wrong"}
    assert (held.loc[held["adversarial_prediction"] == 10, "outcome"].isin(["rejected", "wrong"])).all()
    assert counted["success"].sum() > held["success"].sum()
    assert (counted.loc[counted["success"].astype(bool), "adversarial_prediction"] == 10).any()
