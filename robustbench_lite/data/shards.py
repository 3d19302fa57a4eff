"""Images in Parquet files, as Hugging Face writes them, and in tar files, as WebDataset reads them.

Neither is unpacked: of a Parquet file one group of rows is read at a time, of a tar file what is asked for.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from robustbench_lite.core.errors import InvalidData, InvalidParameter, require
from robustbench_lite.core.npz import require_room
from robustbench_lite.core.parameters import Count, Fraction
from robustbench_lite.data.data import Options, Raw
from robustbench_lite.data.folder import SUFFIXES, TESTS, decode, decoded
from robustbench_lite.data.given import classes
from robustbench_lite.data.split import one_of

CLASS = ".cls"
LABELS = ("label", "labels", "fine_label", "class", "target")  # columns that are labels unless one is named


@dataclass(frozen=True)
class Stored:
    """An encoded image inside a larger file."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Member:
    """An encoded image in a tar file: where its bytes begin, and how many they are."""

    file: Path
    name: str
    begin: int
    length: int

    def __str__(self) -> str:
        return f"{self.file}, {self.name}"

    def read(self) -> Stored:
        """Its content."""
        with self.file.open("rb") as opened:
            opened.seek(self.begin)
            return Stored(str(self), opened.read(self.length))


def parquet(
    options: Options,
    path: str,
    image: str = "",
    label: str = "",
    size: Count | None = None,
    crop: Count | None = None,
    grey: bool = False,
    split: Fraction | None = None,
) -> Raw:
    """PATH is a Parquet file, or a folder of them whose names begin with train and test (or val, validation).

    image: the column of encoded images; "": the only one of bytes. label: that of classes; "": label, labels,
    fine_label, class or target. size, crop, grey, split: as of a folder of images.
    """
    files = _files(path, ".parquet", options.split)
    schema = _opened(files.all[0]).schema_arrow
    image, label = _image_column(schema, image, path), _label_column(schema, label, path)
    given: list[object] = []
    places: list[tuple[Path, int, int]] = []  # file, group of rows, row in it
    for file in files.all:
        for group in range(_opened(file).num_row_groups):
            held = _column(file, group, label).to_pylist()
            given += held
            places += [(file, group, row) for row in range(len(held))]
    missing = next((place for place, one in zip(places, given, strict=True) if one is None), None)
    if missing is not None:
        raise InvalidData(f"{missing[0]}, group {missing[1]}, row {missing[2]}: {label} is empty")
    y, names = _classes(given, f"{path}: {label}")
    rows = files.rows([place[0] for place in places], y, options, path, split)
    kept = [places[i] for i in rows.tolist()]

    def name(place: tuple[Path, int, int]) -> str:
        return f"{place[0]}, group {place[1]}, row {place[2]}"

    def parts(wanted: list[int]) -> Iterator[tuple[list[int], list[Stored]]]:
        by_group: dict[tuple[Path, int], list[int]] = {}
        for position, i in enumerate(wanted):
            by_group.setdefault(kept[i][:2], []).append(position)
        for (file, group), positions in by_group.items():
            column = _column(file, group, image)
            yield positions, [_encoded(column, kept[wanted[p]][2], name(kept[wanted[p]])) for p in positions]

    def take(asked: Tensor) -> Tensor:
        wanted = asked.tolist()
        return decoded(parts(wanted), len(wanted), lambda one: _image(one, size, crop, grey), path)

    return Raw(take, y[rows], _class_names(schema, label) or names, lambda i: name(kept[i]))


def webdataset(
    options: Options,
    path: str,
    size: Count | None = None,
    crop: Count | None = None,
    grey: bool = False,
    split: Fraction | None = None,
) -> Raw:
    """PATH is a tar file, or a folder of them whose names begin with train and test (or val, validation).

    A sample is the members KEY.png (or another image) and KEY.cls, which holds its class; size, crop, grey,
    split: as of a folder of images.
    """
    files = _files(path, ".tar", options.split)
    images: list[Member] = []
    given: list[object] = []
    for file in files.all:
        pictures, labels = _members(file)
        images += pictures.values()
        given += [labels[key] for key in pictures]
    y, names = _classes(given, f"{path}: .cls")
    rows = files.rows([image.file for image in images], y, options, path, split)
    kept = [images[i] for i in rows.tolist()]

    def take(asked: Tensor) -> Tensor:
        wanted = [kept[i] for i in asked.tolist()]
        parts = [(range(len(wanted)), wanted)]
        return decoded(parts, len(wanted), lambda one: _image(one.read(), size, crop, grey), path)

    return Raw(take, y[rows], names, lambda i: str(kept[i]))


@dataclass(frozen=True)
class Files:
    """Files that hold samples: all of them, and those of the split where they come divided."""

    all: list[Path]
    split: frozenset[Path] | None

    def rows(
        self, owners: Sequence[Path], y: Tensor, options: Options, path: str, share: float | None
    ) -> Tensor:
        """The samples of the split, of which each is in a file."""
        if self.split is None:
            return one_of(options.split, y, options.seed, path, share)
        require(share is None, "split", share, f"left out: {path} comes divided")
        return torch.tensor([i for i, owner in enumerate(owners) if owner in self.split], dtype=torch.int64)


