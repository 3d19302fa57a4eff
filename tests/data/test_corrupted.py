"""The published files of corrupted images."""

from pathlib import Path

import numpy as np
import pytest
import torch

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidData, InvalidParameter


def test_a_severity_is_its_fifth_of_the_file(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "labels.npy", np.tile(np.arange(10, dtype=np.uint8), 5))
    data = rb.load_data(f"cifar10c:{tmp_path},kind=fog,severity=4")
    assert data.x.shape == (10, 3, 32, 32)
    order = data.ids
    assert torch.equal(data.x, torch.from_numpy(images[30:40][order]).permute(0, 3, 1, 2).float() / 255)
    assert torch.equal(data.y, order)
    with pytest.raises(InvalidData, match=r"frost\.npy: not found; the folder holds fog, labels"):
        rb.load_data(f"cifar10c:{tmp_path},kind=frost")
    with pytest.raises(InvalidParameter, match="severity"):
        rb.load_data(f"cifar10c:{tmp_path},kind=fog,severity=6")
    with pytest.raises(InvalidData, match="no training split"):
        rb.load_model("cnn", data)
    np.save(tmp_path / "fog.npy", images[:49])
    with pytest.raises(InvalidData, match="five severities"):
        rb.load_data(f"cifar10c:{tmp_path},kind=fog")
    (tmp_path / "fog.npy").write_bytes(b"no array")
    with pytest.raises(InvalidData, match="cannot be read"):
        rb.load_data(f"cifar10c:{tmp_path},kind=fog")
