"""What documents name is there. `make docs`, which builds the site, finds broken links, too; this needs no MkDocs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from infra.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MADE = {f"reference/{page}.md" for page in ("commands", "settings", "api", "metrics")}  # by docs/reference.py
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [*PAGES, *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"))]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# As code, or as a line of a code block.
COMMAND = re.compile(r"(?:`|^ {4,}(?:\.venv/bin/)?|\$ )matchloop ([^`\n#]+)", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def pages_of(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        ((_, found),) = entry.items()
        yield from pages_of(found) if isinstance(found, list) else [found]


def test_the_navigation_has_every_page_once() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    written = {str(path.relative_to(DOCS)) for path in PAGES}
    assert sorted(pages_of(nav)) == sorted(written | MADE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        path = (document.parent / target).resolve() if target else document
        if path.is_relative_to(DOCS) and str(path.relative_to(DOCS)) in MADE:
            continue  # `make docs` knows what is in it
        assert path.exists(), f"{name_of(document)} links to {link}, which is not there"
        assert not anchor or anchor in anchors(path), f"{name_of(document)} links to {link}: no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_are_there(document: Path) -> None:
    for line in COMMAND.findall(document.read_text(encoding="utf-8")):
        command = typer.main.get_command(app)
        for word in line.split():
            if hasattr(command, "commands") and not word.startswith("-"):
                found = command.commands.get(word.strip(",.;:"))
                assert found is not None, f"{name_of(document)} says `matchloop {line}`: there is no {word}"
                command = found
            elif word.startswith("--"):
                options = {name for one in command.params for name in one.opts} | {"--help"}
                option = word.partition("=")[0].rstrip(",.;:")
                assert option in options, f"{name_of(document)} says `matchloop {line}`: it has no {option}"


def anchors(path: Path) -> set[str]:
    """Of the headings, as MkDocs makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}
