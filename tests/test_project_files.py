"""The files that a newcomer's first two commands depend on."""

import os
import platform
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from infra.extras import PARTS

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
    wanted = [*project["dependencies"], *(name for names in extras.values() for name in names)]
    names = {canonical(match.group()) for requirement in wanted if (match := NAME.match(requirement))}
    assert names - {"matchloop"} <= {canonical(name) for name in locked()}


def test_all_is_what_the_commands_need() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["all"] == [f"matchloop[{','.join(PARTS)}]"]


@pytest.mark.parametrize(
    ("index", "reachable", "installs", "configured", "from_cpu_index"),
    [
        ("public", True, True, "", True),
        ("out of reach", False, True, "", False),
        ("without this version", True, False, "", True),
        ("a mirror in a file", True, True, "global.index-url='https://mirror.example/simple'", False),
        ("a mirror in the environment", True, True, ":env:.index-url='https://mirror.example/simple'", False),
        ("none", True, True, "global.no-index='true'", False),
        ("one more than the public one", True, True, "global.extra-index-url='https://more.example/simple'", True),
    ],
)
@pytest.mark.skipif(platform.system() != "Linux", reason="elsewhere PyPI has the CPU build")
def test_the_installation_prefers_the_cpu_build_of_torch_and_never_depends_on_it(
    tmp_path: Path, index: str, reachable: bool, installs: bool, configured: str, from_cpu_index: bool
) -> None:
    """With a make-believe Python that notes what pip is asked for."""
    (tmp_path / "infra").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("infra/install.sh", "infra/constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f"*urlopen*) exit {0 if reachable else 1};;\n"
        f"*'pip config list'*) echo \"{configured}\";;\n"
        f'*"--index-url"*) echo "$*" >>asked; exit {0 if installs else 1};;\n'
        '*"pip install"*) echo "$*" >>asked;;\n'
        "esac\n"
    )
    python.chmod(0o755)
    done = subprocess.run(
        ["sh", str(tmp_path / "infra" / "install.sh")], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *first, last = (tmp_path / "asked").read_text().splitlines()
    assert ".[all,dev] -c infra/constraints.txt" in last
    assert "index-url" not in last
    assert [f"torch=={locked()['torch']}" in line and "--no-deps" in line for line in first] == [True] * from_cpu_index


@pytest.mark.parametrize(
    ("installed", "told", "found", "said"),
    [
        (True, True, 0, "asked"),
        (True, True, 1, "asked"),
        (True, False, 0, "does not say"),
        (False, True, 0, "not installed"),
    ],
)
def test_the_audit_fails_by_what_is_known_and_by_nothing_else(
    tmp_path: Path, installed: bool, told: bool, found: int, said: str
) -> None:
    """With a make-believe Python."""
    (tmp_path / "infra").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "infra" / "audit.sh", tmp_path / "infra")
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        f"*'import pip_audit'*) exit {0 if installed else 1};;\n"
        f"*urlopen*) exit {0 if told else 1};;\n"
        f"*'-m pip_audit'*) echo asked; exit {found};;\n"
        "esac\n"
    )
    python.chmod(0o755)
    done = subprocess.run(["sh", str(tmp_path / "infra" / "audit.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == found
    assert said in done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_lists_its_targets_from_any_directory(tmp_path: Path) -> None:
    done = subprocess.run(["make", "-s", "-C", ROOT], capture_output=True, text=True, cwd=tmp_path, check=True)
    for target in ("setup", "demo", "docs", "test", "fuzz", "check", "audit", "lock", "clean", "help"):
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
