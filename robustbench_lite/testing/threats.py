"""The laws of threats, on small images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from robustbench_lite.core.domain import Domain
from robustbench_lite.core.random import Stream
from robustbench_lite.core.shape import per_row
from robustbench_lite.core.threat import Threat
from robustbench_lite.testing.check import Check
from robustbench_lite.threats.named import parse_threat

SHAPES = ((1, 6, 6), (3, 5, 7))
ROWS, DRAWS = 6, 40


@dataclass(frozen=True)
class Subject:
    """A threat of a fixed size, and samples of one shape."""

    threat: Threat
    shape: tuple[int, ...]

    @property
    def x0(self) -> Tensor:
        """Samples (n, …), two of them at the corners of the box."""
        x0 = Stream.of(1, torch.arange(ROWS)).uniform(self.shape)
        low, high = self.threat.domain.bounds(x0)
        x0 = low + (high - low) * x0
        x0[0], x0[1] = low, high
        return x0

    @property
    def eps(self) -> Tensor:
        """Sizes (n,), the whole one and parts of it."""
        assert self.threat.eps is not None
        return self.threat.eps * torch.linspace(1, 0.3, ROWS, dtype=torch.float64)

    def points(self, draw: int) -> Tensor:
        """Random admissible points (n, …)."""
        return self.threat.random(Stream.of(draw, torch.arange(ROWS)).fold("law"), self.x0, self.eps)

    def far(self, draw: int, reach: float) -> Tensor:
        """Points (n, …), some of them far outside."""
        origin = self.threat.origin(self.x0)
        noise = Stream.of(draw, torch.arange(ROWS)).fold("far").gaussian(tuple(origin.shape[1:]))
        return origin + per_row(reach * self.eps, origin) * noise.to(origin)


def threat_checks(given: str | Threat) -> list[Check]:
    """Every law for a threat of a fixed size, on grey images and on those in colour.

    Parameters
    ----------
    given : str or Threat
        In the box [0, 1]; it is tried in another one too.

    Returns
    -------
    list of Check
    """
    boxes = (Domain(), Domain(-2.0, 2.0))
    threats = [parse_threat(given, domain) for domain in boxes]
    subjects = [Subject(threat, shape) for threat in threats for shape in SHAPES]
    return [
        Check(f"{s.threat}-{s.shape}-{s.threat.domain.high}-{law.__name__}", partial(law, s))
        for s in subjects
        if s.threat.refuses(s.shape) is None
        for law in LAWS
    ]


def the_origin_changes_nothing(subject: Subject) -> None:
    """To the last bit, and it is at distance 0 and admissible for no size at all."""
    threat, x0 = subject.threat, subject.x0
    origin = threat.origin(x0)
    assert torch.equal(threat.render(origin, x0), x0)
    assert (threat.distance(origin, x0) == 0).all()
    assert threat.contains(origin, x0, torch.zeros_like(subject.eps)).all()


def what_is_projected_is_inside_and_stays(subject: Subject) -> None:
    """Measured in float64; again projected it is the same, to rounding."""
    threat, x0, eps = subject.threat, subject.x0, subject.eps
    for draw, reach in enumerate((0.01, 0.5, 3.0, 100.0)):
        z = threat.project(subject.far(draw, reach), x0, eps)
        assert threat.contains(z, x0, eps).all()
        assert (threat.distance(z, x0) <= eps).all()
        assert torch.allclose(threat.project(z, x0, eps), z, atol=1e-5, rtol=1e-5)


def no_random_point_is_nearer_than_the_projection(subject: Subject) -> None:
    """Of many admissible points, and what lies between them and the projection."""
    threat, x0, eps = subject.threat, subject.x0, subject.eps
    for draw in range(DRAWS):
        z = subject.far(draw, 1.0)
        near = threat.project(z, x0, eps)
        other = subject.points(draw)
        least = (z - near).double().flatten(1).norm(dim=1)
        for share in (1.0, 0.1):
            between = threat.project(near + share * (other - near), x0, eps)
            assert (least <= (z - between).double().flatten(1).norm(dim=1) * (1 + 1e-5) + 1e-6).all()


def random_points_are_admissible_and_differ(subject: Subject) -> None:
    """By their keys alone."""
    first, again, other = subject.points(0), subject.points(0), subject.points(1)
    assert torch.equal(first, again)
    assert (first != other).flatten(1).any(1).all()
    assert subject.threat.contains(first, subject.x0, subject.eps).all()


def the_linear_maximum_is_one(subject: Subject) -> None:
    """No admissible point that is drawn or projected is higher."""
    threat, x0, eps = subject.threat, subject.x0, subject.eps
    for draw in range(DRAWS):
        origin = threat.origin(x0)
        gradient = Stream.of(draw, torch.arange(ROWS)).fold("slope").gaussian(tuple(origin.shape[1:]))
        best = threat.linear_maximum(gradient.to(origin), x0, eps)
        assert threat.contains(best, x0, eps).all()

        def height(z: Tensor, slope: Tensor = gradient) -> Tensor:
            return (slope.double() * z.double()).flatten(1).sum(1)

        size = height(best).abs() + eps
        for other in (subject.points(draw), threat.project(subject.far(draw, 1.0), x0, eps), origin):
            assert (height(other) <= height(best) + 1e-5 * size).all()
        step = threat.steepest(gradient.to(origin))
        assert (height(step) > 0).all(), "the steepest step does not rise"


def inputs_lie_in_the_box_and_have_slopes(subject: Subject) -> None:
    """Whatever is rendered, at random points and at the origin."""
    threat, x0 = subject.threat, subject.x0
    slopes = []
    for z in (threat.origin(x0), subject.points(0), subject.points(1)):
        leaf = z.detach().clone().requires_grad_()
        x = threat.render(leaf, x0)
        assert x.shape == x0.shape
        assert threat.domain.inside(x.detach()).all()
        weight = Stream.of(2, torch.arange(ROWS)).fold("weight").gaussian(subject.shape)
        (slope,) = torch.autograd.grad((weight * x).sum(), leaf)
        assert slope.isfinite().all()
        slopes.append(slope[2:].flatten(1).abs().amax(1))
    assert (slopes[0] > 0).all(), "nothing leads away from the origin"
    assert (torch.stack(slopes).amax(0) > 0).all()


def numbers_of_64_bits_do_as_well(subject: Subject) -> None:
    """The same answers, to the rounding of the shorter ones."""
    threat, x0, eps = subject.threat, subject.x0, subject.eps
    z = subject.points(0)
    wide = threat.project(z.double(), x0.double(), eps)
    assert wide.dtype == torch.float64
    assert threat.contains(wide, x0.double(), eps).all()
    assert torch.allclose(threat.render(wide, x0.double()).float(), threat.render(z, x0), atol=1e-4)


def a_box_elsewhere_gives_the_same_image_there(subject: Subject) -> None:
    """Moved by a number: black is the low end of the box, wherever that is."""
    threat, x0 = subject.threat, subject.x0
    low, high = (float(bound) for bound in threat.domain.bounds(x0))
    moved = threat.within(Domain(low - 1, high - 1))
    z = subject.points(0)
    other = z - 1 if threat.over_inputs else z
    there = moved.render(other, x0 - 1)
    assert torch.allclose(there, threat.render(z, x0) - 1, atol=1e-4)


def rows_are_rendered_each_by_itself(subject: Subject) -> None:
    """What is made of a row depends on no other."""
    threat, x0, z = subject.threat, subject.x0, subject.points(0)
    whole = threat.render(z, x0)
    for row in range(ROWS):
        alone = threat.render(z[row : row + 1], x0[row : row + 1])
        assert torch.allclose(alone, whole[row : row + 1], atol=1e-6)


LAWS: Sequence[Callable[[Subject], None]] = (
    the_origin_changes_nothing,
    what_is_projected_is_inside_and_stays,
    no_random_point_is_nearer_than_the_projection,
    random_points_are_admissible_and_differ,
    the_linear_maximum_is_one,
    inputs_lie_in_the_box_and_have_slopes,
    rows_are_rendered_each_by_itself,
    numbers_of_64_bits_do_as_well,
    a_box_elsewhere_gives_the_same_image_there,
)
