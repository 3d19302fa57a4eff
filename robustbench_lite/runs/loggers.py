"""Experiment trackers that a run reports to; each needs its own package, which is no dependency."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from robustbench_lite.core.errors import InvalidParameter, RobustError
from robustbench_lite.engines.engine import Done
from robustbench_lite.jobs.job import Job
from robustbench_lite.reports.results import Results
from robustbench_lite.runs.observers import Observer

MEANS = "tensorboard:FOLDER, mlflow:URI or wandb:PROJECT"


def logger(text: str) -> Observer:
    """The tracker of a text.

    Parameters
    ----------
    text : str
        `tensorboard:FOLDER`; `mlflow:URI`, such as `mlflow:http://host:5000`; `wandb:PROJECT`.

    Raises
    ------
    InvalidParameter
    RobustError
        Where its package is not installed.
    """
    kind, _, where = text.partition(":")
    if kind not in KINDS or not where:
        raise InvalidParameter("log", text, MEANS)
    try:
        return KINDS[kind](where)
    except ImportError as error:
        raise RobustError(f"log {text}: {error}: pip install {kind}") from None


def measures(results: Results) -> dict[str, float]:
    """What a tracker keeps of a run, by name: robust accuracies, and the success of each attack."""
    found: dict[str, float] = {}
    for row in results.table("worst_case").to_dict("records"):
        found |= {f"robust/{_place(row)}": float(row["robust"]), f"clean/{row['model']}": float(row["clean"])}
    for row in results.table("summary").to_dict("records"):
        found[f"success/{_place(row)}/{row['attack']}"] = float(row["success"])
    return {name: value for name, value in found.items() if value == value}


def _place(row: Mapping[Any, object]) -> str:
    return "/".join(str(row[name]) for name in ("model", "threat", "goal"))


class _Steps(Observer):
    """What all trackers are told as jobs end: each job is a step."""

    def __init__(self) -> None:
        self.step = 0
        self.config = ""

    def planned(self, jobs: Sequence[Job], config: str) -> None:
        self.config = config

    def carried_out(self, done: Done) -> None:
        self.step += 1
        if done.records is None:
            return
        own = done.records.loc[done.records["source_model"].isna()]
        right = int((own["outcome"] != "wrong").sum())
        values = {"job/seconds": float(own["seconds"].sum()), "job/samples": float(len(own))}
        if right:
            values["job/success"] = float(own["success"].astype(bool).sum()) / right
        self.write(values)

    def write(self, values: Mapping[str, float]) -> None:
        """Note numbers at the present step."""
        raise NotImplementedError


class TensorBoard(_Steps):
    """Writes event files into a folder."""

    def __init__(self, folder: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        super().__init__()
        self.open: Callable[[], Any] = partial(SummaryWriter, folder)
        self.writer: Any = None

    def planned(self, jobs: Sequence[Job], config: str) -> None:
        super().planned(jobs, config)
        self.writer = self.open()

    def write(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, self.step)

    def ended(self, results: Results) -> None:
        self.writer.add_text("config", f"```\n{self.config}\n```")
        self.write(measures(results))

    def closed(self) -> None:
        if self.writer is not None:
            self.writer.close()


class MLflow(_Steps):
    """Reports to a server or a folder of MLflow, a run of its own."""

    def __init__(self, uri: str) -> None:
        import mlflow

        super().__init__()
        self.open: Callable[[], Any] = partial(mlflow.MlflowClient, uri)
        self.client: Any = None
        self.run, self.status = "", "KILLED"

    def planned(self, jobs: Sequence[Job], config: str) -> None:
        super().planned(jobs, config)
        self.client = self.open()
        known = self.client.get_experiment_by_name("robustbench-lite")
        home = self.client.create_experiment("robustbench-lite") if known is None else known.experiment_id
        self.run = self.client.create_run(home).info.run_id

    def write(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            plain = "".join(c if c.isalnum() or c in "_-./ :" else "_" for c in name)
            self.client.log_metric(self.run, plain, value, step=self.step)

    def ended(self, results: Results) -> None:
        self.write(measures(results))
        self.client.log_text(self.run, self.config, "config.toml")
        self.status = "FINISHED"

    def closed(self) -> None:
        if self.run:
            self.client.set_terminated(self.run, self.status)


class WeightsAndBiases(_Steps):
    """Reports to a project of Weights & Biases; WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, project: str) -> None:
        import wandb

        super().__init__()
        self.open: Callable[[], Any] = partial(wandb.init, project=project)
        self.run: Any = None

    def planned(self, jobs: Sequence[Job], config: str) -> None:
        super().planned(jobs, config)
        self.run = self.open()

    def write(self, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=self.step)

    def ended(self, results: Results) -> None:
        self.run.summary.update(measures(results))
        self.run.summary["failures"] = json.dumps(sorted(results.failures))
        self.run.config.update({"config": self.config})

    def closed(self) -> None:
        if self.run is not None:
            self.run.finish()


KINDS: dict[str, Callable[[str], Observer]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}
