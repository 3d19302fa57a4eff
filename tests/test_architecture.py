"""The floors: imports go down only; the judge stands alone; reports know no torch; names start no torch."""

import ast
import os
import re
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
    "physical": 1,
    "records": 1,
    "models": 2,
    "attribution": 3,
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
    "progress": 9,
    "demo": 9,
    "diagnosis": 9,
    "testing": 9,
    "cli": 10,
    "faces": 10,
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
    for name in ("judging.judge", "judging.verdict"):
        found = imports(ALL[name])
        assert not {f for f in found if any(w in f for w in ("problem", ".attacks", "ledger", ".search"))}


def test_reports_know_no_torch() -> None:
    for name, file in ALL.items():
        if name.startswith("reports"):
            found = imports(file)
            known = {
                f"{PACKAGE}.{room}"
                for room in ("records.schema", "records.folder", "core.errors", "core.registry")
            }
            assert not {
                f
                for f in found - known
                if f.startswith("torch") or (f.startswith(f"{PACKAGE}.") and "reports" not in f)
            }
    pages = f"{PACKAGE}.reports.page.page, {PACKAGE}.reports.results"
    code = f"import sys, {pages}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_attacks_and_defenses_do_not_know_each_other() -> None:
    for name, file in ALL.items():
        for mine, other in (("attacks", "defenses"), ("defenses", "attacks"), ("data", "models")):
            if name.startswith(mine):
                assert not {f for f in imports(file) if f.startswith(f"{PACKAGE}.{other}")}, name


@pytest.mark.parametrize(
    "code",
    [
        "import robustbench_lite.cli.main",
        "import robustbench_lite",
        "from robustbench_lite.cli.main import main; main(['--help'], standalone_mode=False)",
        "from robustbench_lite.cli.main import main; main(['list', 'attacks'], standalone_mode=False)",
        "from robustbench_lite.cli.main import main; main(['list', 'models'], standalone_mode=False)",
        "from robustbench_lite.cli.main import main; main(['list', 'data'], standalone_mode=False)",
        "from robustbench_lite.cli.main import main; main(['list', 'threats'], standalone_mode=False)",
        "import robustbench_lite.core.settings",
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


def test_attacks_know_neither_driver_nor_judge_nor_models() -> None:
    """An attack holds mathematics: it may know the core, solvers, threats, the contract and other attacks."""
    allowed = ("core.", "certify.", "threats.", "search.attack", "attacks.")
    for name, file in ALL.items():
        if name.startswith("attacks"):
            own = {f.removeprefix(f"{PACKAGE}.") for f in imports(file) if f.startswith(f"{PACKAGE}.")}
            assert all(f.startswith(allowed) or f == "attacks" for f in own), f"{name}: {own}"


def test_only_registered_certifiers_make_bounds() -> None:
    for name, file in ALL.items():
        if not name.startswith("certify"):
            assert "Bounds(" not in file.read_text(), name


def functions(file: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef))


def test_functions_take_eight_parameters_at_most() -> None:
    for name, file in ALL.items():
        for one in functions(file):
            given = [a.arg for a in (*one.args.posonlyargs, *one.args.args, *one.args.kwonlyargs)]
            count = len([a for a in given if a not in ("self", "cls")])
            assert count <= 8, f"{name}.{one.name}: {count}"
            commands = ("cli.run", "cli.judge", "cli.bench")  # whose flags are many
            assert one.args.kwarg is None or name in commands, f"{name}.{one.name}"


def test_a_threat_knows_its_norm_and_nobody_asks_for_its_type() -> None:
    asks = re.compile(r"isinstance\([^)]*\b(Lp|Box|Affine)\b")
    for name, file in ALL.items():
        if not name.startswith("threats"):
            assert not asks.search(file.read_text()), name
        if name.startswith("reports"):
            assert '"threat"]).partition' not in file.read_text(), name
            assert 'endswith(":min")' not in file.read_text(), name


def test_predictions_are_made_in_one_place() -> None:
    for name, file in ALL.items():
        if name != "core.task":
            assert not re.search(r"scores?(\([^()]*\))?\.argmax\(1\)", file.read_text()), name


def test_settings_surrogate_one_place() -> None:
    """Adding one touches the dataclass and the code that obeys it."""
    from dataclasses import fields

    from robustbench_lite.core.settings import Search

    rare = {field.name for field in fields(Search)} - {"seed", "device", "compile", "precision"}
    for setting in rare:
        places = {name for name, file in ALL.items() if re.search(rf"\b{setting}: ", file.read_text())}
        mine = {n for n in places if n.split(".")[0] in ("cli", "api", "runs", "jobs")}
        assert not mine, f"{setting}: {mine}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('attacks = ["pgdd"]', "unknown attack 'pgdd'; did you mean pgd"),
        ('attacks = ["pgd:stepz=3"]', "unknown parameter of pgd 'stepz'; did you mean steps"),
        ('attacks = ["pgd:steps=0"]', "steps = 0: must be at least 1"),
        ('models = ["cnnn"]', "unknown model 'cnnn'"),
        ('threats = ["linf:x"]', "eps = 'x': must be a number"),
        ('goals = ["top:x"]', "goal = 'top:x'"),
        ("budget = -1", "budget = -1: must be at least 1"),
        ("samples = 0", "samples"),
        ('atacks = ["pgd"]', "atacks"),
        ('data = "digitz"', "did you mean digits"),
    ],
)
def test_a_fault_in_a_config_is_told_before_torch_starts(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(text)
    code = (
        "import sys\nfrom robustbench_lite.cli.main import main\n"
        f"try:\n    main(['run', {str(tmp_path / 'my.toml')!r}], standalone_mode=False)\n"
        "except SystemExit as end:\n    print(end.code)\n"
        "print([m for m in ('torch', 'pandas', 'numpy') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert said in done.stderr, done.stderr
    assert done.stdout.split() == ["2", "[]"]
