"""Where inputs live: the box, the features that may change, and the features that take steps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustbench_lite.core.errors import require
from robustbench_lite.core.orders import Order, drawn_back, evened, kept

LOOSE = 4  # floats that writing a step down in float32 may be off by


@dataclass(frozen=True)
class Domain:
    """The inputs there are, for one sample's shape.

    A tensor among the fields has that shape, or broadcasts to it.

    Parameters
    ----------
    low, high : float or Tensor, default 0.0 and 1.0
        The box, in the units of x.
    mask : Tensor of bool, optional
        True where a feature may change; None: everywhere.
    spacing : Tensor, optional
        The distance between neighbouring values of a feature that takes steps, 0 where it is continuous, in
        the units of x; None: continuous everywhere. x0 itself is taken to lie on the grid, and the grid is x0
        plus whole steps as far as the box reaches.
    pixel_dim : int or "auto", optional, default "auto"
        The axis of one sample that a pixel's channels lie on; None: every feature is a pixel of its own;
        auto: found from the shape of a sample, the first unless only the last can be it.
    groups : Tensor, optional
        (d,) int64, for samples of a single axis: features of the same number, at least 0, are one choice,
        exactly one of them at its spacing and the others 0, and count as one pixel;
        -1: a feature by itself.
    orders : tuple of Order, optional
        Features of which one may not pass another.

    Raises
    ------
    InvalidParameter
        Where low is above high in some feature, a spacing is below 0, or a choice has none.

    Examples
    --------
    >>> Domain(-1.0, 1.0).clamp(torch.tensor([[-3.0, 0.0]]))
    tensor([[-1.,  0.]])
    >>> second = Domain(mask=torch.tensor([False, True]))
    >>> second.admits(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.zeros(2, 2))
    tensor([ True, False])
    """

    low: float | Tensor = 0.0
    high: float | Tensor = 1.0
    mask: Tensor | None = None
    spacing: Tensor | None = None
    pixel_dim: int | Literal["auto"] | None = "auto"
    groups: Tensor | None = None
    orders: tuple[Order, ...] = ()

    def __post_init__(self) -> None:
        ordered = bool((torch.as_tensor(self.low) <= torch.as_tensor(self.high)).all())
        require(ordered, "low", self.low, "at most high, feature by feature")
        axis = self.pixel_dim
        require(
            axis is None or axis == "auto" or axis >= 0, "pixel_dim", axis, "an axis from 0, auto or None"
        )
        if self.spacing is not None:
            require(bool((self.spacing >= 0).all()), "spacing", self.spacing, "at least 0")
        if self.groups is not None:
            steps = torch.zeros_like(self.groups) if self.spacing is None else self.spacing
            require(bool((steps[self.groups >= 0] > 0).all()), "spacing", self.spacing, "above 0 for groups")

    def pixel_axis(self, shape: Sequence[int]) -> int | None:
        """The axis of one sample that a pixel's channels lie on; None: every feature is a pixel of its own.

        Parameters
        ----------
        shape : sequence of int
            Of one sample.

        Returns
        -------
        int or None

        Examples
        --------
        >>> Domain().pixel_axis((3, 8, 8)), Domain().pixel_axis((8, 8, 3)), Domain().pixel_axis((5,))
        (0, 2, None)
        """
        if self.pixel_dim is None or len(shape) < 2:
            return None
        if self.pixel_dim != "auto":
            return self.pixel_dim
        return (_possible_axes(shape) or [0])[0]

    @property
    def whole(self) -> bool:
        """Whether every value of the box is allowed to every feature that may change."""
        return self.spacing is None and self.groups is None and not self.orders

    def ambiguous(self, shape: Sequence[int]) -> bool:
        """Whether either end of a sample's shape may be its channels, and nobody said which."""
        return self.pixel_dim == "auto" and len(_possible_axes(shape)) > 1

    def to(self, device: torch.device | str) -> Domain:
        """The same domain with its tensors on another device."""

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device)

        low, high = (v.to(device) if isinstance(v, Tensor) else v for v in (self.low, self.high))
        mask, spacing, groups = (moved(part) for part in (self.mask, self.spacing, self.groups))
        return Domain(low, high, mask, spacing, self.pixel_dim, groups, self.orders)

    def fingerprint(self) -> str:
        """sha256 of the box, the mask, the steps, the pixels, the choices and the orders."""
        digest = hashlib.sha256(repr(self.pixel_dim).encode())
        if self.orders:
            digest.update(repr(self.orders).encode())
        for part in (self.low, self.high, self.mask, self.spacing, self.groups):
            told = repr(part) if not isinstance(part, Tensor) else f"{part.dtype} {tuple(part.shape)}"
            digest.update(told.encode())
            if isinstance(part, Tensor):
                digest.update(part.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def bounds(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """low and high as tensors of x's type and device, that broadcast against x.

        Parameters
        ----------
        x : Tensor
            (n, …).

        Returns
        -------
        tuple of Tensor
            low and high.
        """
        return torch.as_tensor(self.low).to(x), torch.as_tensor(self.high).to(x)

    def clamp(self, x: Tensor) -> Tensor:
        """x moved into the box, feature by feature (n, …)."""
        low, high = self.bounds(x)
        return torch.minimum(torch.maximum(x, low), high)

    def inside(self, x: Tensor) -> Tensor:
        """Whether each row lies in the box (n,); a NaN does not."""
        low, high = self.bounds(x)
        return torch.maximum(low - x, x - high).flatten(1).amax(1) <= 0

    def free(self, values: Tensor) -> Tensor:
        """Values with 0 where a feature may not change.

        Parameters
        ----------
        values : Tensor
            (n, …), or (n, k, …).

        Returns
        -------
        Tensor
            Shaped like values; values themselves where there is no mask.
        """
        return values if self.mask is None else values * self.mask

    def kept(self, x: Tensor, x0: Tensor) -> Tensor:
        """x with x0's values where a feature may not change.

        Parameters
        ----------
        x, x0 : Tensor
            (n, …).

        Returns
        -------
        Tensor
            (n, …); x itself where there is no mask.
        """
        return x if self.mask is None else torch.where(self.mask, x, x0)

    def admits(self, x: Tensor, x0: Tensor) -> Tensor:
        """Whether each row lies in the box and changes only what may change.

        Parameters
        ----------
        x, x0 : Tensor
            (n, …): points, and the samples they started from.

        Returns
        -------
        Tensor of bool
            (n,); False for a row with a NaN.
        """
        if self.whole and self.mask is None:
            return self.inside(x)
        return self.inside(x) & self.changed_only_allowed(x, x0)

    def changed_only_allowed(self, x: Tensor, x0: Tensor) -> Tensor:
        """Whether each row changes only what the mask allows, in whole steps and in the orders there are.

        A change counts as a whole step where it is off by what writing it down in float32 may add, and by no
        more than a quarter of a step.

        Parameters
        ----------
        x, x0 : Tensor
            (n, …).

        Returns
        -------
        Tensor of bool
            (n,); the box is not looked at.
        """
        allowed = torch.ones(len(x), dtype=torch.bool, device=x.device)
        if self.mask is not None:
            allowed &= ((x == x0) | self.mask).flatten(1).all(1)
        if self.spacing is not None:
            unit = self._unit()
            steps = ((x.double() - x0.double()) / unit).round()
            off = (x.double() - (x0.double() + steps * unit)).abs()
            # Both x and x0 are float32: they name a step as well as floats of their size can.
            size = torch.maximum(x.abs(), x0.abs()).double().clamp_min(1e-30)
            whole = off <= torch.minimum(LOOSE * 2.0**-23 * size, unit / 4)
            allowed &= (whole | (self.spacing == 0)).flatten(1).all(1)
        if self.groups is not None:
            for members in self._places():
                choice, one = x.flatten(1)[:, members], self._ones(x)[members]
                chosen = choice == one
                allowed &= ((choice == 0) | chosen).all(1) & (chosen.sum(1) == 1)
        return allowed & kept(self.orders, x, x0) if self.orders else allowed

    def snap(self, x: Tensor, x0: Tensor, *, inward: bool) -> Tensor:
        """x with its stepped features on the grid, and none past another that it may not pass.

        Other features stay as they are.

        Parameters
        ----------
        x, x0 : Tensor
            (n, …).
        inward : bool
            The next step towards x0 rather than the nearest one.

        Returns
        -------
        Tensor
            (n, …), stepped features inside the box.

        Examples
        --------
        >>> grid = Domain(spacing=torch.tensor([0.25]))
        >>> grid.snap(torch.tensor([[0.7]]), torch.zeros(1, 1), inward=False)
        tensor([[0.7500]])
        >>> grid.snap(torch.tensor([[0.7]]), torch.zeros(1, 1), inward=True)
        tensor([[0.5000]])
        """
        if self.orders:
            if inward:
                x = drawn_back(self.orders, x, x0, whole=False)
            else:
                free = None if self.mask is None else self.mask.expand(x.shape[1:]).flatten()
                x = self.clamp(evened(self.orders, x, free))
        found = x if self.spacing is None else self._on_grid(x, x0, inward)
        return drawn_back(self.orders, found, x0, whole=True) if self.orders and inward else found

    def _on_grid(self, x: Tensor, x0: Tensor, inward: bool) -> Tensor:
        """x with stepped features on the grid, and one of each choice chosen."""
        assert self.spacing is not None
        unit = self._unit()
        steps = (x.double() - x0.double()) / unit
        if inward:  # a step that rounding left just short of whole still counts as whole
            steps = (steps + torch.copysign(torch.full_like(steps, 1e-5), steps)).trunc()
        least, most = self.steps(x0)
        steps = torch.minimum(torch.maximum(steps.round(), least), most)
        on_grid = self.clamp((x0.double() + steps * unit).to(x.dtype))
        snapped = torch.where(self.spacing > 0, on_grid, x)
        return snapped if self.groups is None else self._one_of_each(snapped, x, x0, inward)

    def in_whole_steps(self, delta: Tensor) -> Tensor:
        """Changes (n, …) float64 with those of stepped features as whole steps, as far as they are.

        Float32 writes six steps of 1/60 as 0.10000001: they are 0.1, less a hair that rounding may add, and
        more of one where float32 writes the step itself: six of 0.05 are no more than 0.3.
        """
        if self.spacing is None:
            return delta
        unit = self._unit()
        steps = (delta / unit).round()
        whole = (delta - steps * unit).abs() <= LOOSE * 2.0**-23
        hair = 2.0**-48 if self.spacing.dtype == torch.float64 else 2.0**-23
        return torch.where(whole & (self.spacing > 0), steps * unit * (1 - hair), delta)

    def steps(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """How many whole steps the box leaves below and above each feature of x0.

        For a domain with `spacing`; a continuous feature counts in steps of 1.

        Parameters
        ----------
        x0 : Tensor
            (n, …), in the box.

        Returns
        -------
        tuple of Tensor
            The least, at most 0, and the most, at least 0; (n, …) float64.
        """
        unit = self._unit()
        low, high = (bound.double() for bound in self.bounds(x0))
        # A grid point that float32 puts a hair beyond the box is still in it.
        return ((low - x0.double()) / unit - 1e-3).ceil(), ((high - x0.double()) / unit + 1e-3).floor()

    def at_least_a_step(self, reach: float, x: Tensor) -> Tensor:
        """A reach for each feature, wide enough to leave the point it starts from.

        Parameters
        ----------
        reach : float
            Wanted, in the units of x.
        x : Tensor
            (n, …), for its shape, type and device.

        Returns
        -------
        Tensor
            (1, …): the reach, or a feature's step where that is wider.
        """
        one = torch.full_like(x[:1], reach)
        return one if self.spacing is None else torch.maximum(one, self.spacing.to(one))

    def pixels(self, values: Tensor) -> Tensor:
        """A quantity per feature summed over the channels of each pixel.

        Parameters
        ----------
        values : Tensor
            (n, …).

        Returns
        -------
        Tensor
            (n, pixels); in samples of a single axis (n, d) every feature is a pixel of its own.

        Examples
        --------
        >>> Domain().pixels(torch.ones(2, 3, 8, 8)).shape
        torch.Size([2, 64])
        """
        axis = self.pixel_axis(values.shape[1:])
        if self.groups is not None:
            flat = values.flatten(1)
            choices = [flat[:, members].sum(1, keepdim=True) for members in self._places()]
            return torch.cat([flat[:, self.groups < 0], *choices], 1)
        return values.flatten(1) if axis is None else values.sum(axis + 1).flatten(1)

    def spread(self, per_pixel: Tensor, like: Tensor) -> Tensor:
        """A quantity per pixel given to each of the pixel's channels.

        Parameters
        ----------
        per_pixel : Tensor
            (n, pixels), as `pixels` makes it.
        like : Tensor
            (n, …), for its shape.

        Returns
        -------
        Tensor
            (n, …), shaped like `like`.
        """
        axis = self.pixel_axis(like.shape[1:])
        if self.groups is not None:
            alone = self.groups < 0
            place = alone.cumsum(0) - 1
            for rank, members in enumerate(self._places()):
                place[members] = alone.sum() + rank
            return per_pixel[:, place].reshape(like.shape)
        if axis is None:
            return per_pixel.reshape(like.shape)
        shape = [*like.shape[: axis + 1], 1, *like.shape[axis + 2 :]]
        return per_pixel.reshape(shape).expand(like.shape)

    def _places(self) -> list[Tensor]:
        """The features of each group."""
        assert self.groups is not None
        numbers = torch.unique(self.groups[self.groups >= 0])
        return [(self.groups == number).nonzero()[:, 0] for number in numbers]

    def _ones(self, x: Tensor) -> Tensor:
        """What a feature of a choice is where it is chosen (d,)."""
        assert self.spacing is not None
        return self.spacing.to(x).expand(x.flatten(1).shape[1])

    def _one_of_each(self, snapped: Tensor, x: Tensor, x0: Tensor, inward: bool) -> Tensor:
        """Snapped features with one of each group chosen: the largest in x; inward, x0's own."""
        flat, given, own = snapped.flatten(1).clone(), x.flatten(1), x0.flatten(1)
        for members in self._places():
            held = own[:, members] if inward else given[:, members] + 1e-6 * own[:, members]
            best = held.argmax(1, keepdim=True)  # a tie stays where it was
            one = self._ones(x)[members].expand_as(held)
            flat[:, members] = torch.zeros_like(held).scatter(1, best, one.gather(1, best))
        return flat.reshape(snapped.shape)

    def _unit(self) -> Tensor:
        assert self.spacing is not None
        return torch.where(self.spacing > 0, self.spacing, 1.0).double()


def _possible_axes(shape: Sequence[int]) -> list[int]:
    """The ends of a sample's shape that may be channels: 1 or 3 of them, beside two sides of an image."""
    if len(shape) != 3:
        return []
    first, last = shape[0] in (1, 3) and min(shape[1:]) > 1, shape[2] in (1, 3) and min(shape[:2]) > 1
    if first and last and (shape[0] == shape[1]) != (shape[1] == shape[2]):  # one of them leaves a square
        return [2] if shape[0] == shape[1] else [0]
    return [0] * first + [2] * last
