"""Goals: what they parse from, which classes they seek, when they are met."""

import pytest
import torch

from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.goal import Goal, Targets, parse_goal
from robustbench_lite.core.random import Stream
from robustbench_lite.core.task import Classification, margin

SCORES = torch.tensor([[3.0, 1.0, 2.0, -1.0], [0.0, 5.0, 4.0, 4.5], [1.0, 1.0, 1.0, 1.0]])
Y = torch.tensor([0, 1, 2])
STREAM = Stream.of(0, torch.arange(3))


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("untargeted", Goal()),
        ("top:3", Goal(Targets.TOP, 3)),
        ("least-likely", Goal(Targets.LEAST_LIKELY)),
        ("random,margin=0.5,stop=never", Goal(Targets.RANDOM, margin=0.5, stop=False)),
        ("untargeted,margin=0.1234567", Goal(margin=0.1234567)),
        ("given,confidence=0.9", Goal(Targets.GIVEN, confidence=0.9)),
    ],
)
def test_text_and_back(text: str, goal: Goal) -> None:
    assert parse_goal(text) == goal
    assert parse_goal(str(goal)) == goal


WRONG = ["", "top", "top:x", "top:0", "random:2", "all", "random,margin=x", "given,stop=now", "random,what=3",
         "top:²", "untargeted,margin=1,margin=2", "untargeted,margin=inf"]  # fmt: skip


@pytest.mark.parametrize("text", [*WRONG, "untargeted,confidence=1"])
def test_what_is_no_goal_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parse_goal(text)


def test_margin_is_the_best_other_score_less_the_true_one() -> None:
    assert margin(SCORES, Y).tolist() == [-1.0, -0.5, 0.0]
    assert margin(SCORES, Y, torch.tensor([2, 3, 0])).tolist() == [-1.0, -0.5, 0.0]
    assert margin(SCORES, Y, torch.tensor([3, 0, 0])).tolist() == [-4.0, -5.0, 0.0]


def test_a_goal_is_met_by_class_margin_and_confidence() -> None:
    moved = torch.tensor([[1.0, 2.0, 0.0, 0.0]])
    y, target = torch.tensor([0]), torch.tensor([1])
    assert Goal().met(Classification(), moved, y, None, None).item()
    assert Goal(Targets.GIVEN).met(Classification(), moved, y, target, None).item()
    assert not Goal(Targets.GIVEN).met(Classification(), moved, y, torch.tensor([2]), None).item()
    assert Goal(margin=1.0).met(Classification(), moved, y, None, None).item()
    assert not Goal(margin=1.01).met(Classification(), moved, y, None, None).item()
    sure = moved.softmax(1).amax(1)
    assert Goal(confidence=0.5).met(Classification(), moved, y, None, sure).item()
    assert not Goal(confidence=0.7).met(Classification(), moved, y, None, sure).item()
    with pytest.raises(InvalidParameter, match="no scale"):
        Goal(confidence=0.5).met(Classification(), moved, y, None, None)
    assert not Goal().met(Classification(), torch.tensor([[0.0, torch.nan, 0.0, 0.0]]), y, None, None).item()


def test_targets_are_resolved_from_clean_scores() -> None:
    assert Goal().resolve(SCORES, Y, STREAM) is None
    least = Goal(Targets.LEAST_LIKELY).resolve(SCORES[:2], Y[:2], Stream(STREAM.key[:2]))
    assert least is not None
    assert least.tolist() == [[3], [0]]
    top = Goal(Targets.TOP, 2).resolve(SCORES[:2], Y[:2], Stream(STREAM.key[:2]))
    assert top is not None
    assert top.tolist() == [[2, 1], [3, 2]]
    with pytest.raises(InvalidParameter, match="below the number of classes"):
        Goal(Targets.TOP, 4).resolve(SCORES, Y, STREAM)


def test_random_targets_are_even_over_the_wrong_classes() -> None:
    n = 6000
    y = torch.arange(n) % 4
    found = Goal(Targets.RANDOM).resolve(torch.zeros(n, 4), y, Stream.of(0, torch.arange(n)))
    assert found is not None
    assert (found[:, 0] != y).all()
    counts = torch.stack([(found[y == c, 0]).bincount(minlength=4) for c in range(4)])
    assert ((counts - 500 * (1 - torch.eye(4))).abs() < 100).all()


def test_given_targets_are_checked() -> None:
    given = Goal(Targets.GIVEN)
    with pytest.raises(InvalidParameter, match="one class a sample"):
        given.resolve(SCORES, Y, STREAM)
    for wrong in ([0, 2, 0], [1, 2, 4], [1, 2]):
        with pytest.raises(InvalidParameter, match="other than y"):
            given.resolve(SCORES, Y, STREAM, torch.tensor(wrong))
