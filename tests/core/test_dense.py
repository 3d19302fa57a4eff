"""Facts of tasks whose answer has positions, and of the losses of whole answers."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from robustbench_lite.core.dense import Dense, Segmentation, Sequence
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.goal import parse_goal
from robustbench_lite.core.losses import Houdini, cross_entropy, steep
from robustbench_lite.core.random import Stream
from robustbench_lite.core.task import Classification, margin

TASKS = [Segmentation(), Segmentation(share=0.5, target_share=0.25), Sequence(blank=2)]


def drawn(seed: int, n: int = 6, classes: int = 4, shape: tuple[int, ...] = (3, 4)) -> tuple[Tensor, Tensor]:
    """Scores (n, K, *shape) and labels (n, *shape), some of them missing, one at least there."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn((n, classes, *shape), generator=generator, dtype=torch.float64)
    y = torch.randint(-1, classes, (n, *shape), generator=generator)
    y.flatten(1)[:, 0] = 0
    return scores, y


@given(st.integers(0, 10_000), st.sampled_from(TASKS), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_margin_is_at_least_0_exactly_where_an_answer_is_reached(
    seed: int, task: Dense, targeted: bool
) -> None:
    scores, y = drawn(seed)
    target = drawn(seed + 1)[1] if targeted else None
    reached = task.reached(task.prediction(scores), y, target)
    assert torch.equal(task.margin(scores, y, target) >= 0, reached)


def test_one_more_position_outweighs_all_that_is_near() -> None:
    """Of answers with as many wrong the nearer one is further; one more wrong is further than any."""
    task, y = Segmentation(share=1.0), torch.zeros(1, 1, 4, dtype=torch.int64)
    none, near, one = (
        torch.tensor([[[gaps], [[0.0] * 4]]]) for gaps in ([9.0] * 4, [0.01] * 4, [-0.01, 9.0, 9.0, 9.0])
    )
    rising = [float(task.margin(scores, y)) for scores in (none, near, one)]
    assert rising[0] < rising[1] < rising[2] < 0


def test_an_answer_with_a_nan_has_no_margin_and_reaches_nothing() -> None:
    """So that what a budget left unasked, or a model could not answer, is never the furthest."""
    scores, y = drawn(4)
    scores[1, 2, 0, 1] = torch.nan
    for task in TASKS:
        assert task.margin(scores, y).isnan().tolist() == [False, True, False, False, False, False]
        assert not parse_goal("untargeted").met(task, scores, y, None)[1]


def test_positions_without_a_label_count_in_nothing() -> None:
    scores, y = drawn(3)
    other = torch.where((y >= 0)[:, None], scores, torch.randn_like(scores))
    for task in TASKS:
        for one, same in zip(facts(task, scores, y), facts(task, other, y), strict=True):
            assert torch.equal(one, same)


def facts(task: Dense, scores: Tensor, y: Tensor) -> list[Tensor]:
    said = task.prediction(scores)
    return [
        task.right(said, y),
        task.wrong_share(said, y),
        task.error(said, y, scores.shape[1]),
        task.margin(scores, y),
        task.loss(cross_entropy, scores, y, None, True),
        task.loss(Houdini(task), scores, y, None, True),
    ]


def test_a_loss_is_the_mean_over_labelled_positions() -> None:
    scores, y = drawn(5)
    for target in (None, drawn(6)[1]):
        found = Segmentation().loss(cross_entropy, scores, y, target, True)
        for row in range(len(y)):
            places = ((y if target is None else target)[row] >= 0).nonzero().tolist()
            each = [
                cross_entropy(
                    scores[row, :, i, j][None],
                    y[row, i, j][None].clamp_min(0),
                    None if target is None else target[row, i, j][None],
                )
                for i, j in places
            ]
            assert found[row] == pytest.approx(float(torch.cat(each).mean()), rel=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_error_of_a_segmentation_is_one_less_the_mean_intersection_over_union(seed: int) -> None:
    scores, y = drawn(seed)
    said = scores.argmax(1)
    found = Segmentation().error(said, y, 4)
    for row in range(len(y)):
        there = (y[row] >= 0).numpy()
        one, other = said[row].numpy()[there], y[row].numpy()[there]
        classes = set(one.tolist()) | set(other.tolist())
        each = [((one == c) & (other == c)).sum() / ((one == c) | (other == c)).sum() for c in classes]
        assert float(found[row]) == pytest.approx(1 - float(np.mean(each)), abs=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_error_of_a_string_is_its_edit_distance_over_its_length(seed: int) -> None:
    scores, y = drawn(seed, shape=(6,))
    y = y.clamp_min(0)
    said = scores.argmax(1)
    found = Sequence(blank=2).error(said, y, 4)
    for row in range(len(y)):
        one, other = ([c for c in string[row].tolist() if c != 2] for string in (said, y))
        assert float(found[row]) == pytest.approx(edits(one, other) / max(1, len(other)))


def edits(one: list[int], other: list[int]) -> int:
    """The fewest insertions, deletions and changes, by trying all."""
    if not one or not other:
        return len(one) + len(other)
    if one[0] == other[0]:
        return edits(one[1:], other[1:])
    return 1 + min(edits(one[1:], other), edits(one, other[1:]), edits(one[1:], other[1:]))


def test_goals_lead_to_masks_and_refuse_what_has_no_meaning() -> None:
    scores, y = drawn(8)
    stream = Stream.of(0, torch.arange(len(y)))
    for text in ("class:1", "random", "least_likely"):
        target = parse_goal(text).resolve(scores, y, stream)
        assert target is not None
        assert target.shape == (len(y), 1, 3, 4)
        assert torch.equal(target[:, 0] == -1, y == -1)
        if text != "class:1":
            assert not ((target[:, 0] == y) & (y >= 0)).any()
    for text in ("top:2", "untargeted,margin=1", "untargeted,confidence=0.9"):
        assert "segmentation" in str(parse_goal(text).misfit(4, Segmentation()))
    wanted = drawn(9)[1]
    found = parse_goal("given").resolve(scores, y, stream, wanted)
    assert found is not None
    assert torch.equal(found[:, 0], wanted)
    with pytest.raises(InvalidParameter, match="or -1 where it does not matter"):
        parse_goal("given").resolve(scores, y, stream, wanted + 9)


def test_a_mask_that_overlaps_the_label_can_be_reached() -> None:
    """Success under a target is to show it, also where it agrees with the label."""
    task, y = Segmentation(), torch.zeros(1, 2, 2, dtype=torch.int64)
    target = torch.tensor([[[0, 0], [0, 1]]])
    assert parse_goal("given").met(task, scores_saying(target), y, target).item()
    assert not parse_goal("given").met(task, scores_saying(y), y, target).item()
    assert not task.open(target, y, target[:, None]).item()  # it is there already


def scores_saying(classes: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(classes, 4).movedim(-1, 1).double()


@pytest.mark.parametrize("task", [Segmentation(), Sequence(), Classification()], ids=lambda t: t.kind)
@pytest.mark.parametrize("targeted", [False, True])
def test_houdini_is_its_expectation_and_its_gradient_that_of_finite_differences(
    task: Dense | Classification, targeted: bool
) -> None:
    """P[-margin < Z] by counting draws of Z; the slope by moving every score."""
    shape = () if isinstance(task, Classification) else (5,) if isinstance(task, Sequence) else (2, 3)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn((2, 4, *shape), generator=generator, dtype=torch.float64)
    y, aim = (torch.randint(4, (2, *shape), generator=generator) for _ in range(2))
    aim = (y + 1) % 4 if isinstance(task, Classification) else aim
    target = aim if targeted else None
    loss = Houdini(task)
    cost = task.error(task.prediction(scores), y if target is None else target, 4).nan_to_num(nan=1.0)
    gaps, _ = task.gaps(scores, y, target)
    lead = -gaps if targeted else gaps
    draws = torch.randn(200_000, generator=generator, dtype=torch.float64)
    counted = (-lead[..., None] < draws).double().mean(-1).mean(1) * cost
    assert torch.allclose(loss(scores, y, target).abs(), counted, atol=4e-3)
    leaf = scores.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf, y, target).sum(), leaf)
    for place in itertools.product(*map(range, scores.shape)):
        moved = [scores.clone() for _ in range(2)]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        said = task.prediction(scores)
        if all(torch.equal(task.prediction(one), said) for one in moved):  # its error does not jump there
            up, down = (float(loss(one, y, target).sum()) for one in moved)
            assert float(slope[place]) == pytest.approx((up - down) / 2e-6, abs=1e-7)


def test_the_steep_form_of_houdini_has_its_direction_and_does_not_underflow() -> None:
    task = Segmentation()
    scores, y = drawn(2)
    slopes = []
    for loss in (Houdini(task), steep(Houdini(task))):
        leaf = scores.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf, y, None).sum(), leaf)
        slopes.append(torch.nn.functional.normalize(slope.flatten(1)))
    assert torch.allclose(slopes[0], slopes[1], atol=1e-9)
    sure = (1000.0 * scores_saying(y.clamp_min(0)))[:1].requires_grad_()
    (slope,) = torch.autograd.grad(steep(Houdini(task))(sure, y[:1], None).sum(), sure)
    assert bool((slope != 0).any())


def test_of_classes_houdini_is_the_probability_of_the_margin() -> None:
    scores, y = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    found = Houdini(Classification())(scores, y)
    assert torch.allclose(found, torch.special.ndtr(margin(scores, y)))
