"""The folder of a run: what is written where, each file whole or not there."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from robustbench_lite.core.errors import RobustError
from robustbench_lite.jobs.job import Cell, Finished
from robustbench_lite.records.schema import read, whole, write
from robustbench_lite.runs.plan import Plan

PACKAGES = ("robustbench-lite", "numpy", "pandas", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Store:
    """config.toml, records/, adversarial/, learnt/, pictures/, tables/ and what was told, in one folder."""

    folder: Path

    @classmethod
    def open(cls, folder: Path, resume: bool) -> Store:
        """Raises `RobustError` when the folder holds a run already and is not to be resumed."""
        if (folder / "records").exists() and not resume:
            raise RobustError(f"{folder} holds a run already; resume it, or choose another folder")
        try:
            (folder / "records").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RobustError(f"{folder}: cannot be written: {error}") from None
        return cls(folder)

    def records_of(self, cell: Cell) -> pd.DataFrame | None:
        """The records of a cell that is done already."""
        shard = self._shard(cell)
        return read([shard]) if shard.exists() else None

    def artifact(self, cell: Cell) -> str:
        """Where the cell's adversarial examples go, inside the folder."""
        return f"adversarial/{cell.identity()}.npz"

    def save(self, cell: Cell, finished: Finished) -> None:
        """The adversarial examples found, then the records: with those the cell is done."""
        success = finished.records["success"].to_numpy(dtype=bool)
        ids = finished.records["sample_id"].to_numpy(dtype="int64")[success]
        with whole(self.folder / self.artifact(cell)) as temporary, temporary.open("wb") as opened:
            np.savez_compressed(opened, ids=ids, adversarial=finished.adversarial.numpy()[success])
        write(finished.records, self._shard(cell))

    def learnt(self, cell: Cell, learnt: Mapping[str, Tensor]) -> str:
        """Keep what a fitted attack learnt, the tensors and the cell's name; returns the file's name."""
        name = hashlib.sha256(f"{cell} {cell.model.fingerprint()}".encode()).hexdigest()[:24]
        arrays = {key: value.cpu().numpy() for key, value in learnt.items()} | {"cell": np.array(str(cell))}
        with whole(self.folder / "learnt" / f"{name}.npz") as temporary, temporary.open("wb") as opened:
            np.savez_compressed(opened, allow_pickle=False, **arrays)
        return name

    def text(self, name: str, text: str) -> None:
        """A text file in the folder."""
        with whole(self.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def tables(
        self, records: pd.DataFrame, tables: Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]]
    ) -> None:
        """Every table of the records, as CSV."""
        for name, table in tables.items():
            self.text(f"tables/{name}.csv", table(records).to_csv(index=False))

    def pictures(self, cell: Cell, arrays: Mapping[str, np.ndarray]) -> None:
        """What a reader is shown of a cell."""
        file = self.folder / "pictures" / f"{cell.identity()}.npz"
        with whole(file) as temporary, temporary.open("wb") as opened:
            np.savez_compressed(opened, allow_pickle=False, **arrays)

    def told(
        self,
        failures: Mapping[str, str],
        refused: Mapping[str, str],
        notes: Sequence[str],
        class_names: Sequence[str],
        files: Sequence[str],
    ) -> None:
        """What failed and where, what could not be, and what a reader should know; files: the run's own."""
        self.text("failures.json", json.dumps(dict(failures), indent=2) + "\n")
        facts: dict[str, object] = {
            "refused": dict(refused),
            "notes": list(notes),
            "class_names": list(class_names),
        }
        facts["files"] = list(files)
        self.text("notes.json", json.dumps(facts, indent=2) + "\n")

    def _shard(self, cell: Cell) -> Path:
        return self.folder / "records" / f"{cell.identity()}.parquet"


def new_folder(data: str) -> Path:
    """runs/<time>-<data>."""
    plain = "".join(c if c.isalnum() else "-" for c in data.partition(":")[0])
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{plain}"


def resolved(plan: Plan) -> dict[str, object]:
    """What a config came to: versions, revision, hardware, attacks, and the hashes of data and models."""
    device = plan.models[0].device
    facts: dict[str, object] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": str(device),
        "hardware": _hardware(device),
        "python": platform.python_version(),
        "git_revision": _git_revision(),
        "data_sha256": plan.data.fingerprint(),
    }
    facts |= {f"version {package}": _version(package) for package in PACKAGES}
    facts["version torch"] = str(torch.__version__)  # names its CUDA too
    facts |= {f"model_sha256 {model.name}": model.fingerprint() for model in plan.models}
    facts |= {f"attack {cell.attack.name}": repr(cell.attack) for cell in plan.cells}
    return facts


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed as a package"


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _git_revision() -> str:
    """The project's own revision, where it runs from a checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return "none"
    return found.stdout.strip() or "none"
