"""Records: one row a sample and job, in Parquet files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from robustbench_lite.core.errors import RobustError
from robustbench_lite.core.npz import require_room

VERSION = 6  # of the schema; a run of another version is refused
SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("data", pa.string()),
        ("model", pa.string()),
        ("family", pa.string()),
        ("defense", pa.string()),
        ("source_model", pa.string()),
        ("attack", pa.string()),
        ("attack_name", pa.string()),
        ("parameters", pa.string()),
        ("threat", pa.string()),
        ("threat_kind", pa.string()),
        ("norm", pa.string()),
        ("eps", pa.float64()),
        ("minimum", pa.bool_()),
        ("goal", pa.string()),
        ("sample_id", pa.int64()),
        ("task", pa.string()),
        ("label", pa.int64()),
        ("target", pa.int64()),
        ("clean_prediction", pa.int64()),
        ("clean_rate", pa.float64()),
        ("clean_rejected", pa.bool_()),
        ("adversarial_prediction", pa.int64()),
        ("success", pa.bool_()),
        ("success_rate", pa.float64()),
        ("outcome", pa.string()),
        ("clean_wrong_share", pa.float64()),
        ("wrong_share", pa.float64()),
        ("clean_error", pa.float64()),
        ("error", pa.float64()),
        ("valid", pa.bool_()),
        ("reason_kind", pa.string()),
        ("reason", pa.string()),
        ("second_look", pa.bool_()),
        ("eight_bit", pa.bool_()),
        ("winner", pa.string()),
        ("distance", pa.float64()),
        ("l0", pa.float64()),
        ("l0_values", pa.float64()),
        ("l1", pa.float64()),
        ("l2", pa.float64()),
        ("linf", pa.float64()),
        ("l1_units", pa.float64()),
        ("l2_units", pa.float64()),
        ("linf_units", pa.float64()),
        ("clean_confidence", pa.float64()),
        ("adversarial_confidence", pa.float64()),
        ("lower_bound", pa.float64()),
        ("bound_kind", pa.string()),
        ("bound_by", pa.string()),
        ("bound_alpha", pa.float64()),
        ("queries_at_success", pa.int64()),
        ("forwards", pa.int64()),
        ("backwards", pa.int64()),
        ("fit_forwards", pa.float64()),
        ("fit_backwards", pa.float64()),
        ("fit_seconds", pa.float64()),
        ("certify_seconds", pa.float64()),
        ("seconds", pa.float64()),
        ("memory_mib", pa.float64()),
        ("zero_gradients", pa.int64()),
        ("nans", pa.int64()),
        ("precision", pa.string()),
        ("surrogate", pa.bool_()),
        ("batch_draws", pa.bool_()),
        ("seed", pa.int64()),
        ("artifact", pa.string()),
        ("job", pa.string()),
        ("fingerprint", pa.string()),
    ]
)
UNTABLED = {
    "run", "defense", "reason", "l0_values", "l1_units", "l2_units", "linf_units",
    "bound_by", "bound_alpha", "precision", "artifact", "job", "fingerprint",
}  # fmt: skip
ABSENT = {"target", "adversarial_prediction", "queries_at_success"}  # -1 in these means none
NEEDED = (
    "data", "model", "family", "attack", "attack_name", "threat", "threat_kind", "minimum", "goal",
    "sample_id", "success", "valid", "outcome", "forwards", "backwards",
    "seconds",
)  # fmt: skip
STALE = 3600.0  # seconds after which a temporary file is nobody's
Answer = TypeVar("Answer")
KEY = ["job", "model", "source_model", "sample_id"]  # no two records agree in all of these


def frame(columns: dict[str, object], rows: int) -> pd.DataFrame:
    """Records with every column of the schema; a scalar stands for all rows, a missing one is null."""
    arrays = []
    for field in SCHEMA:
        value = columns.get(field.name)
        if isinstance(value, np.ndarray):
            absent = value == -1 if field.name in ABSENT else None
            arrays.append(pa.array(value, type=field.type, mask=absent, from_pandas=True))
        elif value is None or (field.name in ABSENT and value == -1) or value != value:
            arrays.append(pa.nulls(rows, field.type))
        else:
            arrays.append(pa.repeat(pa.scalar(value, field.type), rows))
    return _pandas(pa.Table.from_arrays(arrays, schema=SCHEMA))


def write(records: pd.DataFrame, file: Path) -> None:
    """A Parquet file that appears whole or not at all."""
    with whole(file) as temporary:
        pq.write_table(pa.Table.from_pandas(records, schema=SCHEMA, preserve_index=False), temporary)


def read(files: Sequence[Path]) -> pd.DataFrame:
    """The records of files, in the order given."""
    if not files:
        return _pandas(SCHEMA.empty_table())
    found = _pandas(
        pa.concat_tables([_read(file, lambda f: pq.read_table(f, schema=SCHEMA)) for file in files])
    )
    twice = found["job"].notna() & found.duplicated(KEY)
    if twice.any():
        one = found.loc[twice].iloc[0]
        raise RobustError(f"sample {one['sample_id']} of {one['model']} × {one['attack']} is recorded twice")
    return found


def read_compact(files: Sequence[Path]) -> pd.DataFrame:
    """What tables need of very many records, in a quarter of the memory.

    Names are categories, numbers have 32 bits, and what no table reads is left out.
    """
    columns = [name for name in SCHEMA.names if name not in UNTABLED]
    names = [name for name in columns if SCHEMA.field(name).type == pa.string()]
    small = {pa.int64(): pa.int32(), pa.float64(): pa.float32()}

    def one(file: Path) -> pa.Table:
        table = pq.read_table(file, columns=columns, read_dictionary=names)
        return table.cast(pa.schema([(f.name, small.get(f.type, f.type)) for f in table.schema]))

    table = pa.concat_tables([_read(file, one) for file in files]).unify_dictionaries()
    kinds = {pa.int32(): pd.Int32Dtype(), pa.bool_(): pd.BooleanDtype()}
    found: pd.DataFrame = table.to_pandas(types_mapper=kinds.get, split_blocks=True, self_destruct=True)
    return found


def count(files: Sequence[Path]) -> int:
    """How many records files hold, without reading them."""
    return sum(_opened(file, lambda f: pq.read_metadata(f).num_rows) for file in files)


def readable(file: Path) -> bool:
    """Whether a file ends as one of records does; its records are not read."""
    try:
        return count([file]) >= 0
    except RobustError:
        return False


def _read(file: Path, how: Callable[[Path], pa.Table]) -> pa.Table:
    """The table of a file; raises `RobustError` naming it where it holds no records."""
    require_room(_opened(file, lambda f: _unfolded(pq.read_metadata(f))), str(file))
    table = _opened(file, how)
    empty = [name for name in NEEDED if table[name].null_count]
    if empty:
        raise RobustError(f"{file}: holds no records: {', '.join(empty)} missing in some rows")
    return table


def _unfolded(facts: pq.FileMetaData) -> int:
    return sum(facts.row_group(i).total_byte_size for i in range(facts.num_row_groups))


def _opened(file: Path, how: Callable[[Path], Answer]) -> Answer:
    try:
        return how(file)
    except RobustError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as there are readers in it
        raise RobustError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from None


def abandoned(file: Path) -> bool:
    """Whether nobody writes a temporary file any more: its process is gone, or it is an hour old.

    Of another machine's processes nothing is known but the hour.
    """
    process, _, host = file.name.lstrip(".").partition("-")[0].partition("@")
    try:
        if time.time() - file.stat().st_mtime > STALE or not process.isdecimal():
            return True
        if host != _host():
            return False
        os.kill(int(process), 0)
    except (ProcessLookupError, FileNotFoundError, OverflowError):
        return True
    except OSError:  # another user's process
        return False
    return int(process) == os.getpid()


def _host() -> str:
    """The machine's name, as a part of a file's."""
    return "".join(c for c in platform.node() if c.isalnum())[:40]


@contextlib.contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A temporary name that becomes `file`, once written and on the disk."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{os.getpid()}@{_host()}-", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _pandas(table: pa.Table) -> pd.DataFrame:
    """Nullable whole numbers and booleans stay what they are."""
    kinds = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype(), pa.string(): pd.StringDtype()}
    found: pd.DataFrame = table.to_pandas(types_mapper=kinds.get)
    return found
