"""What each part of the product may import, and what is said when it is not installed."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

from infra.extras import PARTS, remedy

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = importlib.metadata.packages_distributions()
# Imported by us, asked for by those who bring them.
BROUGHT = {
    "starlette": "fastapi",
    "uvloop": "uvicorn",
    "httptools": "uvicorn",
    "pydantic_core": "pydantic",
    "annotated_types": "pydantic",
    "hiredis": "redis",
    "botocore": "boto3",
}


def names(requirements: list[str]) -> set[str]:
    """The distributions that requirements name."""
    found = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {canonical(match.group()) for match in found if match}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# What a file of ours imports that runs in somebody else's process.
ELSEWHERE = {"airflow"}

BASE = names(PROJECT["dependencies"])
EXTRAS = {part: names(PROJECT["optional-dependencies"][part]) for part in PARTS}


def imported(room: str) -> dict[str, str]:
    """Modules of other people that a room imports, and the distributions they come from."""
    modules: set[str] = set()
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    known = sys.stdlib_module_names | ELSEWHERE
    foreign = {m for m in modules if m not in known and not (ROOT / m).is_dir()}
    return {m: BROUGHT.get(m) or _distribution(m) for m in foreign}


def _distribution(module: str) -> str:
    """The one that is called like the module where several put something into it."""
    found = sorted({canonical(name) for name in DISTRIBUTIONS[module]})
    return canonical(module) if canonical(module) in found else found[0]


@pytest.mark.parametrize(
    ("room", "parts"),
    [
        ("feature_store", ("s3",)),
        ("streaming", ()),
        ("online_serving", ("serve",)),
        ("offline_training", ("train",)),
        ("infra", PARTS),
    ],
)
def test_a_room_imports_what_its_extras_bring(room: str, parts: tuple[str, ...]) -> None:
    allowed = BASE.union(*(EXTRAS[part] for part in parts))
    assert {m: d for m, d in imported(room).items() if d not in allowed} == {}


def test_what_is_missing_is_explained_by_the_extra_that_brings_it() -> None:
    modules = {m: d for room in ("online_serving", "offline_training", "infra") for m, d in imported(room).items()}
    for module, distribution in modules.items():
        bringing = [part for part in PARTS if distribution in EXTRAS[part]]
        if distribution in BASE:
            assert remedy(module) is None
        else:
            said = remedy(f"{module}.inner")
            assert said is not None, module
            assert any(f"'matchloop[{part}]'" in said for part in bringing), module
    assert remedy("faiss") == (
        "faiss is not installed: this needs the extra serve or train. "
        "Install 'matchloop[serve]' or 'matchloop[train]', or 'matchloop[all]'."
    )
    assert remedy("nonsense") is None
    assert remedy(None) is None
