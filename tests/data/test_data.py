"""Data: every source, checked, with stable ids."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidData, InvalidParameter, UnknownName
from robustbench_lite.data import DATA
from tests.conftest import attack_with, run_with


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine", "iris"])
def test_builtin_sets_lie_in_their_box_and_split_cleanly(name: str) -> None:
    test, train = rb.load_data(name), rb.load_data(name, split="train")
    assert test.x.dtype == torch.float32
    assert bool(test.domain.inside(test.x).all())
    assert set(test.y.tolist()) == set(range(test.num_classes)) == set(train.y.tolist())
    assert train.fingerprint() != test.fingerprint() == rb.load_data(name).fingerprint()
    assert rb.load_data(name, seed=1).fingerprint() != test.fingerprint()
    rows = {tuple(r) for r in train.x.flatten(1).tolist()}
    shared = sum(tuple(r) in rows for r in test.x.flatten(1).tolist())
    assert shared <= 2  # iris holds a few identical flowers
    assert test.training().fingerprint() == train.fingerprint()


def test_digits_are_grey_images_of_seventeen_levels() -> None:
    data = rb.load_data("digits")
    assert data.x.shape == (540, 1, 8, 8)
    assert torch.equal((data.x * 16).round(), data.x * 16)
    assert int(data.y.bincount().min()) >= 40


def test_a_larger_choice_contains_a_smaller_one() -> None:
    few, many = (rb.load_data("digits", samples=n) for n in (50, 200))
    assert set(few.ids.tolist()) < set(many.ids.tolist())
    whole = rb.load_data("digits")
    assert torch.equal(whole.x[few.ids], few.x)
    assert rb.load_data("digits", samples=50, seed=1).ids.tolist() != few.ids.tolist()


def test_a_subset_of_classes_is_numbered_anew() -> None:
    whole, data = rb.load_data("digits"), rb.load_data("digits:classes=3|7")
    assert data.class_names == ("3", "7")
    assert torch.equal(data.y, (whole.y[data.ids] == 7).long())
    assert set(whole.y[data.ids].tolist()) == {3, 7}
    assert set(data.training().y.tolist()) == {0, 1}
    with pytest.raises(InvalidParameter, match=r"classes = '3\|eleven'"):
        rb.load_data("digits:classes=3|eleven")


def test_tables_are_scaled_by_the_training_split_and_widened_beyond_it() -> None:
    test, train = rb.load_data("wine"), rb.load_data("wine", split="train")
    assert torch.allclose(train.x.amin(0), torch.zeros(13), atol=1e-6)
    assert torch.allclose(train.x.amax(0), torch.ones(13), atol=1e-6)
    low, high = test.domain.bounds(test.x)
    assert torch.equal(low, test.x.amin(0).clamp_max(0))
    assert torch.equal(high, test.x.amax(0).clamp_min(1))
    assert float(high.max()) > 1
    assert "box is widened" in test.notes[0]
    assert test.units is not None


@pytest.fixture
def table(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"age": generator.integers(20, 70, 60), "income": generator.normal(30, 9, 60),
                          "born": generator.integers(0, 5, 60), "kind": ["a", "b", "c"] * 20})  # fmt: skip
    frame.to_csv(tmp_path / "people.csv", index=False)
    return tmp_path / "people.csv"


def test_csv_with_whole_and_fixed_columns(table: Path) -> None:
    data = rb.load_data(f"csv:{table},label=kind,integer=age|born,fixed=born")
    assert data.class_names == ("a", "b", "c")
    assert data.x.shape == (18, 3)
    assert data.domain.mask is not None
    assert data.domain.mask.tolist() == [True, True, False]
    assert data.units is not None
    model = rb.load_model("logistic", data)
    result = run_with(data, [model], ["fgsm"], ["linf:0.3"], samples=None)
    records = result.records
    assert records["valid"].all()
    assert not result.failures
    moved = result.records["linf_units"].astype(float)
    assert (moved[records["forwards"] > 0] > 0).any()
    raw = attack_with(model, data.x, data.y, "fgsm", "linf:0.3", domain=data.domain)
    delta = (raw.adversarial - data.x).double() * data.units
    assert torch.allclose(delta[:, 0], delta[:, 0].round(), atol=1e-4)
    assert bool((delta[:, 2] == 0).all())
    assert bool((delta[:, 1] != 0).any())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("csv:{},label=colour", "label = 'colour': must be a column"),
        ("csv:{},label=kind,integer=agee", "integer = 'agee': must be columns"),
        ("csv:{}", "label = None"),
        ("csv:{}.gone,label=kind", "cannot be read"),
    ],
)
def test_faults_in_tables_are_named(table: Path, spec: str, message: str) -> None:
    with pytest.raises((InvalidData, InvalidParameter), match=message):
        rb.load_data(spec.format(table))


def test_empty_cells_stay_empty_and_an_empty_label_is_named(table: Path) -> None:
    lines = table.read_text().splitlines()
    name = lines[0].split(",")[0]
    lines[5] = "," + lines[5].partition(",")[2]
    table.write_text("\n".join(lines))
    data = rb.load_data(f"csv:{table},label=kind,split=0.5")
    assert data.columns is not None
    assert data.domain.mask is not None
    assert not bool(data.domain.mask[data.columns.features.index(f"{name} is missing")])
    both = [data, data.training()]
    assert sum(int(part.columns.own(part.x)[name].isna().sum()) for part in both if part.columns) == 1
    lines[5] = lines[4].rpartition(",")[0] + ","
    table.write_text("\n".join(lines))
    with pytest.raises(InvalidData, match="row 4: has no label"):
        rb.load_data(f"csv:{table},label=kind")


def save(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return f"npz:{path}"


def test_npz_of_bytes_or_floats_channels_first_or_last(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 5, 6, 3), dtype=np.uint8)
    y = np.arange(40) % 4
    one = rb.load_data(save(tmp_path / "a.npz", x=x, y=y))
    other = rb.load_data(save(tmp_path / "b.npz", x=(x / 255).transpose(0, 3, 1, 2), y=y))
    assert one.x.shape[1:] == (3, 5, 6)
    assert torch.allclose(one.x, other.x, atol=1e-7)
    assert one.num_classes == 4
    both = rb.load_data(save(tmp_path / "c.npz", x=x, y=y, x_train=x[:8], y_train=y[:8]))
    assert len(both) == 40
    assert len(both.training()) == 8
    grey = rb.load_data(save(tmp_path / "d.npz", x=x[..., 0], y=y))
    assert grey.x.shape[1:] == (1, 5, 6)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": np.zeros((4, 2, 2)), "y": np.array([0, 1, 0, 1]) + 0.5},
            "0.5 is no class; must be whole numbers",
        ),
        ({"x": np.full((4, 2, 2), 2), "y": np.array([0, 1, 0, 1])}, "uint8, or numbers"),
        ({"x": np.zeros((4,)), "y": np.array([0, 1, 0, 1])}, "x has shape"),
        ({"x": np.zeros((0, 2, 2)), "y": np.zeros(0, dtype=int)}, "no samples"),
        ({"x": np.zeros((4, 2, 2))}, "y missing"),
        ({"x": np.zeros((3, 2, 2)), "y": np.array([0, 1, 0, 1])}, r"must be \(3,\) classes"),
    ],
)
def test_faults_in_arrays_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InvalidData, match=message):
        rb.load_data(save(tmp_path / "x.npz", **arrays))


def test_values_outside_the_box_and_labels_out_of_range_name_their_index(tmp_path: Path) -> None:
    x, y = np.full((40, 2, 2), 0.5), np.arange(40) % 2
    x[:, 0, 0] = np.where(np.arange(40) == 0, 0.5, 0.5)
    bad = x.copy()
    bad[7:, 1, 1] = 1.5
    with pytest.raises(InvalidData, match=r"x\.npz, sample \d+: values from 0.5 to 1.5"):
        rb.load_data(save(tmp_path / "x.npz", x=bad, y=y))
    bad[7:, 1, 1] = np.nan
    with pytest.raises(InvalidData, match="NaN"):
        rb.load_data(save(tmp_path / "x.npz", x=bad, y=y))
    with pytest.raises(InvalidData, match=r"label -1"):
        rb.load_data((torch.rand(4, 1, 2, 2), torch.tensor([0, 1, -1, 1])))


def test_an_npz_is_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([{"a": 1}], dtype=object), y=np.array([0]))
    with pytest.raises(InvalidData, match="cannot be read"):
        rb.load_data(f"npz:{tmp_path / 'x.npz'}")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for i in range(10):
            image = generator.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(image).save(tmp_path / kind / f"{i}.png")
    return tmp_path


def test_a_path_may_have_commas(pictures: Path) -> None:
    folder = pictures / "a, b,c"
    folder.mkdir()
    for kind in ("cat", "dog"):
        (pictures / kind).rename(folder / kind)
    data = rb.load_data(f"folder:{folder},size=6,split=0.3")
    assert data.x.shape == (6, 3, 7, 6)
    assert data.class_names == ("cat", "dog")


def test_a_folder_of_images(pictures: Path) -> None:
    data = rb.load_data(f"folder:{pictures}")
    assert data.class_names == ("cat", "dog")
    assert data.x.shape == (20, 3, 12, 10)
    with pytest.raises(InvalidData, match=r"split=0\.3"):
        data.training()
    data = rb.load_data(f"folder:{pictures},split=0.3")
    assert data.x.shape == (6, 3, 12, 10)
    assert len(data.training()) == 14
    small = rb.load_data(f"folder:{pictures},size=6,crop=5,grey=true,split=0.3")
    assert small.x.shape == (6, 1, 5, 5)
    exact = {tuple(i.flatten().tolist()) for i in data.x}
    names = sorted((pictures / "cat").iterdir()) + sorted((pictures / "dog").iterdir())
    on_disk = {
        tuple((torch.from_numpy(np.array(Image.open(n))).permute(2, 0, 1).float() / 255).flatten().tolist())
        for n in names
    }
    assert exact < on_disk


def test_a_folder_divided_already(pictures: Path) -> None:
    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            (pictures / split / kind).mkdir(parents=True)
            for i in range(3 if split == "test" else 7):
                (pictures / kind / f"{i}.png").rename(pictures / split / kind / f"{i}.png")
                Image.new("RGB", (12, 10)).save(pictures / kind / f"{i}.png")
    data = rb.load_data(f"folder:{pictures}")
    assert (len(data), len(data.training())) == (6, 14)


def both(pictures: Path) -> list[rb.Data]:
    return [rb.load_data(f"folder:{pictures},split=0.3", split=split) for split in ("train", "test")]


def test_faults_in_folders_name_the_file(pictures: Path) -> None:
    (pictures / "cat" / "3.png").write_bytes(b"not an image")
    with pytest.raises(InvalidData, match=r"cat/3\.png: cannot be read as an image"):
        both(pictures)
    Image.new("RGB", (9, 9)).save(pictures / "cat" / "3.png")
    with pytest.raises(InvalidData, match="give size and crop"):
        both(pictures)
    with pytest.raises(InvalidData, match="too small for crop = 99"):
        rb.load_data(f"folder:{pictures},crop=99")
    with pytest.raises(InvalidData, match="is not a folder"):
        rb.load_data(f"folder:{pictures}/bird")
    with pytest.raises(InvalidData, match="two sub-folders"):
        rb.load_data(f"folder:{pictures}/cat")


def test_a_torch_dataset_is_data() -> None:
    x = torch.rand(30, 1, 4, 4)
    dataset = torch.utils.data.TensorDataset(x, torch.arange(30) % 3)
    data = rb.load_data(dataset, samples=10)
    assert torch.equal(data.x, x[data.ids])
    assert torch.equal(data.y, data.ids % 3)


def test_unknown_names_and_parameters_say_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean digits"):
        rb.load_data("digit")
    with pytest.raises(UnknownName, match="size"):
        rb.load_data("digits:size=3")
    with pytest.raises(InvalidData, match="--data-dir"):
        rb.load_data("mnist", data_dir=tmp_path)
    with pytest.raises(InvalidParameter, match="split = 'validation'"):
        rb.load_data("digits", split="validation")
    with pytest.raises(InvalidParameter, match="samples = 0"):
        rb.load_data("digits", samples=0)
    assert set(rb.list_data().index) >= set(DATA)


def test_mnist(real_data: Path) -> None:
    data = rb.load_data("mnist", data_dir=real_data, samples=100)
    assert data.x.shape == (100, 1, 28, 28)
    assert data.class_names == tuple("0123456789")
    assert float(data.x.max()) == 1.0


@pytest.mark.parametrize(
    ("name", "kind", "data", "labels"),
    [
        ("cifar10", "CIFAR10", np.zeros((6, 32, 32, 3), dtype=np.uint8), "targets"),
        ("cifar100", "CIFAR100", np.zeros((6, 32, 32, 3), dtype=np.uint8), "targets"),
        ("svhn", "SVHN", np.zeros((6, 3, 32, 32), dtype=np.uint8), "labels"),
        ("fashionmnist", "FashionMNIST", torch.zeros(6, 28, 28, dtype=torch.uint8), "targets"),
    ],
)
def test_what_torchvision_holds_becomes_channels_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, kind: str, data: np.ndarray, labels: str
) -> None:
    """The official files are too large for tests; these surrogates have their attributes."""
    asked: list[dict[str, object]] = []

    class Fake:
        def __init__(self, root: Path, download: bool, **which: object) -> None:
            asked.append({"root": root, "download": download, **which})
            marked = data.copy() if isinstance(data, np.ndarray) else data.clone()
            marked[2] = 255
            self.data = marked
            setattr(self, labels, [0, 1, 2, 0, 1, 2])
            self.classes = None if kind == "SVHN" else [f"class {i}" for i in range(3)]

    from torchvision import datasets

    monkeypatch.setattr(datasets, kind, Fake)
    found = rb.load_data(name, data_dir=tmp_path)
    assert found.x.shape[1:] == ((1, 28, 28) if kind == "FashionMNIST" else (3, 32, 32))
    assert found.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert float(found.x[2].max()) == 1.0
    assert float(found.x[0].max()) == 0.0
    assert asked[0]["root"] == tmp_path
    assert asked[0]["download"] is False
    found.training()
    assert asked[1].get("train", asked[1].get("split")) in (True, "train")
