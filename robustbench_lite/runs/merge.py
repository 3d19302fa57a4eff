"""Parts of a run that were carried out in folders of their own, joined into one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustbench_lite.core.errors import RobustError
from robustbench_lite.records.folder import Folder, Told
from robustbench_lite.reports.build import rebuild
from robustbench_lite.reports.results import Results

OWN = ("started", "hardware", "device", "git_revision")  # what a part may have of its own


def merge(parts: Sequence[Folder], out: Path) -> Folder:
    """Join the parts of a run; `missing()` of what comes back says whether that is all of it.

    Parameters
    ----------
    parts : sequence of Folder
        Of one config, the same data and the same models, as shards leave them; a job that several have is
        taken from the first.
    out : Path
        A folder that holds no run yet.

    Returns
    -------
    Folder
        With tables and page, where there are records.

    Raises
    ------
    RobustError
        For parts that do not belong together.
    """
    first, *others = parts
    for other in others:
        unlike = sorted(_unlike(first, other))
        if unlike:
            raise RobustError(f"{first.path} and {other.path} are no parts of one run: {', '.join(unlike)}")
    folder = Folder.create(out)
    told = [part.told() for part in parts]
    jobs = list(dict.fromkeys(key for one in told for key in one.jobs or []))
    for part in parts:
        for file in part.shards():
            folder.adopt(part, file.stem)
        for name in part.told().learnt or []:
            folder.adopt_learnt(part, name)
    there = {file.stem for file in (folder.path / "records").glob("*.parquet")}
    folder.text("config.toml", (first.path / "config.toml").read_text(encoding="utf-8"))
    folder.tell(
        Told(
            refused={key: why for one in told for key, why in one.refused.items()},
            failures={job: why for one in told for job, why in one.failures.items()},
            notes=list(dict.fromkeys(note for one in told for note in one.notes)),
            class_names=told[0].class_names,
            jobs=jobs,
            failed=sorted({key for one in told for key in one.failed} - there),
            learnt=sorted({name for one in told for name in one.learnt or []}),
            finished=there >= set(jobs),
        )
    )
    if there:
        rebuild([Results.open(folder.path)], ("html", "md", "csv"))
    return folder


def _unlike(one: Folder, other: Folder) -> set[str]:
    """What two configs, and what they came to, do not share."""
    left, right = (_facts(folder) for folder in (one, other))
    return {name for name in left.keys() | right.keys() if left.get(name) != right.get(name)}


def _facts(folder: Folder) -> dict[str, object]:
    config = folder.config()
    resolved = config.pop("resolved", {})
    held = resolved if isinstance(resolved, dict) else {}
    return {**config, **{name: value for name, value in held.items() if name not in OWN}}
