"""Attacks by name."""

from __future__ import annotations

from collections.abc import Mapping

from robustbench_lite.attacks import ATTACKS
from robustbench_lite.core.errors import RobustError
from robustbench_lite.core.registry import build, load, look_up
from robustbench_lite.core.text import parse_name
from robustbench_lite.search.attack import Attack


def get_attack(attack: str | Attack, parameters: Mapping[str, object] | None = None) -> Attack:
    """An attack by name, such as `iterative:steps=10`, with more parameters; an `Attack` as it is."""
    if isinstance(attack, Attack):
        return attack
    name, given = parse_name(attack)
    cls = load(look_up("attacks", ATTACKS, name).where, "attack")
    if not isinstance(cls, type) or not issubclass(cls, Attack):
        raise RobustError(f"attack {name!r}: {cls!r} is not a class of attacks")
    return build(cls, {**given, **(parameters or {})})
