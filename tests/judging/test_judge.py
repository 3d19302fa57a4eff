"""The judge among liars: nobody's word counts."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.goal import Goal, parse_goal
from robustbench_lite.core.model import Model
from robustbench_lite.core.settings import Search
from robustbench_lite.judging.judge import _votes, eight_bit_image, judge
from robustbench_lite.judging.verdict import Reason, Verdict
from robustbench_lite.threats.named import parse_threat
from tests.conftest import linear_model, look, samples_of

THREAT = "linf:0.1"


def verdict(returned: object, threat: str = THREAT, goal: Goal | None = None, **options: object) -> Verdict:
    model = linear_model()
    x, y = samples_of(model)
    return judge(model, parse_threat(threat), goal or Goal(), look(model, x, y), returned, **options)  # type: ignore[arg-type]


def broken_points() -> Tensor:
    """Points that the model gets wrong, all over the box."""
    model = linear_model()
    _x, y = samples_of(model)
    pool = torch.rand(4000, 1, 4, 4, generator=torch.Generator().manual_seed(9))
    says = model.scores(pool).argmax(1)
    return torch.stack([pool[(says != label).nonzero()[0, 0]] for label in y])


def nearly(x: Tensor) -> Tensor:
    far = broken_points()
    return x + (far - x) * 0.2


KINDS = {
    "outside the ball": Reason.OUTSIDE_BALL,
    "outside the box": Reason.OUTSIDE_BOX,
    "NaN": Reason.NOT_FINITE,
    "infinite": Reason.NOT_FINITE,
    "another shape": Reason.SHAPE,
    "fewer samples": Reason.COUNT,
    "float64": Reason.DTYPE,
    "an integer image": Reason.DTYPE,
    "an array": Reason.TYPE,
    "nothing": Reason.TYPE,
}
LIARS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "outside the ball": (lambda x: broken_points(), "outside the ball: distance"),
    "outside the box": (lambda x: x - 2 * torch.eye(16)[0].reshape(1, 4, 4), "outside the box by"),
    "NaN": (lambda x: x * torch.nan, "NaN"),
    "infinite": (lambda x: x + torch.inf, "NaN or infinite"),
    "another shape": (lambda x: x.flatten(1), r"shape \(20, 16\) for \(20, 1, 4, 4\)"),
    "fewer samples": (lambda x: x[:19], "19 samples for 20"),
    "float64": (lambda x: x.double(), "float64 for torch.float32"),
    "an integer image": (lambda x: (x * 255).round().to(torch.uint8), "integer image"),
    "an array": (lambda x: x.numpy(), "ndarray, not a tensor"),
    "nothing": (lambda x: None, "NoneType, not a tensor"),
}


@pytest.mark.parametrize("name", LIARS)
def test_a_liar_is_a_row_with_its_reason_and_never_a_success(name: str) -> None:
    lie, reason = LIARS[name]
    x, _ = samples_of(linear_model())
    found = verdict(lie(x))
    assert len(found.valid) == 20
    assert not found.valid.any()
    assert not found.success.any()
    assert set(found.reason_kind) == {str(KINDS[name])}
    for text in found.reason:
        assert __import__("re").search(reason, text), text


def test_one_bad_row_does_not_spoil_the_others() -> None:
    x, _ = samples_of(linear_model())
    spoilt = x.clone()
    spoilt[3, 0, 0, 0] = torch.nan
    spoilt[4] = 5
    found = verdict(spoilt)
    assert (~found.valid).nonzero()[0].tolist() == [3, 4]
    assert found.adversarial_prediction[3] == -1
    assert np.isnan(found.l2[3])


def test_the_original_returned_is_valid_and_no_success() -> None:
    x, _ = samples_of(linear_model())
    found = verdict(x.clone())
    assert found.valid.all()
    assert not found.success.any()
    assert (found.linf == 0).all()
    assert all(reason is None for reason in found.reason)


def test_a_claimed_success_that_is_none_is_none() -> None:
    """Points inside the ball that the model still gets right, whatever the attack says of them."""
    model = linear_model()
    x, y = samples_of(model)
    same = (x + 1e-4).clamp(0, 1)
    assert (model.scores(same).argmax(1) == y).all()
    assert not verdict(same).success.any()


def test_a_sample_that_was_wrong_before_is_no_success() -> None:
    model = linear_model()
    x, y = samples_of(model)
    wrong = (y + 1) % 3
    found = judge(model, parse_threat(THREAT), Goal(), look(model, x, wrong), x)
    assert found.valid.all()
    assert not found.success.any()


def test_success_needs_the_target_where_there_is_one() -> None:
    model = linear_model()
    x, y = samples_of(model)
    points = broken_points()
    says = model.scores(points).argmax(1)
    third = 3 - y - says
    for target, expected in ((says, True), (third, False)):
        found = judge(
            model, parse_threat("box"), parse_goal("given"), look(model, x, y), points, target[:, None]
        )
        assert (found.success == expected).all()
    both = torch.stack([third, says], 1)
    found = judge(model, parse_threat("box"), parse_goal("top:2"), look(model, x, y), points, both)
    assert found.success.all()
    assert (found.target == says.numpy()).all()


def test_distances_are_those_of_float64() -> None:
    x, _ = samples_of(linear_model())
    points = broken_points()
    found = verdict(points, "box")
    delta = (points.double() - x.double()).flatten(1).numpy()
    assert np.array_equal(found.linf, np.abs(delta).max(1))
    assert np.allclose(found.l2, np.linalg.norm(delta, axis=1), rtol=1e-14)
    assert np.allclose(found.l1, np.abs(delta).sum(1), rtol=1e-14)
    assert (found.l0 == 16).all()


def test_what_rounding_explains_is_valid_and_marked() -> None:
    x, _ = samples_of(linear_model())
    beyond = torch.where(x < 0.5, x + 0.1 + 3e-7, x - 0.1 - 3e-7)
    found = verdict(beyond)
    assert found.valid.all()
    assert all(text.startswith("beyond by") for text in found.reason)
    assert not verdict(torch.where(x < 0.5, x + 0.1 + 3e-6, x - 0.1 - 3e-6)).valid.any()


def test_masks_and_steps_are_held() -> None:
    model = linear_model()
    x, y = samples_of(model)
    mask = torch.ones(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = False
    threat = parse_threat("linf:0.5", Domain(mask=mask))
    changed = x.clone()
    changed[:, 0, 0, 0] = 0.5
    found = judge(model, threat, Goal(), look(model, x, y), changed)
    assert not found.valid.any()
    steps = parse_threat("linf:0.5", Domain(spacing=torch.full((1, 4, 4), 0.25)))
    for move, allowed in ((0.25, True), (0.1, False)):
        moved = torch.where(x < 0.5, x + move, x - move)
        assert (judge(model, steps, Goal(), look(model, x, y), moved).valid == allowed).all()


class Moody(Model):
    """Answers differently in small batches."""

    name, family, num_classes, input_shape, device = "moody", "test", 3, (1, 4, 4), torch.device("cpu")

    def __init__(self) -> None:
        self.inner = linear_model()

    def scores(self, x: Tensor) -> Tensor:
        scores = self.inner.scores(x)
        return scores if len(x) >= 20 else torch.roll(scores, 1, 1)

    def to(self, device: torch.device | str) -> Model:
        return self

    def fingerprint(self) -> str:
        return "moody"


def test_the_second_look_uses_another_batch_size() -> None:
    x, y = samples_of(linear_model())
    model = Moody()
    found = judge(model, parse_threat("box"), Goal(), look(model, x, y), broken_points())
    assert found.success.all()
    assert set(found.second_look.tolist()) == {True, False}  # some stood by accident, some did not
    steady = verdict(broken_points(), "box")
    assert (steady.second_look == True).all()  # noqa: E712


@pytest.mark.parametrize("threat", ["linf:0.031", "linf:0.3", "l2:0.5", "l1:2", "l0:3"])
def test_eight_bit_images_are_on_the_grid_and_inside(threat: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 256, (50, 1, 4, 4), generator=generator) / 255
    within = parse_threat(threat)
    eps = torch.full((50,), within.eps or 0.0, dtype=torch.float64)
    x = within.project(torch.rand(x0.shape, generator=generator), x0, eps)
    grid, possible = eight_bit_image(within, x, x0)
    assert possible.all()
    assert within.contains(grid, x0, eps, 1e-6).all()
    levels = grid.double() * 255
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert ((grid - x).abs() < 1 / 255 + 1e-6).all()


def test_eight_bit_verdicts_are_those_of_the_rounded_point() -> None:
    model = linear_model()
    x, y = samples_of(model)
    x = (x * 255).round() / 255
    y = model.scores(x).argmax(1)
    # Just across the boundary: rounding takes some of them back.
    far = broken_points()
    low, high = torch.zeros(20), torch.ones(20)
    for _ in range(40):
        middle = (low + high) / 2
        at = x + (far - x) * middle.reshape(-1, 1, 1, 1)
        over = model.scores(at).argmax(1) != y
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    edge = x + (far - x) * (high + 1e-5).reshape(-1, 1, 1, 1)
    found = judge(
        model, parse_threat("box"), Goal(), look(model, x, y), edge, settings=Search(eight_bit=True)
    )
    grid, _ = eight_bit_image(parse_threat("box"), edge, x)
    stands = (model.scores(grid).argmax(1) != y).numpy()
    assert found.success.all()
    assert set(stands.tolist()) == {True, False}
    assert (found.eight_bit == stands).all()


def test_confidence_is_the_probability_of_the_prediction() -> None:
    model = linear_model()
    x, _ = samples_of(model)
    found = verdict(x.clone())
    assert np.allclose(found.clean_confidence, model.scores(x).softmax(1).amax(1).numpy())
    assert np.array_equal(found.clean_confidence, found.adversarial_confidence)


def test_a_draw_without_an_answer_is_a_vote_for_nobody() -> None:
    predictions = torch.tensor(
        [[-1, -1, 2], [-1, 0, 2], [-1, 0, -1], [1, 1, 0]]
    )  # four draws of three samples
    shares = _votes(predictions, 3)[0]
    assert shares[0].isnan().all()
    assert shares[1:].tolist() == [[0.5, 0.25, 0.0], [0.25, 0.0, 0.5]]
