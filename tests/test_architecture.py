"""The floors: imports go down only; the judge stands alone; reports know no torch; names start no torch."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "robustbench_lite"
FLOORS = {
    "core": 0,
    "data": 1,
    "threats": 1,
    "records": 1,
    "models": 2,
    "certify": 3,
    "search": 3,
    "attacks": 4,
    "defenses": 5,
    "judging": 5,
    "reports": 5,
    "jobs": 6,
    "engines": 7,
    "runs": 8,
    "api": 9,
    "demo": 9,
    "diagnosis": 9,
    "testing": 9,
    "cli": 10,
}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module's dotted name below the package, and its file."""
    for home in (ROOT / PACKAGE, *(ROOT / name for name in ("attacks", "defenses", "reports"))):
        prefix = [] if home.name == PACKAGE else [home.name]
        for file in sorted(home.rglob("*.py")):
            parts = file.relative_to(home).with_suffix("").parts
            if home.name == PACKAGE and parts[0] in ("attacks", "defenses", "reports"):
                continue  # the links
            yield ".".join([*prefix, *(p for p in parts if p != "__init__")]), file


def imports(file: Path, late: bool = True) -> set[str]:
    """What a file imports; without `late`, only what importing it imports."""
    tree = ast.parse(file.read_text())
    nodes = ast.walk(tree) if late else iter(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module or "")
    return found


ALL = dict(modules())


def test_every_room_has_a_floor() -> None:
    assert {name.partition(".")[0] for name in ALL if name} == set(FLOORS)


@pytest.mark.parametrize("name", [name for name in ALL if name])
def test_imports_go_down_only(name: str) -> None:
    floor = FLOORS[name.partition(".")[0]]
    for found in imports(ALL[name]):
        if found.startswith(f"{PACKAGE}."):
            room = found.split(".")[1]
            assert FLOORS[room] <= floor, f"{name} imports {found}"


def test_the_judge_knows_neither_problem_nor_driver() -> None:
    found = imports(ALL["judge"])
    assert not {f for f in found if "problem" in f or ".attacks" in f or "ledger" in f}


def test_reports_know_no_torch() -> None:
    for name, file in ALL.items():
        if name.startswith("reports"):
            found = imports(file)
            known = {f"{PACKAGE}.records", f"{PACKAGE}.core.errors"}
            assert not {
                f
                for f in found - known
                if f.startswith("torch") or (f.startswith(f"{PACKAGE}.") and "reports" not in f)
            }
    code = f"import sys, {PACKAGE}.reports.page; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_attacks_and_defenses_do_not_know_each_other() -> None:
    for name, file in ALL.items():
        for mine, other in (("attacks", "defenses"), ("defenses", "attacks"), ("data", "models")):
            if name.startswith(mine):
                assert not {f for f in imports(file) if f.startswith(f"{PACKAGE}.{other}")}, name


def test_attack_files_know_no_other_attack_but_through_the_base() -> None:
    """An attack's reader needs its own file and core/problem.py."""
    for name, file in ALL.items():
        if name.startswith("attacks.") and name not in ("attacks.attack", "attacks.driver"):
            assert f"{PACKAGE}.attacks.driver" not in imports(file)


@pytest.mark.parametrize(
    "code",
    [
        "import robustbench_lite.cli.main",
        "import robustbench_lite",
        "from robustbench_lite.cli.main import main; main(['--help'], standalone_mode=False)",
        "from robustbench_lite.cli.main import main; main(['list', 'attacks'], standalone_mode=False)",
        "from robustbench_lite.cli.main import main; main(['list', 'models'], standalone_mode=False)",
        "from robustbench_lite.cli.main import main; main(['list', 'data'], standalone_mode=False)",
    ],
)
def test_names_and_help_start_no_torch(code: str) -> None:
    heavy = "torch numpy pandas scipy sklearn pydantic rich matplotlib"
    check = f"{code}\nimport sys\nprint([m for m in {heavy.split()} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]", done.stdout


def test_files_stay_short() -> None:
    for name, file in ALL.items():
        lines = len(file.read_text().splitlines())
        assert lines <= (150 if name.startswith("attacks.") and name.count(".") == 1 and name not in
                         ("attacks.attack", "attacks.driver") else 350), f"{name}: {lines} lines"  # fmt: skip
