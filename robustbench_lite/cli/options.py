"""Options made from the settings of a search: each is declared once, in `core.settings`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import Field, fields
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import click

from robustbench_lite.core.parameters import hints_of
from robustbench_lite.core.settings import Search

Command = TypeVar("Command", bound=Callable[..., Any])
CHOSEN = "robustbench_lite.settings"  # where click's context keeps what was set


def with_settings(only: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command an option for every setting of a search, or for some; `chosen` tells what was set."""

    def give(command: Command) -> Command:
        hints = hints_of(Search)
        for setting in reversed(fields(Search)):
            if not only or setting.name in only:
                command = _option(setting, hints[setting.name])(command)
        return command

    return give


def chosen(ctx: click.Context) -> dict[str, object]:
    """The settings that were given on the command line, by name."""
    return dict(ctx.meta.get(CHOSEN, {}))


def _option(setting: Field[Any], hint: object) -> Callable[[Command], Command]:
    kinds = _plain(hint)
    flag = f"--{setting.name.replace('_', '-')}"
    usual = "" if setting.default is None or setting.default is False else f"  [default: {setting.default}]"
    facts: dict[str, Any] = {
        "default": None,
        "expose_value": False,
        "callback": _keep,
        "help": setting.metadata["help"] + usual,
    }
    if bool in kinds:
        negated = f"{flag}/--no-{flag[2:]}" if type(None) in kinds else flag
        return click.option(negated, is_flag=True, **facts)
    listed = next((kind for kind in kinds if isinstance(kind, tuple)), None)
    typed = click.Choice(listed) if listed else next(k for k in kinds if k in (int, float, str))
    return click.option(flag, type=typed, **facts)


def _keep(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    if value is not None:
        ctx.meta.setdefault(CHOSEN, {})[parameter.name] = value


def _plain(hint: object) -> list[Any]:
    """The types in a hint, without their ranges; a list of values as a tuple."""
    if get_origin(hint) is Annotated:
        return _plain(get_args(hint)[0])
    if get_origin(hint) is Literal:
        return [get_args(hint)]
    return [kind for part in get_args(hint) for kind in _plain(part)] or [hint]
