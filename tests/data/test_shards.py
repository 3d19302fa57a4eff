"""Images in Parquet and tar files: the same samples as in a folder, and one line for what cannot be read."""

import decimal
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidData, InvalidParameter

NAMES = ("cat", "dog", "emu")
Sample = tuple[bytes, int]


def encoded(seed: int, side: int = 6, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, kind)
    return held.getvalue()


SAMPLES: list[Sample] = [(encoded(i), (i * 2) % 3) for i in range(20)]
TRAIN: list[Sample] = [(encoded(100 + i), i % 3) for i in range(9)]


def as_parquet(file: Path, samples: list[Sample], group: int = 4, hugging: bool = True) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": content, "path": f"{i}.png"} for i, (content, _) in enumerate(samples)]
    table = pa.table(
        {
            "id": list(range(len(samples))),
            "image": images if hugging else [content for content, _ in samples],
            "label": [label for _, label in samples],
        }
    )
    if hugging:
        told = {"info": {"features": {"label": {"names": NAMES, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    pq.write_table(table, file, row_group_size=group)


def as_tar(file: Path, samples: list[Sample], label: Callable[[int], str] = str, mode: str = "w") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode) as members:  # type: ignore[call-overload]
        for i, (content, number) in enumerate(samples):
            for ending, text in (("png", content), ("cls", label(number).encode()), ("json", b"{}")):
                member = tarfile.TarInfo(f"deep/{i:04}.{ending}")
                member.size = len(text)
                members.addfile(member, io.BytesIO(text))


def as_folder(root: Path) -> None:
    for split, samples in (("test", SAMPLES), ("train", TRAIN)):
        for i, (content, label) in enumerate(samples):
            place = root / split / NAMES[label] / f"{i:04}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)


def same(one: rb.Data, other: rb.Data) -> bool:
    """Whether two hold the same samples, in whatever order."""
    held = [
        sorted((x.tobytes(), y) for x, y in zip(d.x.numpy(), d.y.tolist(), strict=True)) for d in (one, other)
    ]
    return held[0] == held[1]


def test_one_set_of_images_in_three_ways(tmp_path: Path) -> None:
    as_folder(tmp_path / "folder")
    for split, samples in (("test", SAMPLES), ("train", TRAIN)):
        as_parquet(tmp_path / "parquet" / f"{split}-00000-of-00002.parquet", samples[:7])
        as_parquet(tmp_path / "parquet" / f"{split}-00001-of-00002.parquet", samples[7:])
        as_tar(tmp_path / "tar" / split / "000.tar", samples, lambda number: NAMES[number])
    folder = rb.load_data(f"folder:{tmp_path / 'folder'}")
    for name in (f"parquet:{tmp_path / 'parquet'}", f"webdataset:{tmp_path / 'tar'}"):
        read = rb.load_data(name)
        assert read.class_names == folder.class_names == NAMES
        assert same(read, folder)
        assert same(read.training(), folder.training())
        assert [read.x[i].numpy().tobytes() for i in range(20)] == [
            torch.from_numpy(np.array(Image.open(io.BytesIO(content))))
            .permute(2, 0, 1)
            .div(255)
            .numpy()
            .tobytes()
            for content, _ in SAMPLES
        ]
        few, grey = rb.load_data(name, samples=5), rb.load_data(f"{name},grey=true,size=3")
        assert torch.equal(few.x, read.x[few.ids])
        assert grey.x.shape == (20, 1, 3, 3)
        two = rb.load_data(f"{name},classes=emu|cat")
        assert torch.equal(two.x, read.x[two.ids])
        assert set(two.y.tolist()) == {0, 1}


def test_classes_of_a_split_that_lacks_one_keep_their_numbers(tmp_path: Path) -> None:
    as_tar(tmp_path / "train.tar", TRAIN, lambda number: NAMES[number])
    as_tar(tmp_path / "test.tar", [s for s in SAMPLES if s[1] == 2], lambda number: NAMES[number])
    read = rb.load_data(f"webdataset:{tmp_path}")
    assert read.class_names == NAMES
    assert set(read.y.tolist()) == {2}


def test_splits_are_told_by_files_not_by_the_folder_that_is_given(tmp_path: Path) -> None:
    for split, samples in (("test", SAMPLES), ("train", TRAIN)):
        as_parquet(tmp_path / "test" / f"{split}-0.parquet", samples)
    read = rb.load_data(f"parquet:{tmp_path / 'test'}")
    assert (len(read), len(read.training())) == (20, 9)


def test_names_with_dots_and_long_names_of_classes(tmp_path: Path) -> None:
    as_tar(tmp_path / "t.tar", SAMPLES, lambda number: "a" * 80 + str(number))
    with tarfile.open(tmp_path / "t.tar", "a") as members:
        for ending, text in (("png", SAMPLES[0][0]), ("cls", b"other")):
            member = tarfile.TarInfo(f"c_0.5.{ending}")
            member.size = len(text)
            members.addfile(member, io.BytesIO(text))
    read = rb.load_data(f"webdataset:{tmp_path / 't.tar'}")
    assert len(read) == 21
    assert len(read.class_names) == 4


def test_a_file_in_one_piece_is_for_testing_unless_a_share_is_asked_for(tmp_path: Path) -> None:
    as_parquet(tmp_path / "one.parquet", SAMPLES, hugging=False)
    as_tar(tmp_path / "one.tar", SAMPLES)
    for name in (f"parquet:{tmp_path / 'one.parquet'}", f"webdataset:{tmp_path / 'one.tar'}"):
        whole, part = rb.load_data(name), rb.load_data(f"{name},split=0.4")
        assert (len(whole), len(part), len(part.training())) == (20, 8, 12)
        assert whole.class_names == ("0", "1", "2")
        with pytest.raises(InvalidData, match="has no training split"):
            whole.training()


def test_a_run_on_images_in_a_parquet_file(tmp_path: Path) -> None:
    from tests.conftest import run_with

    as_parquet(tmp_path / "one.parquet", [(encoded(i), i % 2) for i in range(60)])
    data = f"parquet:{tmp_path / 'one.parquet'},split=0.5,grey=true"
    assert len(run_with(data, ["linear"], ["fgsm"], ["linf:0.1"]).records) == 30


def _unlabelled(root: Path) -> str:
    as_tar(root / "t.tar", SAMPLES)
    with tarfile.open(root / "t.tar", "a") as members:
        member = tarfile.TarInfo("alone.png")
        member.size = len(SAMPLES[0][0])
        members.addfile(member, io.BytesIO(SAMPLES[0][0]))
    return f"webdataset:{root / 't.tar'}"


def _twice(root: Path) -> str:
    as_tar(root / "t.tar", SAMPLES[:2])
    with tarfile.open(root / "t.tar", "a") as members:
        members.addfile(tarfile.TarInfo("deep/0001.jpg"))
    return f"webdataset:{root / 't.tar'}"


def _linked(root: Path) -> str:
    as_tar(root / "t.tar", SAMPLES[:2])
    with tarfile.open(root / "t.tar", "a") as members:
        member = tarfile.TarInfo("deep/0002.png")
        member.type, member.linkname = tarfile.LNKTYPE, "deep/0001.png"
        members.addfile(member)
    return f"webdataset:{root / 't.tar'}"


def _without_image(root: Path) -> str:
    as_tar(root / "t.tar", SAMPLES[:2])
    with tarfile.open(root / "t.tar", "a") as members:
        member = tarfile.TarInfo("deep/7.cls")
        member.size = 1
        members.addfile(member, io.BytesIO(b"1"))
    return f"webdataset:{root / 't.tar'}"


def _without_class(root: Path) -> str:
    as_tar(root / "t.tar", SAMPLES, lambda number: " ")
    return f"webdataset:{root / 't.tar'}"


def _cut(root: Path) -> str:
    as_tar(root / "t.tar", SAMPLES)
    (root / "t.tar").write_bytes((root / "t.tar").read_bytes()[:600])
    return f"webdataset:{root / 't.tar'}"


def _cut_between(root: Path) -> str:
    as_tar(root / "t.tar", SAMPLES)
    with tarfile.open(root / "t.tar") as members:
        end = members.getmembers()[6].offset  # where the third sample begins
    (root / "t.tar").write_bytes((root / "t.tar").read_bytes()[:end])
    return f"webdataset:{root / 't.tar'}"


def _packed(root: Path) -> str:
    as_tar(root / "t.tar", SAMPLES, mode="w:gz")
    return f"webdataset:{root / 't.tar'}"


def _broken(root: Path) -> str:
    as_parquet(root / "p.parquet", [*SAMPLES[:5], (b"no image", 1)])
    return f"parquet:{root / 'p.parquet'}"


def _sizes(root: Path) -> str:
    as_parquet(root / "p.parquet", [*SAMPLES[:5], (encoded(1, side=7), 1)])
    return f"parquet:{root / 'p.parquet'}"


def _empty_label(root: Path) -> str:
    pq.write_table(pa.table({"image": [SAMPLES[0][0]] * 3, "label": [0, None, 1]}), root / "p.parquet")
    return f"parquet:{root / 'p.parquet'}"


def _table(root: Path) -> str:
    pq.write_table(pa.table({"a": [0.5, 0.1], "label": [0, 1]}), root / "p.parquet")
    return f"parquet:{root / 'p.parquet'}"


def _text(root: Path) -> str:
    (root / "p.parquet").write_text("a,b\n1,2\n")
    return f"parquet:{root / 'p.parquet'}"


def _nothing(root: Path) -> str:
    return f"webdataset:{root}"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_unlabelled, "t.tar: alone has no label"),
        (_cut, "ends before deep/0000.png does|cannot be read as an uncompressed tar file"),
        (_twice, "t.tar, deep/0001.jpg: is the second of its sample"),
        (_linked, "t.tar, deep/0002.png: is a link to another member"),
        (_without_image, "t.tar: deep/7 has no image"),
        (_without_class, "0000.cls: is empty; must be a class"),
        (_cut_between, "lacks the mark of its end"),
        (_packed, "cannot be read as an uncompressed tar file"),
        (_broken, "p.parquet, group 1, row 1: cannot be read as an image"),
        (_sizes, r"group 1, row 1: is \(7, 7\), .*group 0, row 0 is \(6, 6\); give size and crop"),
        (_empty_label, "group 0, row 1: label is empty"),
        (_table, "has no column of encoded images .a, label.; a table is csv:"),
        (_text, "cannot be read as Parquet"),
        (_nothing, "has no files that end in .tar"),
    ],
)
def test_what_cannot_be_read(make: Callable[[Path], str], says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=says):
        rb.load_data(make(tmp_path))


