"""Detectors: what is refused, what losses make of it, and that an attack which knows them gets past."""

import math

import pytest
import torch

import robustbench_lite as rb
from robustbench_lite.core.errors import Unsupported
from robustbench_lite.core.losses import LOSSES
from robustbench_lite.core.task import Classification, margin
from robustbench_lite.defenses.detection.detector import Guarded, known_and_held_out
from robustbench_lite.defenses.detection.embedding import embedding
from robustbench_lite.models.torch.module import TorchModel
from tests.conftest import attack_with

DETECTORS = ["squeezing", "mahalanobis", "density", "magnet", "binary_detector"]


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_the_share_of_training_samples_that_is_refused(name: str, rate: float) -> None:
    data = rb.load_data("digits", samples=50)
    model = rb.load_model(f"{name}(conv_small,rate={rate})", data)
    assert isinstance(model, Guarded)
    x = known_and_held_out(data.training(), 0)[1].x
    refused = model.task.rejected(model.prediction(model.scores(x)))
    assert float(refused.float().mean()) == pytest.approx(rate, abs=0.01)
    assert torch.equal(refused, model.statistics(x) > model.limit)


def test_losses_lead_past_a_refusal() -> None:
    task = Classification(reject=3)
    y = torch.tensor([0, 1])
    scores = torch.tensor([[2.0, 1.0, 0.0, 5.0], [0.0, 3.0, 1.0, 2.0]], requires_grad=True)
    merged, same = task.attacked(scores, y, None, rejection=False)
    either = [math.log(math.exp(2 * own) + math.exp(2 * refused)) / 2 for own, refused in ((2, 5), (3, 2))]
    assert torch.allclose(merged, torch.tensor([[either[0], 1.0, 0.0], [0.0, either[1], 1.0]]))
    assert same.tolist() == [0, 1]
    for loss in LOSSES.values():
        (gradient,) = torch.autograd.grad(loss(merged, same, None).sum(), scores, retain_graph=True)
        assert float(gradient[0, 3]) < 0  # to lower the refusal raises the loss
        assert abs(float(gradient[1, 3])) < abs(float(gradient[1, 1]))  # which is less in the way here
    behind = task.margin(scores, y, rejection=False) - margin(merged, same)
    assert bool(((behind > 0) & (behind <= math.log(2) / 2)).all())
    untouched, _ = task.attacked(scores, y, None, rejection=True)
    assert untouched is scores
    middle = Classification(reject=1)
    merged, moved = middle.attacked(scores, torch.tensor([2, 0]), None, rejection=False)
    either = [math.log(math.exp(2 * own) + math.exp(2 * refused)) / 2 for own, refused in ((0, 1), (0, 3))]
    assert torch.allclose(merged, torch.tensor([[2.0, either[0], 5.0], [either[1], 1.0, 2.0]]))
    assert moved.tolist() == [1, 0]


def test_a_refusal_is_no_success_and_no_class_to_aim_at() -> None:
    data = rb.load_data("digits", samples=60)
    model = rb.load_model("density(conv_small)", data)
    for attack in ("pgd:steps=10", "apgd:steps=10,loss=dlr,targets=9", "square:steps=50"):
        records = attack_with(model, data.x, data.y, attack, "linf:0.2").records
        broken = records[records["success"]]
        assert len(broken)
        assert (broken["adversarial_prediction"] != 10).all()
        refused = records["outcome"] == "rejected"
        assert (records.loc[refused, "adversarial_prediction"] == 10).all()
    least = attack_with(model, data.x, data.y, "pgd:steps=10", "linf:0.2", goal="random").records
    assert (least["target"] != least["label"]).all()


@pytest.mark.parametrize("name", ["mahalanobis", "binary_detector"])
def test_who_knows_the_detector_gets_past_more_often(name: str) -> None:
    data = rb.load_data("digits", samples=150)
    model = rb.load_model(f"{name}(conv_small)", data)
    goal = "untargeted,stop=never"
    blind = attack_with(
        model, data.x, data.y, "oblivious(pgd:steps=30,step_size=0.01)", "linf:0.1", goal=goal
    ).records
    aware = attack_with(model, data.x, data.y, "apgd:steps=60", "linf:0.1").records
    assert aware["success"].mean() > blind["success"].mean() + 0.1


def test_the_embedding_is_what_the_last_layer_is_given() -> None:
    model = rb.load_model("conv_small")
    assert isinstance(model, TorchModel)
    x = rb.load_data("digits", samples=5).x
    last = model.module[-1]  # type: ignore[index]
    assert torch.allclose(last(embedding(model, x)), model.scores(x), atol=1e-6)


def test_what_gets_stuck_at_a_refusal_is_not_run() -> None:
    data = rb.load_data("digits", samples=5)
    model = rb.load_model("mahalanobis(conv_small)", data)
    for attack in ("deepfool", "fab"):
        with pytest.raises(Unsupported, match="refuses to answer"):
            attack_with(model, data.x, data.y, attack, "l2:min")
    with pytest.raises(Unsupported, match="it refuses to answer"):
        attack_with(model, data.x, data.y, "pgd", "linf:0.1", goal="class:10")
    with pytest.raises(Unsupported, match="may refuse already"):
        rb.load_model("squeezing(mahalanobis(conv_small))", data)


def test_both_faces_of_a_statistic_are_their_own() -> None:
    """What no squeezer changes has not moved, whichever face is asked."""
    model = rb.load_model("squeezing(knn)", rb.load_data("digits", samples=5))
    assert isinstance(model, Guarded)
    flat = torch.full((2, 1, 8, 8), 1.0)
    assert torch.allclose(model.statistics(flat), torch.zeros(2).double(), atol=1e-6)


def test_a_limit_needs_samples_and_order_does_not_matter() -> None:
    data = rb.load_data("digits")
    training = data.training()
    order = training.y.argsort(stable=True)
    for held in (training, training[order]):
        known, out = known_and_held_out(held, 0)
        assert len(known.y.unique()) == len(out.y.unique()) == 10
        assert not set(known.ids.tolist()) & set(out.ids.tolist())
        assert len(known.y[:100].unique()) == 10  # of which some take the first


def test_detectors_of_networks_are_for_networks() -> None:
    with pytest.raises(Unsupported, match="looks into a network"):
        rb.load_model("mahalanobis(tree)")
    with pytest.raises(Unsupported, match="looks into a network"):
        rb.load_model("density(bit_depth(conv_small))")
