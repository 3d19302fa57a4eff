"""The command `robust`: knows click only; everything else is imported when a command runs."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import click

from robustbench_lite import __version__
from robustbench_lite.cli import bench, explain, judge, leaderboard, lists, paper, reports, run
from robustbench_lite.core.errors import RobustError

Handler = Callable[[int, FrameType | None], object] | int


class Commands(click.Group):
    """Prints an error the user can put right as one line, and exits with status 2."""

    def invoke(self, ctx: click.Context) -> object:
        for stream in (sys.stdout, sys.stderr):  # a sign that an encoding lacks is no reason to stop
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        stopped: list[int] = []
        before = _when_interrupted(stopped.append)
        try:
            return super().invoke(ctx)
        except RobustError as error:
            said, status = str(error), 2
        except OSError as error:
            what = error.filename or error
            said, status = f"{what}: {error.strerror}" if error.strerror else str(what), 2
        except KeyboardInterrupt:
            said, status = "stopped", 130
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                raise
            first = next(iter(str(error).splitlines()), "")
            said, status = f"{type(error).__name__}: {first} (robust --debug tells where)", 1
            if stopped:  # in the middle of an import, which then fails as it likes
                said, status = "stopped", 130
        finally:
            if before is not None:
                signal.signal(signal.SIGINT, before)
        click.echo(f"robust: {''.join(c if c.isprintable() else ' ' for c in said)}", err=True)
        sys.exit(status)


def _when_interrupted(note: Callable[[int], None]) -> Handler | None:
    """Note an interrupt, and go on with what it did before; None outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    before = signal.getsignal(signal.SIGINT)

    def noted(number: int, frame: FrameType | None) -> None:
        note(number)
        if _importing(frame):  # where an exception may be swallowed, and there is nothing to finish
            click.echo("robust: stopped", err=True)
            os._exit(130)
        if callable(before):
            before(number, frame)

    if callable(before):
        signal.signal(signal.SIGINT, noted)
    return before


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="robust")
@click.option("--debug", is_flag=True, help="Show where an unexpected error comes from.")
def main(debug: bool) -> None:
    """How robust is your classifier, and how far can you trust that number?

    `robust run` with nothing else attacks small models on real digits.
    """


for _command in (
    run.run, lists.list_, lists.info, run.diagnose, run.verify, lists.demo, judge.judge, reports.report,
    reports.show, reports.merge, reports.status, reports.serve, leaderboard.leaderboard, explain.explain,
    paper.print_, paper.photo, bench.bench, bench.plan,
):  # fmt: skip
    main.add_command(_command)
