"""Random numbers: one key, one value, whatever the batch; and as good as random."""

import numpy as np
import pytest
import torch
from scipy import stats

from robustbench_lite.core.random import Stream

IDS = torch.arange(200)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    whole = Stream.of(3, IDS).fold("noise", 7).uniform((3, 8, 8))
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    shuffled = Stream.of(3, IDS[order]).fold("noise", 7).uniform((3, 8, 8))
    alone = torch.cat([Stream.of(3, IDS[i : i + 1]).fold("noise", 7).uniform((3, 8, 8)) for i in range(9)])
    assert torch.equal(whole[order], shuffled)
    assert torch.equal(whole[:9], alone)


def test_every_part_of_the_key_matters() -> None:
    base = Stream.of(0, IDS)
    variants = [base, Stream.of(1, IDS), base.fold("a"), base.fold("b"), base.fold("a", 1), base.fold(1, "a")]
    variants += [base.fold(torch.zeros_like(IDS)), base.fold(IDS)]
    first = [tuple(v.bits((2,))[1].tolist()) for v in variants]
    assert len(set(first)) == len(variants)


def test_known_bits_never_change() -> None:
    """A run of last year must draw the same numbers today."""
    bits = Stream.of(2026, torch.tensor([0, 41])).fold("pgd", 1).bits((2,))
    assert bits.tolist() == KNOWN


KNOWN = [[7564642802538719525, 1159074690026813086], [3245525145449141846, -1342742276062734233]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_is_uniform(dtype: torch.dtype) -> None:
    u = Stream.of(0, IDS).uniform((500,), dtype)
    assert u.dtype == dtype
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-4


def test_normal_and_exponential_follow_their_laws() -> None:
    stream = Stream.of(0, IDS)
    assert stats.kstest(stream.normal((500,), torch.float64).flatten().numpy(), "norm").pvalue > 1e-4
    assert stats.kstest(stream.exponential((500,), torch.float64).flatten().numpy(), "expon").pvalue > 1e-4


def test_integers_are_even() -> None:
    counts = np.bincount(Stream.of(5, IDS).integers(7, (500,)).flatten().numpy(), minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts).pvalue > 1e-4


def test_neighbouring_keys_and_coordinates_are_independent() -> None:
    u = Stream.of(0, torch.arange(400)).uniform((400,), torch.float64).numpy()
    bound = 5 / np.sqrt(u.size)  # five standard deviations of a correlation of independent numbers
    assert abs(np.corrcoef(u[:-1].ravel(), u[1:].ravel())[0, 1]) < bound
    assert abs(np.corrcoef(u[:, :-1].ravel(), u[:, 1:].ravel())[0, 1]) < bound
    seeds = [Stream.of(s, IDS).uniform((400,), torch.float64).numpy().ravel() for s in range(2)]
    assert abs(np.corrcoef(*seeds)[0, 1]) < 5 / np.sqrt(seeds[0].size)


@pytest.mark.gpu
def test_the_same_bits_on_cuda() -> None:
    cpu, cuda = Stream.of(9, IDS), Stream.of(9, IDS.cuda())
    assert torch.equal(cpu.bits((64,)), cuda.bits((64,)).cpu())
    assert torch.equal(cpu.uniform((64,)), cuda.uniform((64,)).cpu())
    assert torch.equal(cpu.integers(10, (64,)), cuda.integers(10, (64,)).cpu())
    torch.testing.assert_close(cpu.normal((64,)), cuda.normal((64,)).cpu(), rtol=1e-6, atol=1e-6)
