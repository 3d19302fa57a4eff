"""The command `robust`: knows click only; everything else is imported when a command runs."""

from __future__ import annotations

import sys

import click

from robustbench_lite import __version__
from robustbench_lite.cli import judge, lists, reports, run
from robustbench_lite.core.errors import RobustError


class Commands(click.Group):
    """Prints an error the user can put right as one line, and exits with status 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except RobustError as error:
            click.echo(f"robust: {error}", err=True)
            sys.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="robust")
def main() -> None:
    """How robust is your classifier, and how far can you trust that number?

    `robust run` with nothing else attacks small models on real digits.
    """


for _command in (
    run.run, lists.list_, lists.info, run.diagnose, lists.demo, judge.judge, reports.report, reports.show,
    reports.serve, reports.leaderboard,
):  # fmt: skip
    main.add_command(_command)
