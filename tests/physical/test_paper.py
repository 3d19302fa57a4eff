"""Sheets and photographs: what a simulated camera sees is read back, and judged."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from robustbench_lite.cli.main import main
from robustbench_lite.core.errors import InvalidData, InvalidParameter
from robustbench_lite.physical.photograph import found_on, read
from robustbench_lite.physical.sheet import arranged, code_of, drawn
from tests.conftest import run_with
from tests.physical.camera import Camera

CAMERAS = {
    "flat": (Camera(), 0.02),
    "turned": (Camera(turn=1), 0.02),
    "upside down and tilted": (Camera(turn=2, tilt=0.15, seed=1), 0.05),
    "tilted far": (Camera(turn=3, tilt=0.25, seed=2), 0.05),
    "bad light": (Camera(tilt=0.1, blur=1.5, gamma=1.3, shade=0.4, noise=0.03, quality=60, seed=3), 0.2),
}


def images(count: int, channels: int = 3, side: int = 16) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.random((channels, side, side)) for _ in range(count)]


@pytest.mark.parametrize("how", CAMERAS)
def test_what_was_printed_is_read_back(how: str) -> None:
    camera, most = CAMERAS[how]
    some, places = images(14), arranged(14, 4.0)
    (sheet,) = drawn(some, [str(i) for i in range(14)], places)
    found = found_on(camera.taken(sheet, 1500))
    assert found is not None
    assert (found.sheet, found.code) == (1, code_of("", 1))
    for image, place in zip(some, places, strict=True):
        cut = found.cut(place, 16, 16)
        assert np.abs(cut - image).mean() < most
        assert np.corrcoef(cut.ravel(), image.ravel())[0, 1] > 0.97


def test_large_photographs_are_laid_flat_as_exactly() -> None:
    some, places = images(2, side=64), arranged(2, 4.0)
    (sheet,) = drawn(some, ["", ""], places)
    found = found_on(Camera().taken(sheet, 4400))
    assert found is not None
    for image, place in zip(some, places, strict=True):
        assert np.abs(found.cut(place, 64, 64) - image).mean() < 0.03


def test_sheets_are_numbered_and_pairs_stay_together() -> None:
    places = arranged(50, 4.0)
    assert {place.sheet for place in places} == {1, 2, 3}
    for first, second in zip(places[::2], places[1::2], strict=True):
        assert (first.sheet, first.top) == (second.sheet, second.top)
    sheets = drawn(images(50), [""] * 50, places)
    for number, sheet in enumerate(sheets, 1):
        found = found_on(Camera(turn=number % 4).taken(sheet, 1200))
        assert found is not None
        assert found.sheet == number
    for wrong in (0.5, 20.0):
        with pytest.raises(InvalidParameter, match="size"):
            arranged(2, wrong)
    with pytest.raises(InvalidParameter, match="number"):
        arranged(100_000, 1.0)


def test_what_is_no_sheet_is_said(tmp_path: Path) -> None:
    assert found_on(np.full((300, 200, 3), 0.5)) is None
    assert found_on(np.random.default_rng(0).random((300, 300, 3))) is None
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InvalidData, match="cannot be read"):
        read(tmp_path / "a.png")
    Image.new("RGB", (400, 300), "white").save(tmp_path / "b.png")
    with pytest.raises(InvalidData, match="four marks"):
        read(tmp_path / "b.png")
    sheet = drawn(images(2), ["", ""], arranged(2, 4.0))[0]
    half = sheet.crop((0, 0, sheet.width, sheet.height // 2))
    half.save(tmp_path / "c.png")
    with pytest.raises(InvalidData, match="four marks"):
        read(tmp_path / "c.png")


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose adversarial examples lie on sheets."""
    home = tmp_path_factory.mktemp("printed") / "run"
    run_with("digits", ["cnn"], ["pgd:steps=20"], ["linf:0.2"], 40, out=home)
    said = CliRunner().invoke(main, ["print", str(home), "--pairs", "8", "--size", "3"])
    assert said.exit_code == 0, said.output
    assert {file.name for file in (home / "printed").iterdir()} == {
        "sheet-1.png",
        "sheets.pdf",
        "sheets.json",
    }
    return home


def test_photographs_are_judged_a_folder_each(printed: Path, tmp_path: Path) -> None:
    with Image.open(printed / "printed" / "sheet-1.png") as sheet:
        for name, camera in (("clear", Camera()), ("dim", Camera(blur=8, gamma=1.6, shade=0.5))):
            (tmp_path / name).mkdir()
            levels = (camera.taken(sheet, 1500) * 255).round().astype(np.uint8)
            Image.fromarray(levels).save(tmp_path / name / "one.png")
    (tmp_path / "clear" / "two.jpg").write_bytes(b"no image")
    said = CliRunner().invoke(main, ["photo", str(printed), str(tmp_path), "--json"])
    assert said.exit_code == 0, said.output
    assert "left out" in said.output
    assert "two.jpg" in said.output
    start, end = said.output.index("["), said.output.rindex("]") + 1
    clear, dim = json.loads(said.output[start:end])
    assert (clear["photographs"], dim["photographs"]) == ("clear", "dim")
    assert clear["pairs"] == dim["pairs"] == 8
    assert clear["originals_right"] == 1
    assert clear["destroyed"] <= 0.125
    assert dim["destroyed"] > clear["destroyed"]
    assert clear["still_broken"] == 1 - clear["destroyed"]
    assert clear["low"] <= clear["destroyed"] <= clear["high"]


def test_sheets_of_another_print_are_left_out(printed: Path, tmp_path: Path) -> None:
    (sheet,) = drawn(images(2, 1, 8), ["", ""], arranged(2, 4.0), "another")
    sheet.save(tmp_path / "other.png")
    said = CliRunner().invoke(main, ["photo", str(printed), str(tmp_path)])
    assert said.exit_code == 2
    assert "another print" in said.output


def test_what_cannot_be_is_refused_in_a_line(printed: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["photo", str(printed), str(tmp_path)])
    assert said.exit_code == 2
    assert "no photographs" in said.output
    said = CliRunner().invoke(main, ["print", str(printed), "--sample", "99999"])
    assert said.exit_code == 2
    assert "no stored adversarial example of samples 99999" in said.output
    table = tmp_path / "table"
    run_with("iris", ["logistic"], ["fgsm"], ["linf:0.2"], 10, out=table)
    said = CliRunner().invoke(main, ["print", str(table)])
    assert said.exit_code == 2
    assert "only images" in said.output
    said = CliRunner().invoke(main, ["photo", str(table), str(tmp_path)])
    assert "robust print" in said.output
