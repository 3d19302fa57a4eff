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
    # Built from a copy of what git tracks, so that tests running beside this one see no build folder.
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    source = tmp_path / "source"
    for name in names:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to((ROOT / name).readlink())
        elif (ROOT / name).exists():
            target.write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--outdir", str(tmp_path / "dist"), str(source)]
    subprocess.run(build, check=True, capture_output=True)  # the wheel is built from the source archive
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        held = set(opened.namelist())
    assert {name for name in held if name.endswith(".py")} == expected
    assert "robustbench_lite/py.typed" in held
    assert any(name.endswith("licenses/LICENSE") for name in held)
