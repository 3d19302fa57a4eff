"""What is told while a run goes on, and how it ends when it is told to."""

import io
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

import robustbench_lite as rb
from robustbench_lite.cli.main import main
from robustbench_lite.cli.terminal import observing
from robustbench_lite.core.errors import InvalidParameter, RobustError
from robustbench_lite.engines import engine
from robustbench_lite.engines.engine import Done
from robustbench_lite.jobs.job import Job
from robustbench_lite.runs.loggers import logger, measures
from robustbench_lite.runs.observers import JsonLines, all_of, is_aside

CONFIG = rb.Config(
    samples=40, models=("linear", "tree"), attacks=("fgsm", "noise"), threats=("linf:0.1",), pictures=False
)


class Listener(rb.Observer):
    def __init__(self) -> None:
        self.told: list[str] = []
        self.fractions: list[float] = []

    def planned(self, jobs: Sequence[Job], config: str) -> None:
        self.told.append(f"{len(jobs)} jobs of {rb.Config.__name__} with {config.count('linf:0.1')} threat")

    def went_on(self, what: str, fraction: float) -> None:
        if not is_aside(what):
            self.fractions.append(fraction)

    def carried_out(self, done: Done) -> None:
        self.told.append(str(done.job))

    def ended(self, results: rb.Results) -> None:
        self.told.append(f"{len(results.records)} records")


def test_an_observer_is_told_of_the_plan_of_every_job_and_of_the_end() -> None:
    listener = Listener()
    rb.run(config=CONFIG, observers=[listener])
    jobs = [f"{model} × {attack} × linf:0.1" for model in CONFIG.models for attack in CONFIG.attacks]
    assert listener.told == ["4 jobs of Config with 1 threat", *jobs, "160 records"]
    assert listener.fractions == sorted(listener.fractions)
    assert listener.fractions[-1] == 1.0


def test_lines_of_json_say_how_far_it_is_and_what_was_broken() -> None:
    stream = io.StringIO()
    result = rb.run(config=CONFIG, observers=[rb.JsonLines(stream)])
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    last = lines[-1]
    assert (last["jobs"], last["done"], last["failed"], last["samples"]) == (4, 4, 0, 160)
    assert last["fraction"] == 1.0
    right = (result.records["outcome"] != "wrong").sum()
    assert last["success"] == pytest.approx(result.records["success"].sum() / right)
    assert last["samples_per_second"] > 0
    assert [line["done"] for line in lines] == sorted(line["done"] for line in lines)


def test_what_an_earlier_run_had_done_is_no_speed(tmp_path: Path) -> None:
    rb.run(config=CONFIG, out=tmp_path / "r")
    stream = io.StringIO()
    again = rb.Folder.create(tmp_path / "r", resume=True)
    rb.run(config=CONFIG, out=again, observers=[rb.JsonLines(stream)])
    last = json.loads(stream.getvalue().splitlines()[-1])
    assert (last["done"], last["samples"], last["samples_per_second"]) == (4, 160, 0.0)
    assert last["seconds_left"] is None


def test_an_observer_that_fails_stops_nobody_and_all_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Listener):
        def carried_out(self, done: Done) -> None:
            raise ConnectionError("no such server")

        def closed(self) -> None:
            self.told.append("closed")

    class Closing(Listener):
        def closed(self) -> None:
            self.told.append("closed")

    failing, closing = Failing(), Closing()
    assert len(rb.run(config=CONFIG, observers=[failing, closing]).records) == 160
    assert len(failing.told) == 1, "it is told nothing more"
    assert closing.told[-2:] == ["160 records", "closed"]

    def stop(*things: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "carry_out", stop)
    closing.told.clear()
    with pytest.raises(KeyboardInterrupt):
        rb.run(config=CONFIG, observers=[closing])
    assert closing.told[-1] == "closed"


def test_what_cannot_begin_or_is_no_observer_is_refused_in_a_line() -> None:
    class Unable(rb.Observer):
        def planned(self, jobs: Sequence[Job], config: str) -> None:
            raise ConnectionError("no such server")

    with pytest.raises(RobustError, match="Unable cannot begin: ConnectionError: no such server"):
        rb.run(config=CONFIG, observers=Unable())
    with pytest.raises(InvalidParameter, match="observers"):
        rb.run(config=CONFIG, observers=[object()])  # type: ignore[list-item]


def test_job_systems_read_progress_from_standard_error(tmp_path: Path) -> None:
    words = ["run", "--samples", "20", "--model", "linear", "--attack", "fgsm", "--threat", "linf:0.1"]
    done = CliRunner().invoke(main, [*words, "--progress", "json", "--json", "--out", str(tmp_path / "r")])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["summary"]
    said = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert said[-1]["done"] == 1


