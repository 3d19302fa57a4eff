"""Attacks by name."""

from __future__ import annotations

from robustbench_lite.core.errors import InvalidParameter, RobustError
from robustbench_lite.core.registry import build, given, load, look_up, read_name
from robustbench_lite.search.attack import AnyAttack, Attack


def get_attack(attack: str | AnyAttack | type[AnyAttack]) -> AnyAttack:
    """An attack by name.

    Parameters
    ----------
    attack : str, Attack or class of attacks
        Such as `iterative:steps=10` or `curve(apgd:steps=20,rounds=5)`; an `Attack` stays what it is.

    Raises
    ------
    UnknownName, InvalidParameter

    Examples
    --------
    >>> get_attack("pgd:steps=3,restarts=2").restarts
    2
    """
    if isinstance(attack, type) and issubclass(attack, Attack):
        return attack()
    if isinstance(attack, Attack):
        return attack
    if not isinstance(attack, str):
        raise InvalidParameter("attack", attack, "a name such as 'pgd:steps=20', or an Attack")
    name = read_name("attacks", attack)
    entry = look_up("attacks", name.head)
    cls = load(entry.where, "attack")
    if not isinstance(cls, type) or not issubclass(cls, Attack):
        raise RobustError(f"attack {name.head!r}: {cls!r} is not a class of attacks")
    values = given(entry, name)
    if name.inner:
        values["attack"] = name.inner[0].text
    return build(cls, values)
