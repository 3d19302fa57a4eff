"""Segmentation and strings, as a user meets them: from the command to the page."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import robustbench_lite as rb
from robustbench_lite.cli.main import main
from robustbench_lite.core.errors import InvalidData, Unsupported
from robustbench_lite.jobs.foreign import Claim, judge_file
from tests.conftest import diagnose_with, run_with

SCENES, STRINGS = "digit_scenes:canvases=400", "digit_strings:canvases=200"  # quick to learn


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> rb.Results:
    out = tmp_path_factory.mktemp("scenes") / "run"
    attacks = ["fgsm", "pgd:steps=8,loss=margin", "noise:steps=0", "dag"]
    return run_with(SCENES, ["unet"], attacks, ["linf:0.06"], samples=24, out=out)


@pytest.fixture(scope="module")
def strings(tmp_path_factory: pytest.TempPathFactory) -> rb.Results:
    out = tmp_path_factory.mktemp("strings") / "run"
    attacks = ["pgd:steps=8", "pgd:steps=8,loss=houdini"]
    return run_with(STRINGS, ["reader"], attacks, ["linf:0.05"], samples=24, out=out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data", "least"),
    [
        ("unet", "digit_scenes", 0.9),
        ("reader", "digit_strings", 0.93),
        ("tagger", "digit_sets:canvases=600", 0.93),
    ],
)
def test_their_models_are_held_to_an_accuracy(name: str, data: str, least: float) -> None:
    held = rb.load_data(data, samples=200)
    model = rb.load_model(name, held)
    said = model.prediction(model.scores(held.x))
    assert 1 - float(model.task.error(said, held.y, model.num_classes).mean()) >= least
    assert model.task == held.task


def test_the_table_is_what_a_hand_would_count(scenes: rb.Results) -> None:
    table = scenes.table("answers").set_index("attack")
    pgd, fgsm, noise = (table.loc[a, "wrong"] for a in ("pgd:steps=8,loss=margin", "fgsm", "noise:steps=0"))
    for attack, group in scenes.records.groupby("attack", sort=False):
        row = table.loc[str(attack)]
        iou = 1 - group["error"].astype(float)
        assert row["iou"] == pytest.approx(iou.mean())
        assert row["wrong"] == pytest.approx(group["wrong_share"].astype(float).mean())
        half = 1.96 * iou.std() / np.sqrt(len(iou))
        assert row["high"] - row["low"] == pytest.approx(2 * half, rel=1e-3)
        assert (group["success"] == (group["wrong_share"] >= 0.05) & (group["outcome"] != "wrong")).all()
    assert pgd > fgsm > noise
    assert table["edits"].isna().all()
    clean = scenes.table("summary").iloc[0]["clean"]
    assert clean == (scenes.records.groupby("sample_id")["clean_wrong_share"].first() < 0.05).mean()


def test_the_page_and_the_notes_say_what_the_numbers_are(scenes: rb.Results, strings: rb.Results) -> None:
    assert scenes.path is not None
    assert strings.path is not None
    page, other = ((run.path / "report.html").read_text() for run in (scenes, strings))
    assert "a mean IoU of" in page
    assert "5 % of its labelled pixels" in page
    assert page.count("classes of the pixels: after") == 12  # three samples of each of four jobs
    assert "not diagnosed" not in page
    assert "edits a character" in other
    assert "blank" in other
    plain = (scenes.path / "report.md").read_text()
    assert "Pixels, places or labels that are wrong" in plain
    assert (scenes.path / "tables" / "answers.csv").is_file()


def test_the_pictures_are_the_most_the_median_and_the_least_wrong(scenes: rb.Results) -> None:
    assert scenes.folder is not None
    for facts, arrays in scenes.folder.pictures():
        shares = [float(str(share)) for share in facts["wrong_share"]]
        assert shares == sorted(shares, reverse=True)
        label, before, after = arrays["masks"]
        for row, share in enumerate(shares):
            assert (after[row] != label[row]).mean() == pytest.approx(share)
            clean = float(str(facts["clean_wrong_share"][row]))
            assert (before[row] != label[row]).mean() == pytest.approx(clean)


def test_what_was_found_is_found_again(scenes: rb.Results) -> None:
    assert scenes.path is not None
    assert "0 refuted" in CliRunner().invoke(main, ["verify", str(scenes.path)]).output
    resumed = run_with(
        SCENES, ["unet"], ["fgsm", "pgd:steps=8,loss=margin", "noise:steps=0", "dag"], ["linf:0.06"],
        samples=24, out=scenes.path, resume=True,
    )  # fmt: skip
    pd.testing.assert_frame_equal(resumed.records, scenes.records)


def test_examples_made_elsewhere_are_judged_pixel_by_pixel(tmp_path: Path) -> None:
    data = rb.load_data(SCENES, samples=6)
    model = rb.load_model("unet", data)
    found = rb.attack(model, data.x, data.y, "pgd:steps=8", "linf:0.1")
    file = tmp_path / "mine.npz"
    np.savez(file, adversarial=found.adversarial.numpy(), x=data.x.numpy(), y=data.y.numpy())
    claim = Claim(str(file), "unet", "linf:0.1", SCENES)
    judged, _ = judge_file(claim)
    assert judged["wrong_share"].tolist() == found.records["wrong_share"].tolist()
    assert judged["error"].tolist() == found.records["error"].tolist()
    command = ["judge", str(file), "--data", SCENES, "--model", "unet", "--threat", "linf:0.1"]
    assert "Wrong pixels" in CliRunner().invoke(main, command).output
    np.savez(file, adversarial=found.adversarial.numpy(), x=data.x.numpy(), y=data.y.numpy()[:, 0])
    assert "must be whole numbers (6, 32, 32)" in " ".join(CliRunner().invoke(main, command).output.split())


def test_any_network_of_masks_is_attacked_through_python() -> None:
    """Tensors alone: labels (n, H, W) say what is asked for; -1 where there is none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 4, 3, padding=1)
    x = torch.rand((5, 3, 6, 7), generator=torch.Generator().manual_seed(0))
    y = network(x).argmax(1)
    y[:, 0] = -1
    result = rb.attack(network, x, y, "pgd", "linf:0.2")
    assert result.records["wrong_share"].between(0, 1).all()
    assert "99 % of its labelled pixels" in result.notes[0]
    assert rb.attack(network, x, y, "pgd", "linf:0.2", torch.ones_like(y)).records["goal"].eq("given").all()
    assert not any("without an attack" in note for note in result.notes)
    other = rb.attack(network, x, (y + 1).where(y >= 0, y) % 4, "noise", "linf:0.2")
    assert any("without an attack the answers are" in note for note in other.notes)
    for odd, said in ((torch.full_like(y, -1), "sample 0: has no label"), (y.float(), "whole numbers")):
        with pytest.raises(InvalidData, match=said):
            rb.attack(network, x, odd, "pgd", "linf:0.2")
    with pytest.raises(Unsupported, match="only attacks on classes can be diagnosed"):
        diagnose_with(network, x, y, "pgd", "linf:0.2")


def test_a_network_may_return_its_masks_among_others() -> None:
    class Auxiliary(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.other = torch.nn.Conv2d(1, 3, 1), torch.nn.Conv2d(1, 3, 4)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"aux": self.other(x), "out": self.body(x)}

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Auxiliary()
    x = torch.rand(4, 1, 8, 8)
    y = network(x)["out"].argmax(1)
    assert rb.attack(network, x, y, "fgsm", "linf:0.1").records["clean_wrong_share"].eq(0).all()
