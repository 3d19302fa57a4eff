"""Samples that memory does not hold lie in a file, and nothing else is different."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidData
from robustbench_lite.data import room
from tests.conftest import run_with


@pytest.fixture
def images(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(30):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def test_what_memory_does_not_hold_lies_in_a_file_and_is_the_same(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = rb.load_data(f"folder:{images}")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv(room.PLACE, str(scratch))
    monkeypatch.setattr(room, "memory", lambda: 1000)
    outside = rb.load_data(f"folder:{images}")
    assert not list(scratch.iterdir()), "its file has no name"
    assert torch.equal(inside.x, outside.x)
    assert inside.fingerprint() == outside.fingerprint()
    if Path("/proc/self/maps").exists():
        assert str(scratch) in Path("/proc/self/maps").read_text()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
    far, near = (run_with(data, [net], ["fgsm"], ["linf:0.1"], 60) for data in (outside, inside))
    assert far.records["success"].tolist() == near.records["success"].tolist()


def test_a_disk_without_room_is_told(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "memory", lambda: 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: _Usage())
    with pytest.raises(InvalidData, match="ROBUST_SCRATCH names another"):
        rb.load_data(f"folder:{images}")


class _Usage:
    free = 10


def test_of_many_images_only_those_asked_for_are_read(images: Path) -> None:
    some = rb.load_data(f"folder:{images}", samples=5)
    kept = {int(i) for i in some.ids}
    files = sorted(images.rglob("*.png"), key=lambda f: (f.parent.name, f))
    for number, file in enumerate(files):
        if number not in kept:
            file.write_bytes(b"no image")
    assert torch.equal(rb.load_data(f"folder:{images}", samples=5).x, some.x)