def test_columns_are_named_where_there_are_several(tmp_path: Path) -> None:
    table = pa.table(
        {"a": [s[0] for s in SAMPLES], "b": [s[0] for s in SAMPLES], "kind": [s[1] for s in SAMPLES]}
    )
    pq.write_table(table, tmp_path / "p.parquet")
    name = f"parquet:{tmp_path / 'p.parquet'}"
    with pytest.raises(InvalidParameter, match="must be one of a, b"):
        rb.load_data(f"{name},label=kind")
    with pytest.raises(InvalidParameter, match=r"a column of .*: a, b, kind"):
        rb.load_data(f"{name},image=a")
    assert len(rb.load_data(f"{name},image=b,label=kind")) == 20


def test_a_table_in_a_parquet_file_is_a_table(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"age": random.integers(18, 80, 60), "kind": random.choice(["x", "y"], 60)})
    frame["price"] = random.integers(1, 900, 60) / 100
    frame["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(random.integers(0, 300, 60), "D")
    frame["label"] = (frame["age"] > 50).astype(int)
    frame.to_csv(tmp_path / "t.csv", index=False)
    typed = frame.assign(
        kind=frame["kind"].astype("category"),
        price=[decimal.Decimal(f"{price:.2f}") for price in frame["price"]],
        day=frame["day"].dt.date,
    )
    typed.to_parquet(tmp_path / "t.parquet", index=False)
    one, other = (rb.load_data(f"csv:{tmp_path / name},label=label") for name in ("t.csv", "t.parquet"))
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.y, other.y)
    frame.assign(day=frame["day"].dt.tz_localize("UTC")).to_parquet(tmp_path / "t.parquet", index=False)
    assert torch.equal(rb.load_data(f"csv:{tmp_path / 't.parquet'},label=label").x, one.x)
    frame.assign(kind=[[1, 2]] * 60).to_parquet(tmp_path / "t.parquet", index=False)
    with pytest.raises(InvalidData, match=r"column kind holds list.*must be numbers, text or dates"):
        rb.load_data(f"csv:{tmp_path / 't.parquet'},label=label")
