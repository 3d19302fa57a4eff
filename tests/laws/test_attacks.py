"""The laws that every registered attack obeys, under every threat it claims; installed packages' too."""

from dataclasses import fields

import pytest

from robustbench_lite.attacks import ATTACKS
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.errors import InvalidParameter, UnknownName
from robustbench_lite.core.parameters import hints_of
from robustbench_lite.core.registry import entries, signature
from robustbench_lite.search.attack import defaults
from robustbench_lite.testing import Check, attack_checks
from tests.conftest import attack_class, hold, short, together

CHECKS = [check for name in entries("attacks") for check in attack_checks(short(name))]
names = pytest.mark.parametrize("name", list(ATTACKS))


@pytest.mark.parametrize(("what", "checks"), together(CHECKS))
def test_laws(what: str, checks: list[Check]) -> None:
    hold(checks)


@names
def test_the_table_tells_the_truth_about_the_class(name: str) -> None:
    cls, entry = attack_class(name), ATTACKS[name]
    assert (entry.name, cls.name) == (name, name)
    assert entry.access == cls.access.name.lower()
    assert entry.norms == " ".join(sorted(cls.norms))
    assert entry.paper == cls.paper
    assert cls.__doc__
    assert entry.summary


@names
def test_what_is_read_from_the_source_is_what_the_class_has(name: str) -> None:
    hints = hints_of(attack_class(name))
    assert signature(ATTACKS[name]) == {f.name: hints[f.name] for f in fields(attack_class(name))}


@names
def test_parameters_are_frozen_and_checked(name: str) -> None:
    attack = get_attack(name)
    assert attack_class(name)(**defaults(attack_class(name))) == attack
    with pytest.raises(UnknownName, match="nonsense"):
        get_attack(f"{name}:nonsense=1")
    for field in fields(attack):
        with pytest.raises(AttributeError):
            setattr(attack, field.name, 1)
        if field.name == "attack" or "bool" in str(field.type):
            continue
        with pytest.raises(InvalidParameter, match=field.name):
            get_attack(f"{name}:{field.name}=many")
        with pytest.raises(InvalidParameter, match=field.name):
            get_attack(f"{name}:{field.name}=-3")
