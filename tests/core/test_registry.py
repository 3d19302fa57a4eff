"""Names: one grammar, checked parameters, third parties by entry points."""

import re
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

from robustbench_lite.attacks import ATTACKS
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core import registry
from robustbench_lite.core.errors import InvalidParameter, RobustError, UnknownName
from robustbench_lite.core.names import Name, parse_name
from robustbench_lite.core.parameters import parse_number
from robustbench_lite.core.registry import arguments, build, entries, load, look_up
from robustbench_lite.threats.named import parse_threat


def test_the_grammar_of_names() -> None:
    assert parse_name("pgd") == Name("pgd", "pgd")
    assert parse_name(" pgd:steps=3, size=8/255 ").parameters == {"steps": "3", "size": "8/255"}
    assert parse_name("pgd(steps=3)").parameters == {"steps": "3"}
    assert parse_name("linf:8/255").first == "8/255"
    assert parse_name("rotation:15,shift=0.1") == Name(
        "rotation:15,shift=0.1", "rotation", (), {"shift": "0.1"}, "15"
    )
    for wrong in ("", "pgd:", "pgd:a=1,b", "pgd:a=1,a=2", "pgd(a", "pgd(a))", "a(b,c(d)"):
        with pytest.raises(InvalidParameter):
            parse_name(wrong)
    for wrong in ("pgd:steps", "pgd:=3", "pgd:a b=1"):
        with pytest.raises((InvalidParameter, UnknownName)):
            get_attack(wrong)


def test_names_in_brackets_are_names_again() -> None:
    def own(head: str) -> list[str]:
        return {"transformed": ["rotation", "noise"], "jpeg": ["quality"]}.get(head, [])

    both = parse_name("ensemble(svm:most=500,knn)", own)
    assert [one.text for one in both.inner] == ["svm:most=500", "knn"]
    assert both.inner[0].parameters == {"most": "500"}
    turned = parse_name("transformed(nets:lenet5,rotation=15)", own)
    assert (turned.inner[0].text, turned.parameters) == ("nets:lenet5", {"rotation": "15"})
    deep = parse_name("jpeg(transformed(weights:a.pt,network=m:f,noise=0.1),quality=75)", own)
    (inner,) = deep.inner
    assert deep.parameters == {"quality": "75"}
    assert inner.parameters == {"noise": "0.1"}
    assert inner.inner[0].text == "weights:a.pt,network=m:f"


def test_numbers_as_people_write_them() -> None:
    assert parse_number("8/255") == 8 / 255
    assert parse_number("1e-3") == 0.001
    for wrong in ("", "x", "1/0", "1/2/3"):
        with pytest.raises(InvalidParameter):
            parse_number(wrong)


@dataclass(frozen=True)
class Thing:
    steps: int = 1
    size: float | None = None
    loud: bool = False
    loss: str = "ce"


def test_parameters_are_checked_against_their_fields() -> None:
    text = {"steps": "4", "size": "1/4", "loud": "yes", "loss": "dlr"}
    assert build(Thing, text) == Thing(4, 0.25, True, "dlr")
    assert build(Thing, {"size": 2, "loud": True}) == Thing(size=2.0, loud=True)
    assert build(Thing, {"size": "none"}) == Thing()
    for key, value in {"steps": "4.5", "size": "big", "loud": "maybe", "loss": 3}.items():
        with pytest.raises(InvalidParameter, match=key):
            build(Thing, {key: value})
    with pytest.raises(InvalidParameter, match="steps = True: must be a whole number"):
        build(Thing, {"steps": True})
    with pytest.raises(UnknownName, match="did you mean steps"):
        build(Thing, {"step": 3})


def test_arguments_of_functions_are_checked_too() -> None:
    def source(options: object, path: str, size: int | None = None) -> None: ...

    assert arguments(source, {"path": "a", "size": "3"}, skip=1) == {"path": "a", "size": 3}
    with pytest.raises(InvalidParameter, match="path = None: must be given"):
        arguments(source, {}, skip=1)


def test_what_a_name_stands_for_must_be_importable() -> None:
    assert load("dataclasses:dataclass", "thing") is dataclass
    for wrong, message in (("nothing", "package.module:name"), ("no_such:x", "cannot be imported"),
                           ("dataclasses:x", "cannot be imported")):  # fmt: skip
        with pytest.raises(RobustError, match=message):
            load(wrong, "thing")


def test_third_parties_add_theirs_but_take_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "robustbench_lite.attacks"
    points = [
        EntryPoint("theirs", "robustbench_lite.attacks.noise:Noise", group),
        EntryPoint("fgsm", "evil:FGSM", group),
    ]
    monkeypatch.setattr(registry, "installed", lambda kind: points)
    known = entries("attacks")
    assert known["theirs"].summary == "from robustbench_lite.attacks.noise"
    assert known["fgsm"] == ATTACKS["fgsm"]
    assert get_attack("theirs:steps=2") == get_attack("noise:steps=2")
    with pytest.raises(UnknownName, match="unknown attack 'their'; did you mean theirs"):
        look_up("attacks", "their")


def test_threats_models_and_certifiers_come_from_packages_too(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "robustbench_lite.threats"
    point = EntryPoint("loo", "robustbench_lite.threats.ball:linf", group)
    monkeypatch.setattr(registry, "installed", lambda kind: [point] if kind == "threats" else [])
    assert entries("threats")["loo"].summary == "from robustbench_lite.threats.ball"
    assert parse_threat("loo:eps=0.25") == parse_threat("linf:0.25")


def test_ranges_are_declared_and_told() -> None:
    for text, said in (
        ("pgd:steps=0", "steps = 0: must be at least 1"),
        ("ddn:gamma=1", "gamma = 1.0: must be between 0 and 1"),
        ("square:area=0", "area = 0.0: must be in (0, 1]"),
        ("pgd:loss=nonsense", "loss = 'nonsense': must be one of ce, dlr, margin"),
        ("one_pixel:population=3", "population = 3: must be at least 4"),
        ("pgd:step_size=-1", "step_size = -1.0: must be above 0"),
        ("pgd:random_start=maybe", "random_start = 'maybe': must be true or false"),
    ):
        with pytest.raises(InvalidParameter, match=f"^{re.escape(said)}"):
            get_attack(text)
