"""Pictures and arrays in files: read right, or one line; what is left out is said."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidData, RobustError

RAMP = np.arange(1600).reshape(40, 40) / 1599


def save(folder: Path, image: Image.Image, name: str, count: int = 3) -> None:
    for kind in ("cat", "dog"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image.save(folder / kind / f"{i}{name}")


@pytest.mark.parametrize(
    ("pixels", "suffix"),
    [
        ((RAMP * 65535).astype(np.uint16), ".png"),
        (RAMP.astype(np.float32), ".tiff"),
        ((RAMP * 255).round().astype(np.uint8), ".png"),
        ((RAMP * 65535).astype(np.int32), ".tif"),
    ],
)
def test_deep_images_are_scaled_by_their_depth(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    save(tmp_path, Image.fromarray(pixels), suffix)
    for spec in ("", ",grey=true", ",size=20"):
        data = rb.load_data(f"folder:{tmp_path}{spec}")
        assert float(data.x.mean()) == pytest.approx(0.5, abs=0.01)
        assert data.x.shape[1] == (1 if "grey" in spec else 3)


def test_floats_beyond_one_are_a_line(tmp_path: Path) -> None:
    save(tmp_path, Image.fromarray((RAMP * 300).astype(np.float32)), ".tiff")
    with pytest.raises(InvalidData, match=r"values from 0 to 300"):
        rb.load_data(f"folder:{tmp_path}")


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_the_usual_folders_are_known_and_hidden_ones_left(tmp_path: Path, test: str) -> None:
    for split, count in (("train", 5), (test, 3)):
        save(tmp_path / split, Image.new("RGB", (8, 8)), ".png", count)
        (tmp_path / split / ".cache").mkdir()
        (tmp_path / split / "cat" / "notes.txt").write_text("no image")
        (tmp_path / split / "cat" / "._0.png").write_bytes(b"left by a Mac")
    data = rb.load_data(f"folder:{tmp_path}")
    assert data.class_names == ("cat", "dog")
    assert (len(data), len(data.training())) == (6, 10)
    assert any("1 files that are no images" in note for note in data.notes)


def test_modes_of_all_kinds_are_colours(tmp_path: Path) -> None:
    for i, mode in enumerate(("RGB", "RGBA", "L", "LA", "P", "CMYK", "1")):
        for kind in ("cat", "dog"):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.new(mode, (6, 6)).save(tmp_path / kind / f"{i}.{'tiff' if mode == 'CMYK' else 'png'}")
    assert rb.load_data(f"folder:{tmp_path}").x.shape == (14, 3, 6, 6)


def test_absurd_sizes_are_measured_before_anything_is_read(tmp_path: Path) -> None:
    save(tmp_path, Image.new("RGB", (8, 8)), ".png")
    with pytest.raises(InvalidData, match="GiB"):
        rb.load_data(f"folder:{tmp_path},size=1000000")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as held:
        held.writestr("x.npy", header.getvalue())
    with pytest.raises(InvalidData, match="GiB"):
        rb.load_data(f"npz:{tmp_path / 'bomb.npz'}")


def test_all_samples_of_an_npz_are_tested(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.random((100, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "t.npz", x=x, y=np.arange(100) % 10)
    assert len(rb.load_data(f"npz:{tmp_path / 't.npz'}")) == 100
    assert len(rb.load_data(f"npz:{tmp_path / 't.npz'},split=0.3")) == 30
    with pytest.raises(InvalidData, match=r"split=0\.3"):
        rb.load_model("linear", f"npz:{tmp_path / 't.npz'}")
    np.savez(tmp_path / "few.npz", x=x[:10], y=np.arange(10))
    assert len(rb.load_data(f"npz:{tmp_path / 'few.npz'}")) == 10
    with pytest.raises(InvalidData, match="class 0 has one sample"):
        rb.load_data(f"npz:{tmp_path / 'few.npz'},split=0.3")
    np.savez(tmp_path / "text.npz", x=x, y=np.array(["a", "b"])[np.arange(100) % 2])
    assert rb.load_data(f"npz:{tmp_path / 'text.npz'}").class_names == ("a", "b")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_what_is_no_array_file_is_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(RobustError, match=r"x\.npz") as told:
        rb.load_data(f"npz:{tmp_path / 'x.npz'}")
    assert "\n" not in str(told.value)
