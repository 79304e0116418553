"""The rules that keep the rooms apart, read from the source itself."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Imports go to the left only. What stands in `benchmarks` is no part of an installation.
FLOORS = ("feature_store", "streaming", "online_serving", "offline_training", "infra", "benchmarks")
PURE = ("streaming/bandit", "online_serving/pipeline")
INPUT_AND_OUTPUT = {"kafka", "redis", "pyspark", "torch", "fastapi"}
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LONGEST_MODULE = 400

SOURCES = [path for room in FLOORS for path in sorted((ROOT / room).rglob("*.py"))]
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md"]


def modules(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def packages(path: Path) -> set[str]:
    return {module.partition(".")[0] for module in modules(path)}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_is_something_to_look_at() -> None:
    assert {name_of(path).partition("/")[0] for path in SOURCES} == set(FLOORS)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    above = packages(path) & {*FLOORS[floor + 1 :], "tests"}
    assert not above, f"{name_of(path)} imports {sorted(above)} from a floor above its own"


@pytest.mark.parametrize("room", PURE)
def test_the_maths_of_a_request_talks_to_nobody(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert len(files) > 1
    for path in files:
        assert not packages(path) & INPUT_AND_OUTPUT, name_of(path)
        for module in modules(path):  # nor through another module of ours
            ours = ROOT / f"{module.replace('.', '/')}.py"
            if ours.is_file():
                assert not packages(ours) & INPUT_AND_OUTPUT, f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=name_of)
def test_importing_a_package_imports_nothing_else(path: Path) -> None:
    assert path.read_text() == ""


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in SOURCES}
    assert not [name_of(folder) for folder in folders if not (folder / "__init__.py").is_file()]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_unpickled(path: Path) -> None:
    assert not packages(path) & UNSAFE
    assert "allow_pickle=True" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_modules_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.is_file()], ids=name_of)
def test_documents_name_what_exists(document: Path) -> None:
    """`path/file.py::name` or `path/file.py::Class.name` is defined there; a path in backticks is there."""
    text = document.read_text(encoding="utf-8")
    for file, name in re.findall(r"`([\w/.-]+\.py)::([\w.]+)`", text):
        assert (ROOT / file).is_file(), f"{document.name} names {file}, which is not there"
        assert name in definitions(ROOT / file), f"{document.name} names {name}, which {file} does not define"
    for path in re.findall(
        r"`((?:feature_store|streaming|online_serving|offline_training|infra|benchmarks|tests)/[\w/.-]*)`", text
    ):
        assert (ROOT / path).exists(), f"{document.name} names {path}, which is not there"


def definitions(path: Path) -> set[str]:
    """Functions, classes and methods (as Class.method) of a module."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            members = (m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef))
            found.update(f"{node.name}.{member.name}" for member in members)
    return found
