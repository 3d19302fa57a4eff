"""The folder of a run: the one place that knows what is written where; each file whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from robustbench_lite.core.errors import InvalidData, RobustError
from robustbench_lite.core.npz import read_arrays, write_arrays
from robustbench_lite.records.once import once
from robustbench_lite.records.schema import (
    VERSION,
    abandoned,
    count,
    read,
    read_compact,
    readable,
    whole,
    write,
)

log = logging.getLogger(__name__)
PATIENCE = 2.0  # seconds that another process is waited for without a word
MANY = 1_000_000  # records beyond which names become categories and numbers shorter


class Told(BaseModel):
    """What notes.json holds beside the records, and failures.json (failures: job -> traceback).

    jobs: keys of all the run's jobs, failed of those that failed, not_begun of those that nothing has become
    of when it was time to stop; learnt: the run's own files there; finished: whether all of them were gone
    through.
    """

    version: int = VERSION
    refused: dict[str, str] = {}
    failures: dict[str, str] = {}
    notes: list[str] = []
    class_names: list[str] = []
    jobs: list[str] | None = None
    failed: list[str] = []
    not_begun: list[str] = []
    learnt: list[str] | None = None
    finished: bool = True


@dataclass(frozen=True)
class Claim:
    """A job that this process holds, until it lets go of it or ends in whatever way."""

    lock: filelock.BaseFileLock

    def release(self) -> None:
        """Let go of it; its file stays, for whoever looks at the same one."""
        Path(self.lock.lock_file).with_suffix(".owner").unlink(missing_ok=True)
        self.lock.release()


class Owner(BaseModel):
    """Who carries out a job: a process of a host, since a moment of the clock."""

    host: str
    process: int
    since: str


@dataclass(frozen=True)
class Folder:
    """config.toml, notes.json, records/, adversarial/, learnt/, pictures/, tables/ and the reports of a run.

    What jobs share, and may be made again, is in bounds/ and fits/.

    Records of a job stand in records/KEY.parquet, KEY being the job's; with them the job is done. While a
    process carries it out it holds records/.KEY.lock, which the system takes from it when it ends.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, resume: bool = False) -> Folder:
        """A folder to write a run in.

        Raises
        ------
        RobustError
            When it holds a run already and is not to be resumed, or a run of another version.
        """
        folder = cls(path)
        if (path / "records").exists():
            if not resume:
                raise RobustError(f"{path} holds a run already; resume it, or choose another folder")
            folder.told()
        try:
            (path / "records").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RobustError(f"{path}: cannot be written: {error}") from None
        for left in path.glob("*/.*.tmp"):  # of a write that was killed
            if abandoned(left):
                left.unlink(missing_ok=True)
        return folder

    @classmethod
    def open(cls, path: Path) -> Folder:
        """A folder that holds a run; raises `RobustError` where there is none, or it cannot be read."""
        folder = cls(path)
        if not (path / "records").is_dir() or not folder.shards():
            raise RobustError(f"{path} holds no run: there are no records in it")
        folder.told()
        return folder

    @property
    def name(self) -> str:
        """What the folder is called."""
        return self.path.resolve().name

    def told(self) -> Told:
        """What was told beside the records; raises `RobustError` for another version of the schema."""
        file = self.path / "notes.json"
        if not file.is_file():
            return Told()
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(facts, dict):
                raise ValueError("is no table of names")
            held = facts.get("version", 1)
            if held != VERSION:
                raise RobustError(f"{file}: of version {held}; this release reads {VERSION}: run anew")
            failures = self.path / "failures.json"
            if failures.is_file():
                facts["failures"] = json.loads(failures.read_text(encoding="utf-8"))
            return Told.model_validate(facts)
        except (OSError, ValueError, ValidationError) as error:
            raise RobustError(f"{file}: cannot be read: {' '.join(str(error).split())}") from None

    def config(self) -> dict[str, object]:
        """The values of config.toml, what the config came to among them under `resolved`."""
        try:
            return tomllib.loads((self.path / "config.toml").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RobustError(f"{self.path}: cannot be read: {error}") from None

    def shards(self) -> list[Path]:
        """The record files of the run, the oldest first; those it names, where it names them."""
        files = sorted(self._files("records", "parquet"), key=lambda f: (f.stat().st_mtime_ns, f.name))
        told = self.told()
        own = None if told.jobs is None else set(told.jobs) - set(told.not_begun)
        return files if own is None else [file for file in files if file.stem in own]

    def missing(self) -> list[str]:
        """Keys of jobs that the run names and whose records are not there, though they did not fail."""
        told = self.told()
        there = {file.stem for file in self._files("records", "parquet")} - set(told.not_begun)
        return [key for key in told.jobs or [] if key not in there and key not in told.failed]

    def claim(self, key: str) -> Claim | None:
        """Hold a job for this process; None where another process holds it."""
        lock = filelock.FileLock(self.path / "records" / f".{key}.lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            return None
        owner = Owner(host=platform.node(), process=os.getpid(), since=time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        self.text(f"records/.{key}.owner", owner.model_dump_json())
        return Claim(lock)

    def clear_locks(self) -> None:
        """Remove the files of locks; when nothing is left to be done."""
        for file in self.path.glob("*/.*.lock"):
            with contextlib.suppress(OSError):  # in use, on systems that mind
                file.unlink()

    def running(self) -> dict[str, Owner]:
        """Who is carrying out which job, by its key."""
        found: dict[str, Owner] = {}
        for file in sorted((self.path / "records").glob(".*.owner")):
            try:
                owner = Owner.model_validate_json(file.read_text(encoding="utf-8"))
                with filelock.FileLock(file.with_suffix(".lock"), timeout=0):
                    continue  # of a process that is gone
            except filelock.Timeout:
                found[file.stem[1:]] = owner
            except (OSError, ValueError):  # just taken, or just let go of
                continue
        return found

    def progress(self) -> dict[str, int | float | None]:
        """Jobs of the run: in all, done, failed, missing and running among those; seconds_left: at the pace
        of the jobs that are done.

        None where nothing is left, or nothing known of how long a job takes.
        """
        told, missing = self.told(), self.missing()
        files = [file for file in self.shards() if readable(file)]
        missing += sorted({file.stem for file in self.shards()} - {file.stem for file in files})
        seconds = [float(read([file])["seconds"].sum()) for file in files] if missing else []
        return {
            "jobs": len(files) if told.jobs is None else len(told.jobs),
            "done": len(files),
            "failed": len(told.failed),
            "missing": len(missing),
            "running": len(self.running().keys() & set(missing)),
            "seconds_left": len(missing) * sum(seconds) / len(seconds) if seconds else None,
        }

    def digest(self) -> str:
        """Hash of what the run claims, to the last bit: config, jobs, records and adversarial examples."""
        found = hashlib.sha256((self.path / "config.toml").read_bytes())
        found.update(json.dumps(self.told().jobs).encode())
        for file in sorted(self.shards()):
            for one in (file, self.path / self.artifact(file.stem)):
                found.update(one.name.encode())
                if one.is_file():
                    with one.open("rb") as opened:
                        found.update(hashlib.file_digest(opened, "sha256").digest())
        return found.hexdigest()

    def records(self, keys: Sequence[str] | None = None) -> pd.DataFrame:
        """All records of the run, or of some jobs in their order; of very many, what tables need."""
        named = [self.path / "records" / f"{key}.parquet" for key in keys or ()]
        files = self.shards() if keys is None else named
        return read(files) if count(files) <= MANY else read_compact(files)

    def holds(self, key: str) -> bool:
        """Whether there are records of a job, of whatever data and models."""
        return (self.path / "records" / f"{key}.parquet").exists()

    def records_of(self, key: str, fingerprint: str | None) -> pd.DataFrame | None:
        """The records of a job that is done already, unless its data or models have changed since.

        None as fingerprint: whatever they are.
        """
        file = self.path / "records" / f"{key}.parquet"
        if not file.exists():
            return None
        try:
            found = read([file])
        except RobustError as error:
            log.warning("%s is damaged and set aside; its job is done again (%s)", file, error)
            file.replace(file.with_suffix(".damaged"))
            return None
        same = fingerprint is None or (found["fingerprint"] == fingerprint).all()
        return found if same else None

    def artifact(self, key: str) -> str:
        """Where a job's adversarial examples go, inside the folder."""
        return f"adversarial/{key}.npz"

    def adversarial(self, key: str) -> dict[str, np.ndarray]:
        """What `save` kept of a job beside its records; raises `InvalidData` where it cannot be read."""
        return read_arrays(self.path / self.artifact(key))

    def save(self, key: str, records: pd.DataFrame, arrays: Mapping[str, np.ndarray]) -> None:
        """The adversarial examples found, then the records: with those the job is done."""
        self._arrays(self.artifact(key), arrays)
        write(records, self.path / "records" / f"{key}.parquet")

    def adopt(self, other: Folder, key: str) -> None:
        """Take over a job from another folder: what it found and shows, then its records."""
        for name in (self.artifact(key), f"pictures/{key}.npz", f"records/{key}.parquet"):
            self._copy(other.path / name, name)

    def adopt_learnt(self, other: Folder, name: str) -> None:
        """Take over what a fitted attack learnt."""
        self._copy(other.path / "learnt" / f"{name}.npz", f"learnt/{name}.npz")

    def _copy(self, file: Path, name: str) -> None:
        if file.is_file() and not file.is_symlink() and not (self.path / name).exists():
            with whole(self.path / name) as temporary:
                shutil.copyfile(file, temporary)

    def save_learnt(self, key: str, arrays: Mapping[str, np.ndarray]) -> str:
        """Keep what a fitted attack learnt and its title, under a name made of what keys it; returns that."""
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        self._arrays(f"learnt/{name}.npz", arrays)
        return name

    def learnt_name(self, key: str) -> str | None:
        """The name that `save_learnt` keeps something under; None where there is nothing."""
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        return name if (self.path / "learnt" / f"{name}.npz").exists() else None

    def once(
        self, what: str, key: str, make: Callable[[], Mapping[str, np.ndarray]]
    ) -> Mapping[str, np.ndarray]:
        """Arrays that jobs share: made by the first process that asks for them, read by all others.

        what: the folder inside this one; key: what determines them.
        """
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        file = self.path / what / f"{name}.npz"
        file.parent.mkdir(exist_ok=True)
        with _held(filelock.FileLock(file.with_name(f".{name}.lock")), what):
            return once(file, make)

    def save_pictures(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """What a reader is shown of a job."""
        self._arrays(f"pictures/{key}.npz", arrays)

    def text(self, name: str, text: str) -> None:
        """A text file in the folder."""
        with whole(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def tell(self, told: Told) -> None:
        """Write down what a reader should know beside the records."""
        self.text("failures.json", json.dumps(told.failures, indent=2) + "\n")
        self.text("notes.json", told.model_dump_json(indent=2, exclude={"failures"}) + "\n")

    def pictures(self) -> Iterator[tuple[dict[str, list[object]], dict[str, np.ndarray]]]:
        """The facts and arrays of every job that has something to show."""
        for arrays in self._stored("pictures", self.told().jobs):
            try:
                facts = json.loads(str(arrays.pop("facts")))
            except (KeyError, ValueError):
                log.warning("left out: a picture without facts in %s", self.path / "pictures")
                continue
            yield facts, arrays

    def learnt(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """What fitted attacks learnt: a title and the arrays."""
        for arrays in self._stored("learnt", self.told().learnt):
            yield str(arrays.pop("title", "")), arrays

    def _arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        with whole(self.path / name) as temporary:
            write_arrays(temporary, arrays)

    def _files(self, folder: str, suffix: str) -> list[Path]:
        """The files of a kind, but what is no file of this folder: links, pipes, what is being written."""
        found = (self.path / folder).glob(f"[!.]*.{suffix}")
        return [file for file in found if file.is_file() and not file.is_symlink()]

    def _stored(self, folder: str, own: Sequence[str] | None) -> Iterator[dict[str, np.ndarray]]:
        for file in sorted(self._files(folder, "npz"), key=lambda f: (f.stat().st_mtime_ns, f.name)):
            if own is not None and file.stem not in own:
                continue
            try:
                yield read_arrays(file)
            except InvalidData as error:
                log.warning("left out: %s", error)


def runs_in(paths: Sequence[Path]) -> list[Path]:
    """The runs among folders, and those inside of folders that are none."""
    within = [[path] if (path / "records").is_dir() else sorted(path.iterdir()) for path in paths]
    return [run for some in within for run in some if (run / "records").is_dir()]


def new_folder(data: str) -> Path:
    """runs/<time>-<data>."""
    plain = "".join(c if c.isalnum() else "-" for c in data.partition(":")[0])
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{plain}"


@contextlib.contextmanager
def _held(lock: filelock.BaseFileLock, what: str) -> Iterator[None]:
    """Hold a lock; what: is made by who holds it, told where that takes a while."""
    try:
        lock.acquire(timeout=PATIENCE)
    except filelock.Timeout:
        log.warning("%s: another process makes what this one needs too; waiting for it", what)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