def test_whatever_a_run_says_meanwhile_is_a_line_of_json_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*others: object, **more: object) -> None:
        logging.getLogger("robustbench_lite.engines").warning("a worker was lost")
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "carry_out", stop)
    words = ["run", "--samples", "20", "--model", "linear", "--attack", "fgsm", "--threat", "linf:0.1"]
    done = CliRunner().invoke(main, [*words, "--progress", "json", "--out", str(tmp_path / "r")])
    assert done.exit_code == 130
    said = [json.loads(line).get("said") for line in done.stderr.splitlines()]
    assert "a worker was lost" in said
    assert said[-1] == f"stopped; go on with: robust run --resume --out {tmp_path / 'r'}"


def test_trackers_are_named_by_kind_and_place() -> None:
    for text in ("tensorboard", "tensorboard:", "nobody:here", ""):
        with pytest.raises(InvalidParameter, match="tensorboard:FOLDER"):
            logger(text)


def test_without_its_package_a_tracker_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(RobustError, match="pip install wandb"):
        logger("wandb:project")


def test_tensorboard_reads_what_a_run_found(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = rb.run(config=CONFIG, observers=[logger(f"tensorboard:{tmp_path}")])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert len(events.Scalars("job/seconds")) == 4
    for name, value in measures(result).items():
        assert events.Scalars(name)[-1].value == pytest.approx(value), name
    assert measures(result)["robust/linear/linf:0.1/untargeted"] <= measures(result)["clean/linear"]


def test_mlflow_keeps_what_a_run_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    observer = logger(f"mlflow:{tmp_path}")
    result = rb.run(config=CONFIG, observers=[observer])
    run = observer.client.get_run(observer.run)  # type: ignore[attr-defined]
    assert run.info.status == "FINISHED"
    assert set(measures(result).values()) <= set(run.data.metrics.values())


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_the_first_interrupt_ends_what_is_under_way_and_the_second_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    kept = engine.carry_out
    begun: list[str] = []

    def slow(work: object, *more: object) -> object:
        begun.append(str(work))
        os.kill(os.getpid(), signal.SIGINT)
        if len(begun) > 1:
            os.kill(os.getpid(), signal.SIGINT)
        return kept(work, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "carry_out", slow)
    try:
        folder = rb.Folder.create(tmp_path / "r")
        with pytest.raises(KeyboardInterrupt):
            rb.run(config=CONFIG, out=folder)
        assert len(begun) == 1
        assert len(folder.shards()) == 1, "what was under way is written"
        with pytest.raises(KeyboardInterrupt):
            rb.run(config=CONFIG, out=rb.Folder.create(tmp_path / "r", resume=True))
        assert len(begun) == 2
        assert len(folder.shards()) == 1, "the second stops at once"
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.setattr(engine, "carry_out", kept)
    assert len(rb.run(config=CONFIG, out=rb.Folder.create(tmp_path / "r", resume=True)).records) == 160


def test_no_job_is_begun_after_a_while_and_what_is_there_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = engine.carry_out

    def slow(work: object, *more: object) -> object:
        time.sleep(0.7)
        return kept(work, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "carry_out", slow)
    words = ["--samples", "40", "--threat", "linf:0.1"]
    for flag, values in (("--model", CONFIG.models), ("--attack", CONFIG.attacks)):
        words += [word for value in values for word in (flag, value)]
    out = tmp_path / "r"
    stopped = CliRunner().invoke(main, ["run", *words, "--stop-after", "0.5", "--out", str(out)])
    assert stopped.exit_code == 1, stopped.output
    assert "stopped with 3 jobs to go" in stopped.stdout
    assert f"go on with: robust run --resume --out {out}" in stopped.stderr
    assert (out / "report.html").is_file()
    assert len(rb.Results.open(out).missing) == 3
    short = rb.run(config=CONFIG.model_copy(update={"stop_after": 0.5}))
    assert len(short.missing) == 3
    assert not short.finished
    resumed = CliRunner().invoke(main, ["run", "--resume", "--stop-after", "60", "--out", str(out)])
    assert resumed.exit_code == 0, resumed.output
    assert len(rb.Results.open(out).records) == 160


def test_no_signal_is_touched_outside_the_main_thread() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(len(rb.run(config=CONFIG).records)))
    thread.start()
    while thread.is_alive():
        time.sleep(0.05)
    assert found == [160]


def test_a_warning_that_cannot_be_written_stops_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """Under `--progress json 2>&1 | head -1`, say: whoever reads has gone."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with observing("json") as bar:
        assert isinstance(bar, JsonLines)
        bar.stream = Gone()
        all_of(bar).went_on("anything", 1.0)
        all_of(bar).went_on("anything", 1.0)


def test_the_cause_of_a_warning_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    with observing("json"):
        try:
            raise ValueError("the cause")
        except ValueError:
            logging.getLogger("robustbench_lite.runs").exception("no report")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["said"].startswith("no report")
    assert "the cause" in json.loads(line)["said"]
