"""The wheel holds every Python file that git holds, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def tracked() -> set[str]:
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("not a git checkout")
    names = set()
    for name in found.stdout.split():
        top = name.partition("/")[0]
        if not name.endswith(".py") or top == "tests":
            continue
        names.add(name if top == "robustbench_lite" else f"robustbench_lite/{name}")
    return names


@pytest.mark.slow
def test_the_wheel_holds_what_git_holds(tmp_path: Path) -> None:
    expected = tracked()
    # Built from a copy, so that tests running beside this one see no build folder.
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    committed = subprocess.run(
        ["git", "ls-files", "-m"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {n for n in names if n.endswith(".py")} == expected or committed.stdout
    assert "robustbench_lite/py.typed" in names
    assert any(n.endswith("licenses/LICENSE") for n in names)