def _files(path: str, suffix: str, split: str) -> Files:
    """What a path holds."""
    root = Path(path).expanduser()
    if root.is_file():
        return Files([root], None)
    if not root.is_dir():
        raise InvalidData(f"{path}: is neither a file nor a folder")
    found = [f for f in root.rglob("*") if f.is_file() and f.suffix.lower() == suffix]
    found = sorted(f for f in found if not f.name.startswith("."))
    if not found:
        raise InvalidData(f"{path}: has no files that end in {suffix}")

    def of(name: str) -> list[Path]:
        inside = [f for f in found if f.parent != root and f.parent.name.lower() == name]
        return sorted({*inside, *(f for f in found if f.name.lower().startswith(name))})

    tests, train = next((of(name) for name in TESTS if of(name)), []), of("train")
    if not tests or not train:
        return Files(found, None)
    return Files(sorted({*train, *tests}), frozenset(tests if split == "test" else train))


def _classes(given: list[object], what: str) -> tuple[Tensor, tuple[str, ...]]:
    """Classes, and their names: what is written, or numbers."""
    y, names = classes(given, len(given), what)
    return y, names or tuple(map(str, range(int(y.max()) + 1 if len(y) else 0)))


def _opened(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise InvalidData(f"{file}: cannot be read as Parquet: {error}") from None


def _column(file: Path, group: int, name: str) -> pa.ChunkedArray:
    """A column of a group of rows."""
    opened = _opened(file)
    require_room(opened.metadata.row_group(group).total_byte_size, f"{file}, group {group}")
    try:
        return opened.read_row_group(group, columns=[name]).column(name)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise InvalidData(f"{file}: column {name} cannot be read: {error}") from None


def _image_column(schema: pa.Schema, asked: str, path: str) -> str:
    """The column of encoded images."""
    fit = [field.name for field in schema if _holds_bytes(field.type)]
    if asked in fit or (not asked and len(fit) == 1):
        return asked or fit[0]
    if not fit:
        columns = ", ".join(schema.names)
        raise InvalidData(f"{path}: has no column of encoded images ({columns}); a table is csv:{path}")
    raise InvalidParameter("image", asked, f"one of {', '.join(fit)}")


def _label_column(schema: pa.Schema, asked: str, path: str) -> str:
    if asked and asked in schema.names:
        return asked
    if asked:
        raise InvalidParameter("label", asked, f"a column of {path}: {', '.join(schema.names)}")
    fit = [name for name in LABELS if name in schema.names]
    if not fit:
        raise InvalidParameter("label", asked, f"a column of {path}: {', '.join(schema.names)}")
    return fit[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether values are bytes, or a record of bytes and a path."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """Names of the classes that Hugging Face writes beside the columns; none where there are none."""
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])
        names = told["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _encoded(column: pa.ChunkedArray, row: int, name: str) -> Stored:
    held = column[row].as_py()
    content = held.get("bytes") if isinstance(held, dict) else held
    if not isinstance(content, bytes):
        raise InvalidData(f"{name}: holds no bytes of an image")
    return Stored(name, content)


def _image(one: Stored, size: int | None, crop: int | None, grey: bool) -> Tensor:
    return decode(one, size, crop, grey, io.BytesIO(one.content))


def _members(file: Path) -> tuple[dict[str, Member], dict[str, object]]:
    """By key: images and classes."""
    pictures: dict[str, Member] = {}
    labels: dict[str, object] = {}
    whole = file.stat().st_size
    try:
        with file.open("rb") as opened:
            opened.seek(-min(whole, tarfile.BLOCKSIZE), io.SEEK_END)
            marked = not opened.read().strip(b"\0")
        with tarfile.open(file, "r:") as members:
            for member in members:
                key, _, ending = member.name.rpartition(".")
                one = Member(file, member.name, member.offset_data, member.size)
                kind = f".{ending.lower()}"
                if key.rpartition("/")[2].startswith(".") or kind not in (CLASS, *SUFFIXES):
                    continue
                if member.islnk() or member.issym():
                    raise InvalidData(f"{one}: is a link to another member; write its content in its place")
                if member.offset_data + member.size > whole:
                    raise InvalidData(f"{file}: ends before {member.name} does")
                if key in (labels if kind == CLASS else pictures):
                    raise InvalidData(f"{one}: is the second of its sample")
                if kind == CLASS:
                    labels[key] = _class_of(one)
                else:
                    pictures[key] = one
    except (OSError, tarfile.TarError) as error:
        raise InvalidData(f"{file}: cannot be read as an uncompressed tar file: {error}") from None
    if not marked:
        raise InvalidData(f"{file}: lacks the mark of its end: it was cut short")
    if not pictures:
        raise InvalidData(f"{file}: has no images ({', '.join(sorted(SUFFIXES))})")
    for there, missing, what in ((pictures, labels, "label"), (labels, pictures, "image")):
        if alone := [key for key in there if key not in missing]:
            raise InvalidData(f"{file}: {alone[0]} has no {what}")
    return pictures, labels


def _class_of(member: Member) -> object:
    """What a member says is the class: a number or a name."""
    require_room(member.length, str(member))
    text = member.read().content.decode("utf-8", "replace").strip()
    if not text:
        raise InvalidData(f"{member}: is empty; must be a class")
    return int(text) if text.isascii() and text.isdigit() else text
