"""What documents name is there. `make docs`, which builds the site, finds broken links, too; this needs no MkDocs."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel

from infra.cli import app
from infra.connect import read_connection
from infra.experiment_file import read_plan
from infra.settings import Settings, load
from offline_training.replay.candidate import CandidateFile
from online_serving.schemas import (
    EventsRequest,
    FeedbackRequest,
    ItemBody,
    MergeBody,
    RecommendationRequest,
    RecommendationsRequest,
    UserBody,
)

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# By docs/reference.py.
MADE = {f"reference/{name}.md" for name in ("commands", "settings", "api", "metrics", "deploying")}
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [*PAGES, *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"))]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# As code, or as a line of a code block.
COMMAND = re.compile(r"(?:`|^ {4,}(?:\.venv/bin/)?|\$ )matchloop ([^`\n#]+)", re.MULTILINE)

# The data of a call by curl.
REQUEST = re.compile(r"localhost:8080(/v1/[^\s']*)[^\n]* -d '(.*?)'")
BODIES: dict[str, type[BaseModel]] = {
    "/v1/recommendations": RecommendationRequest,
    "/v1/recommendations:batch": RecommendationsRequest,
    "/v1/feedback": FeedbackRequest,
    "/v1/events": EventsRequest,
    "/v1/items/": ItemBody,
    "/v1/users/": UserBody,
    "/v1/users/:merge": MergeBody,
}
TOML = re.compile(r"```toml\n(.*?)```", re.DOTALL)


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
            continue
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_requests_are_what_the_api_takes(document: Path) -> None:
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    for route, body in REQUEST.findall(text):
        model = BODIES[re.sub(r"(/v1/(?:items|users)/)[^:]*", r"\1", route)]
        # A cursor is long and says nothing to people.
        model.model_validate({name: value for name, value in json.loads(body).items() if name != "cursor"})


def test_files_are_what_is_read(tmp_path: Path) -> None:
    found = [block for page in PAGES for block in TOML.findall(page.read_text(encoding="utf-8"))]
    assert len(found) > 4
    for block in found:
        (tmp_path / "file.toml").write_text(block)
        values = tomllib.loads(block)
        if "variants" in values:
            read_plan(tmp_path / "file.toml")
        elif "topic" in values:
            read_connection(tmp_path / "file.toml", Settings())
        elif "name" in values:
            CandidateFile.model_validate(values)
        else:
            load(tmp_path / "file.toml")


def anchors(path: Path) -> set[str]:
    """Of the headings, as MkDocs makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}
