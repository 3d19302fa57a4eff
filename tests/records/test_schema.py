"""Records: every column, whole files only."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from robustbench_lite.records.schema import NEEDED, SCHEMA, frame, read, whole, write


def rows(n: int = 3) -> pd.DataFrame:
    columns: dict[str, object] = {
        **dict.fromkeys(NEEDED, "x"),
        **dict.fromkeys(("label", "clean_prediction", "forwards", "backwards"), 1),
        **dict.fromkeys(("valid", "minimum"), True),
        "seconds": 0.5,
        "model": "cnn",
        "sample_id": np.arange(n),
        "target": np.array([2] + [-1] * (n - 1)),
        "success": np.array([True] + [False] * (n - 1)),
        "reason": np.array([None] * n, dtype=object),
        "l2": np.linspace(0, 1, n),
    }
    return frame(columns, n)


def test_a_frame_has_every_column_and_nulls_where_nothing_is_known() -> None:
    found = rows()
    assert list(found.columns) == SCHEMA.names
    assert found["target"].isna().tolist() == [False, True, True]
    assert found["model"].tolist() == ["cnn"] * 3
    assert found["bound_alpha"].isna().all()
    assert found["success"].tolist() == [True, False, False]


def test_records_come_back_as_they_went(tmp_path: Path) -> None:
    found = rows()
    write(found, tmp_path / "a" / "x.parquet")
    write(found, tmp_path / "a" / "y.parquet")
    back = read([tmp_path / "a" / "x.parquet", tmp_path / "a" / "y.parquet"])
    pd.testing.assert_frame_equal(back, pd.concat([found, found], ignore_index=True))
    assert pq.read_schema(tmp_path / "a" / "x.parquet").names == SCHEMA.names
    assert len(read([])) == 0


def test_a_file_whose_writing_fails_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    write(rows(), file)
    before = file.read_bytes()

    def cut() -> None:
        with whole(file) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        cut()
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]
