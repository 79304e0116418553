"""The files that a newcomer's first two commands depend on."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = re.compile(r"[A-Za-z0-9._-]+")


def locked() -> dict[str, str]:
    lines = (ROOT / "infra" / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_lock_has_plain_public_versions_only() -> None:
    text = (ROOT / "infra" / "constraints.txt").read_text()
    assert "://" not in text
    assert "@" not in text
    for name, version in locked().items():
        assert NAME.fullmatch(name)
        assert "+" not in version, f"{name} has a local version, which not every index offers"


def test_everything_the_project_asks_for_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["bench"]]
    names = {canonical(match.group()) for requirement in wanted if (match := NAME.match(requirement))}
    assert names <= {canonical(name) for name in locked()}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_lists_its_targets_from_any_directory(tmp_path: Path) -> None:
    done = subprocess.run(["make", "-s", "-C", ROOT], capture_output=True, text=True, cwd=tmp_path, check=True)
    for target in ("setup", "demo", "test", "check", "lock", "clean", "help"):
        assert re.search(rf"^  {target} +\w", done.stdout, re.MULTILINE)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_setup_is_repeated_when_its_inputs_change(tmp_path: Path) -> None:
    """In a copy with a make-believe installer: made once, not again, again after a change and after a move."""
    copy = tmp_path / "a clone"
    (copy / "infra").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "infra/constraints.txt"):
        shutil.copy(ROOT / name, copy / name)
    (copy / "infra" / "install.sh").write_text("mkdir -p .venv\necho installing\n")

    def setup(directory: Path) -> str:
        command = ["make", "-s", "-C", str(directory), "setup"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "installing" in setup(copy)
    assert "installing" not in setup(copy)
    newer = (copy / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(copy / "pyproject.toml", (newer, newer))
    assert "installing" in setup(copy)
    os.utime(copy / ".venv" / ".installed", (newer + 10, newer + 10))
    assert "installing" not in setup(copy)
    assert "installing" in setup(copy.rename(tmp_path / "moved"))


def test_without_a_suitable_python_setup_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "infra" / "install.sh", tmp_path / "infra")
    old = tmp_path / "bin" / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.1 || exit 1\n')
    old.chmod(0o755)
    tools = {name: shutil.which(name) for name in ("sh", "dirname")}
    for name, path in tools.items():
        assert path is not None
        (tmp_path / "bin" / name).symlink_to(path)
    done = subprocess.run(
        [str(tools["sh"]), str(tmp_path / "infra" / "install.sh")],
        capture_output=True, text=True, env={"PATH": str(tmp_path / "bin")}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "needs Python 3.11 or newer; found Python 3.8.1" in done.stderr
    assert "make setup PYTHON=" in done.stderr
