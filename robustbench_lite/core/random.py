"""Counter-based random numbers: what a sample meets depends on its own key and on nothing else.

A `Stream` holds one 64-bit key a row. Every draw hashes (key, coordinate) with the finaliser of
SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"), so the noise of a
sample is independent of batch size, order, device and number of workers. Integers and uniforms are the
same bits on every device; normals agree to rounding.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The int64 with the same 64 bits as an unsigned value."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_ALL = (1 << 64) - 1
_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch shifts int64 arithmetically."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser, a bijection of 64 bits; products wrap."""
    x = (x ^ _shift(x, 30)).mul_(_FIRST)
    x = x.bitwise_xor_(_shift(x, 27)).mul_(_SECOND)
    return x.bitwise_xor_(_shift(x, 31))


def _mix_number(x: int) -> int:
    """The same of one number, unsigned."""
    x &= _ALL
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _ALL
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _ALL
    return x ^ (x >> 31)


@functools.cache
def text_key(text: str) -> int:
    """A stable 64-bit number for a name."""
    return _signed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def _one(parts: Iterable[int | str | Tensor]) -> int:
    """Numbers and names that are the same for all rows, as one number: tensors are mixed but once."""
    numbers = (_mix_number((text_key(p) if isinstance(p, str) else int(p)) + _FIRST) for p in parts)
    return _signed(
        functools.reduce(lambda whole, one: _mix_number(_mix_number(whole + _GOLDEN) ^ one), numbers)
    )


@dataclass(frozen=True)
class Stream:
    """Random numbers for n rows, one key a row.

    What is drawn depends on the row's key alone: not on its neighbours, their order or number, nor on the
    device.

    Parameters
    ----------
    key : Tensor
        (n,) int64.

    Examples
    --------
    >>> ids = torch.tensor([7, 3])
    >>> both = Stream.of(0, ids).fold("noise").uniform((2,))
    >>> alone = Stream.of(0, ids[1:]).fold("noise").uniform((2,))
    >>> torch.equal(both[1:], alone)
    True
    """

    key: Tensor

    @classmethod
    def of(cls, seed: int, ids: Tensor) -> Stream:
        """The stream of a seed for the samples with these ids.

        Parameters
        ----------
        seed : int
        ids : Tensor
            (n,) int64, on the device that is to draw.

        Returns
        -------
        Stream
        """
        return cls(torch.full_like(ids, _signed(seed), dtype=torch.int64)).fold(ids)

    def fold(self, *parts: int | str | Tensor) -> Stream:
        """The stream with further parts in its key, whose numbers are others.

        Parameters
        ----------
        *parts : int, str or Tensor
            A number, a name, or one number a row (n,).

        Returns
        -------
        Stream
            Another one; this one draws what it always draws.
        """
        key = self.key
        for _, group in itertools.groupby(parts, key=lambda part: isinstance(part, Tensor)):
            some = list(group)
            rows = [part for part in some if isinstance(part, Tensor)]
            for part in rows:
                key = _mix(_mix(key + _GOLDEN) ^ _mix(part.to(key) + _FIRST))
            if not rows:
                key = _mix(_mix(key + _GOLDEN) ^ _one(some))
        return Stream(key)

    def __getitem__(self, rows: Tensor) -> Stream:
        return Stream(self.key[rows])

    def bits(self, shape: tuple[int, ...]) -> Tensor:
        """64 random bits each.

        Parameters
        ----------
        shape : tuple of int
            Of what one row gets; () is one number a row.

        Returns
        -------
        Tensor
            (n, *shape) int64; the same at every call.
        """
        coordinate = torch.arange(1, math.prod(shape) + 1, device=self.key.device)
        return _mix(self.key[:, None] + coordinate * _GOLDEN).reshape(-1, *shape)

    def uniform(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Uniform in [0, 1): 24 bits in float32, 53 bits in float64.

        Parameters
        ----------
        shape : tuple of int
            Of what one row gets.
        dtype : torch.dtype, default torch.float32

        Returns
        -------
        Tensor
            (n, *shape); the same bits on every device.
        """
        if dtype == torch.float64:
            return _shift(self.bits(shape), 11).to(dtype) * 2.0**-53
        return (_shift(self.bits(shape), 40).to(torch.float32) * 2.0**-24).to(dtype)

    def normal(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal, by the inverse of the distribution function.

        Parameters
        ----------
        shape : tuple of int
            Of what one row gets.
        dtype : torch.dtype, default torch.float32

        Returns
        -------
        Tensor
            (n, *shape); on every device the same to rounding.
        """
        middle = (_shift(self.bits(shape), 12).to(torch.float64) + 0.5) * 2.0**-52
        normal: Tensor = torch.special.ndtri(middle)
        return normal.to(dtype)

    def gaussian(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal, two from each hash (Box & Muller 1958): many, quickly.

        Parameters
        ----------
        shape : tuple of int
            Of what one row gets.

        Returns
        -------
        Tensor
            (n, *shape) float32; on every device the same to rounding.
        """
        count = math.prod(shape)
        bits = self.bits((-(-count // 2),))
        radius = torch.log((_shift(bits, 40) + 1).to(torch.float32) * 2.0**-24).mul_(-2).sqrt_()
        angle = (bits & 0xFFFFFF).to(torch.float32) * (2.0**-24 * math.tau)
        pair = torch.stack([radius * angle.cos(), radius * angle.sin()], 2)
        return pair.flatten(1)[:, :count].reshape(-1, *shape)

    def exponential(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        """Exponential with mean 1.

        Parameters
        ----------
        shape : tuple of int
            Of what one row gets.
        dtype : torch.dtype, default torch.float32

        Returns
        -------
        Tensor
            (n, *shape).
        """
        return (-torch.log1p(-self.uniform(shape, torch.float64))).to(dtype)

    def integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        """Uniform whole numbers from 0 to high - 1.

        Parameters
        ----------
        high : int
            At most 2^31.
        shape : tuple of int
            Of what one row gets.

        Returns
        -------
        Tensor
            (n, *shape) int64; the same on every device.

        Examples
        --------
        >>> Stream.of(0, torch.arange(2)).integers(10, (3,)).shape
        torch.Size([2, 3])
        """
        return (_shift(self.bits(shape), 32) * high) >> 32
