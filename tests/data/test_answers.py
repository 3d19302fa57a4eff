"""Data whose answers have positions: canvases of digits, and folders of masks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidData, InvalidParameter, Unsupported
from robustbench_lite.data.canvases import INK


@pytest.mark.parametrize("name", ["digit_scenes", "digit_strings"])
def test_canvases_are_made_by_the_seed_and_a_larger_choice_contains_a_smaller(name: str) -> None:
    data, again, fewer, other = (
        rb.load_data(f"{name}:canvases=30", samples=samples, seed=seed)
        for samples, seed in ((None, 0), (None, 0), (8, 0), (None, 1))
    )
    assert torch.equal(data.x, again.x)
    assert torch.equal(data.y, again.y)
    rows = torch.isin(data.ids, fewer.ids)
    assert torch.equal(data.x[rows], fewer.x)
    assert torch.equal(data.y[rows], fewer.y)
    assert not torch.equal(data.x, other.x)
    assert data.fingerprint() == again.fingerprint() != other.fingerprint()
    assert len(data.training()) == 30
    assert not any(torch.equal(one, data.x[0]) for one in data.training().x)


def test_a_pixel_of_a_scene_is_its_digit_where_there_is_ink() -> None:
    data = rb.load_data("digit_scenes:canvases=40")
    assert data.y.shape == (40, 32, 32)
    assert torch.equal(data.y > 0, data.x[:, 0] >= INK)
    assert bool((data.y > 0).flatten(1).any(1).all())
    cells = data.y.view(40, 2, 16, 2, 16).transpose(2, 3).reshape(160, 256)
    for cell in cells:  # one digit a cell
        assert len(set(cell.unique().tolist()) - {0}) <= 1


def test_a_string_has_its_digits_at_the_left() -> None:
    data = rb.load_data("digit_strings:canvases=40")
    assert data.y.shape == (40, 4)
    blank = data.y == 10
    assert bool((blank[:, 1:] >= blank[:, :-1]).all())
    assert set((~blank).sum(1).tolist()) == {2, 3, 4}
    seen = data.x.view(40, 16, 4, 16).amax((1, 3)) > 0
    assert torch.equal(seen, ~blank)


def test_models_say_what_they_are_for() -> None:
    with pytest.raises(Unsupported, match=r"cnn is for classification; digit_scenes.* asks for segmentation"):
        rb.load_model("cnn", "digit_scenes:canvases=5")
    with pytest.raises(Unsupported, match="unet is for segmentation; digits asks for classification"):
        rb.load_model("unet", "digits")
    with pytest.raises(InvalidParameter, match="labels positions"):
        rb.load_data("digit_scenes:canvases=5,classes=1|2")


def write(home: Path, count: int, seed: int = 0, side: int = 12) -> None:
    generator = np.random.default_rng(seed)
    for part in ("images", "masks"):
        (home / part).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        mask = generator.integers(0, 3, (side, side)).astype(np.uint8)
        mask[0] = 255
        image = np.repeat(mask[..., None] % 255 * 80, 3, 2).astype(np.uint8)
        Image.fromarray(image).save(home / "images" / f"{i}.png")
        Image.fromarray(mask).save(home / "masks" / f"{i}.png")


def test_masks_are_read_with_their_images(tmp_path: Path) -> None:
    write(tmp_path / "train", 4)
    write(tmp_path / "test", 6, seed=1)
    data = rb.load_data(f"masks:{tmp_path},grey=true,share=0.5", samples=5)
    assert data.x.shape == (5, 1, 12, 12)
    assert data.y.shape == (5, 12, 12)
    assert data.class_names == ("0", "1", "2")
    assert bool((data.y[:, 0] == -1).all())
    assert torch.equal((data.x[:, 0, 1:] * 255 / 80).round().long(), data.y[:, 1:])
    assert len(data.training()) == 4
    assert "50 % of its labelled pixels" in data.task.told()[0]
    small = rb.load_data(f"masks:{tmp_path},size=6,crop=4")
    assert small.y.shape == (6, 4, 4)
    assert set(small.y.unique().tolist()) <= {-1, 0, 1, 2}


def test_what_is_wrong_with_masks_is_told(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with pytest.raises(InvalidData, match="say masks:"):
        rb.load_data(f"folder:{tmp_path}")
    with pytest.raises(InvalidData, match="has no training split"):
        rb.load_data(f"masks:{tmp_path}").training()
    Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(tmp_path / "masks" / "1.png")
    with pytest.raises(InvalidData, match="a mask is a grey or palette image"):
        rb.load_data(f"masks:{tmp_path}")
    Image.fromarray(np.full((12, 12), 255, np.uint8)).save(tmp_path / "masks" / "1.png")
    with pytest.raises(InvalidData, match=r"1\.png: has no label at any position"):
        rb.load_data(f"masks:{tmp_path}")
    (tmp_path / "masks" / "1.png").unlink()
    with pytest.raises(InvalidData, match="'1' has no image or no mask"):
        rb.load_data(f"masks:{tmp_path}")
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(tmp_path / "masks" / "1.png")
    with pytest.raises(InvalidData, match="give size and crop"):
        rb.load_data(f"masks:{tmp_path}")
