"""Goals: what counts as reached, asked alike by the attack's problem, the driver and the judge."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from robustbench_lite.core.errors import InvalidParameter, require

if TYPE_CHECKING:  # a goal is parsed before torch starts
    from torch import Tensor

    from robustbench_lite.core.random import Stream
    from robustbench_lite.core.task import Task


class Targets(StrEnum):
    """How the class to reach is chosen; none: any class but the true one will do."""

    NONE = "untargeted"
    GIVEN = "given"
    RANDOM = "random"
    LEAST_LIKELY = "least_likely"
    TOP = "top"
    CLASS = "class"


@dataclass(frozen=True)
class Goal:
    """What an adversarial example must reach.

    Parameters
    ----------
    targets : Targets, default Targets.NONE
        How the class to reach is chosen; none: any class but the true one will do.
    k : int, default 1
        How many of the likeliest wrong classes `top` tries, any of which will do; at least 1.
    margin : float, default 0.0
        The least margin of scores; at least 0.
    confidence : float, default 0.0
        The least confidence of the prediction; in [0, 1).
    stop : bool, default True
        Whether a sample is done at its first success, or goes on to a higher margin.
    label : int, default 0
        The class that `class` sends everything to, its own samples left out; at least 0.
    rejection, nan : bool, default False
        Whether it will do that the model refuses to answer, or answers with NaN.
    own : bool, default False
        Whether it will do that the model is sure of the sample's own class: for images made from nothing, of
        which no claim is right. Needs a confidence.

    Raises
    ------
    InvalidParameter
        For a value outside its range.

    Examples
    --------
    >>> str(Goal(Targets.TOP, k=3, margin=1.0))
    'top:3,margin=1'
    """

    targets: Targets = Targets.NONE
    k: int = 1
    margin: float = 0.0
    confidence: float = 0.0
    stop: bool = True
    label: int = 0
    rejection: bool = False
    nan: bool = False
    own: bool = False

    def __post_init__(self) -> None:
        require(self.label >= 0, "label", self.label, "a class, at least 0")
        require(self.k >= 1, "k", self.k, "at least 1")
        require(0 <= self.margin < math.inf, "margin", self.margin, "finite and at least 0")
        require(0 <= self.confidence < 1, "confidence", self.confidence, "in [0, 1)")
        alone = self.targets is Targets.NONE and self.confidence > 0
        require(alone or not self.own, "own", self.own, "failure, but for untargeted with a confidence")

    def __str__(self) -> str:
        number = {Targets.TOP: f":{self.k}", Targets.CLASS: f":{self.label}"}.get(self.targets, "")
        parts = [f"{self.targets}{number}"]
        parts += [f"margin={self.margin:.12g}"] if self.margin else []
        parts += [f"confidence={self.confidence:.12g}"] if self.confidence else []
        parts += [] if self.stop else ["stop=never"]
        parts += ["rejection=success"] * self.rejection + ["nan=success"] * self.nan
        parts += ["own=success"] * self.own
        return ",".join(parts)

    @property
    def targeted(self) -> bool:
        """Whether success is a certain class rather than any other."""
        return self.targets is not Targets.NONE

    def misfit(self, classes: int, task: Task | None = None) -> str | None:
        """Why the goal means nothing among so many classes; None where it does.

        Parameters
        ----------
        classes : int
        task : Task, optional
            What the model's scores mean; None: classes of samples.

        Returns
        -------
        str or None
            One line.

        Examples
        --------
        >>> parse_goal("top:10").misfit(10)
        'goal top:10: must name fewer than all 10 classes'
        """
        if self.targets is Targets.TOP and self.k >= classes:
            return f"goal {self}: must name fewer than all {classes} classes"
        labels = task is not None and task.kind == "multilabel"  # whose number is not that of classes
        if self.targets is Targets.CLASS and self.label >= classes and not labels:
            return f"goal {self}: must be a class below {classes}"
        scored = self.margin or self.confidence or self.targets is Targets.TOP
        if task is not None and task.kind != "classification" and scored:
            return f"goal {self}: means nothing to a {task.kind}, whose positions have scores of their own"
        return None

    def met(
        self,
        task: Task,
        scores: Tensor,
        y: Tensor,
        target: Tensor | None,
        confidence: Tensor | None = None,
    ) -> Tensor:
        """Whether each row's scores reach the goal.

        Parameters
        ----------
        task : Task
            What scores mean.
        scores : Tensor
            (n, K, …).
        y : Tensor
            (n, …) true classes.
        target : Tensor or None
            (n, …) classes to reach; looked at when the goal is targeted.
        confidence : Tensor, optional
            (n,) of the predictions, where the model has one.

        Returns
        -------
        Tensor of bool
            (n,).

        Raises
        ------
        InvalidParameter
            Where the goal asks for a confidence and there is none.
        """
        prediction = task.prediction(scores)
        nothing, rejected = ~task.answered(prediction), task.rejected(prediction)
        reached = task.reached(prediction, y, target if self.targeted else None)
        reached = (reached | self.own) & ~rejected
        if self.margin > 0:
            reached = reached & (self.progress(task, scores, y, target) >= self.margin)
        if self.confidence > 0:
            if confidence is None:
                raise InvalidParameter(
                    "confidence", self.confidence, "0 for a model whose scores have no scale"
                )
            reached = reached & (confidence >= self.confidence)
        reached = reached & ~nothing
        if self.rejection:
            reached = reached | (rejected & ~task.right(prediction, y))
        return reached | nothing if self.nan else reached

    def progress(self, task: Task, scores: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """The margin that rises towards this goal.

        Parameters
        ----------
        task : Task
        scores : Tensor
            (n, K, …).
        y : Tensor
            (n, …) true classes.
        target : Tensor or None
            (n, …) classes to reach; looked at when the goal is targeted.

        Returns
        -------
        Tensor
            (n,), in the units of scores; below 0 until the class changes.
        """
        margin = task.margin(scores, y, target if self.targeted else None, self.rejection)
        return margin.abs() if self.own else margin

    def resolve(
        self,
        scores: Tensor,
        y: Tensor,
        stream: Stream,
        given: Tensor | None = None,
        task: Task | None = None,
    ) -> Tensor | None:
        """The classes to reach, from the clean scores.

        Of several labels a sample, `class`, `random` and `least_likely` name one that is to be added where it
        is missing, and taken away where it is there.

        Parameters
        ----------
        scores : Tensor
            (n, K, …), without an attack.
        y : Tensor
            (n, …) int64, true classes.
        stream : Stream
            For `random`: every class but y, evenly; the same distance from y at every position.
        given : Tensor, optional
            (n, …) for `given`: classes below K, other than y; of an answer with positions any, or -1.
        task : Task, optional
            What the scores mean; None: classes of samples.

        Returns
        -------
        Tensor or None
            (n, k, …) int64, any of which will do; None when untargeted.

        Raises
        ------
        InvalidParameter
            Where given classes are missing or not legal, `label` is no class, or `k` is not below K.
        """
        classes, own = scores.shape[1], y[:, None].clamp_min(0)
        if (
            task is not None
            and task.kind == "multilabel"
            and self.targets not in (Targets.NONE, Targets.GIVEN)
        ):
            return self._one_label(scores, y, stream)
        match self.targets:
            case Targets.NONE:
                return None
            case Targets.GIVEN:
                return _legal(given, y, classes)[:, None]
            case Targets.RANDOM:
                draw = stream.fold("target").integers(classes - 1, (1,))
                draw = draw.view(-1, *[1] * y.dim())
                target = draw + (draw >= own)  # every class but y, evenly
            case Targets.LEAST_LIKELY:
                target = scores.scatter(1, own, math.inf).argmin(1, keepdim=True)
            case Targets.CLASS:
                require(self.label < classes, "label", self.label, f"a class below {classes}")
                target = 0 * own + self.label
            case Targets.TOP:
                require(self.k < classes, "k", self.k, f"below the number of classes, {classes}")
                target = scores.scatter(1, own, -math.inf).topk(self.k, dim=1).indices
        return target.masked_fill(y[:, None] < 0, -1)  # where there is no label, none is to be reached

    def _one_label(self, scores: Tensor, y: Tensor, stream: Stream) -> Tensor:
        """The label to change of each sample (n, 1, L), with -1 for all others."""
        unknown = y < 0
        match self.targets:
            case Targets.RANDOM:
                drawn = stream.fold("target").uniform((y.shape[1],))
                place = drawn.masked_fill(unknown, -1).argmax(1, keepdim=True)
            case Targets.LEAST_LIKELY:
                sure = (scores[:, 1] - scores[:, 0]).abs()
                place = sure.masked_fill(unknown, -1).argmax(1, keepdim=True)
            case _:
                require(self.label < y.shape[1], "label", self.label, f"a label below {y.shape[1]}")
                place = y.new_full((len(y), 1), self.label)
        own = y.gather(1, place)
        return (0 * y - 1).scatter(1, place, (1 - own).masked_fill(own < 0, -1))[:, None]


def _legal(given: Tensor | None, y: Tensor, classes: int) -> Tensor:
    """Answers to reach (n, …) that a user chose; raises `InvalidParameter`."""
    if given is None:
        raise InvalidParameter("target", None, "one class a sample where the goal is given")
    given = given.to(y)
    if y.dim() == 1:
        legal = given.shape == y.shape and bool(((given >= 0) & (given < classes) & (given != y)).all())
        require(legal, "target", given.tolist()[:8], f"(n,) classes below {classes} other than y")
    else:
        legal = given.shape == y.shape and bool(((given >= -1) & (given < classes)).all())
        allowed = f"{tuple(y.shape)} classes below {classes}, or -1 where it does not matter"
        held = f"{tuple(given.shape)} from {int(given.min())} to {int(given.max())}"
        require(legal, "target", held, allowed)
    return given


def parse_goal(text: str) -> Goal:
    """The goal a text names.

    Parameters
    ----------
    text : str
        `untargeted`, `random`, `least_likely`, `given`, `top:K` or `class:C`. The options that may follow are
        `margin=M`, `confidence=P`, `stop=never`, `rejection=success`, `nan=success` and `own=success`,
        separated by commas.

    Returns
    -------
    Goal

    Raises
    ------
    InvalidParameter
        Where the text names no goal, or a number is outside its range.

    Examples
    --------
    >>> parse_goal("top:3,margin=0.5").k
    3
    >>> str(parse_goal("class:7"))
    'class:7'
    """
    allowed = (
        "untargeted, random, least_likely, given, top:K or class:C, then ,margin=M ,confidence=P ,stop=never "
        ",rejection=success ,nan=success ,own=success"
    )
    head, *options = text.strip().lower().replace("-", "_").split(",")
    name, colon, count = head.partition(":")
    numbered = name in (Targets.TOP, Targets.CLASS)
    if name not in set(Targets) or bool(colon) != numbered or (colon and not re.fullmatch(r"[0-9]+", count)):
        raise InvalidParameter("goal", text, allowed)
    values = dict(option.partition("=")[::2] for option in options)
    if len(values) < len(options):
        raise InvalidParameter("goal", text, "each option given once")
    try:
        least, sure = float(values.pop("margin", 0)), float(values.pop("confidence", 0))
    except ValueError:
        raise InvalidParameter("goal", text, allowed) from None
    stop = values.pop("stop", "first")
    also = {name: values.pop(name, "failure") for name in ("rejection", "nan", "own")}
    if values or stop not in ("first", "never") or not set(also.values()) <= {"success", "failure"}:
        raise InvalidParameter("goal", text, allowed)
    number = int(count or 1)
    label = number if name == Targets.CLASS else 0
    rejection, nan, own = (also[option] == "success" for option in ("rejection", "nan", "own"))
    k = 1 if name == Targets.CLASS else number
    return Goal(Targets(name), k, least, sure, stop == "first", label, rejection, nan, own)
