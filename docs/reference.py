"""The reference pages, made when the site is built, from what they describe: no copy of them is kept.

A hook of MkDocs (`mkdocs.yml`), which calls `on_files`.
"""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import SecretStr

from feature_store.settings import RedisSettings
from infra import cli, manual
from infra.api_config import api_config
from infra.monitoring import metrics
from infra.settings import Settings
from online_serving.app import create_app
from online_serving.auth import OPEN, scopes_for
from streaming.settings import KafkaSettings


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made."""
    for uri, page in PAGES.items():
        files.append(File.generated(config, uri, content=page()))
    return files


def commands() -> str:
    """Every command with its options, as `--help` has them."""
    lines = ["# Commands", "", "`matchloop --help` lists them, and every one has `--help` of its own."]
    for name, command in _commands("matchloop", typer.main.get_command(cli.app)):
        lines += ["", f"## `{name}`", "", _text(command.help or "")]
        shown = [parameter for parameter in command.params if parameter.name != "help"]
        if shown:
            lines += ["", "| argument or option | meaning |", "|---|---|"]
            lines += [f"| `{_called(one)}` | {_cell(one.help or '')} |" for one in shown]
    return "\n".join(lines) + "\n"


def settings() -> str:
    """The settings file, a section to a heading."""
    about, *sections = manual.render().split("\n[")
    lines = ["# Settings", "", "```toml", about.strip(), "```"]
    for section in sections:
        name, _, body = section.partition("]\n")
        lines += ["", f"## `[{name}]`", "", "```toml", f"[{name}]", body.strip(), "```"]
    return "\n".join(lines) + "\n"


def api() -> str:
    """The routes, and the scope that a key needs for each."""
    schema = create_app(api_config(_anywhere())).openapi()
    lines = [
        "# HTTP API",
        "",
        "A running API shows bodies and answers in full at `/docs`, and as OpenAPI at `/openapi.json`. A key",
        "is sent as `Authorization: Bearer KEY`; one with the scope `admin` may do everything.",
        "",
        "| route | what it does | scope |",
        "|---|---|---|",
    ]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            scope = "none" if path in OPEN else " or ".join(sorted(scopes_for(method.upper(), path)))
            lines.append(f"| `{method.upper()} {path}` | {_cell(_meaning(operation))} | {scope} |")
    return "\n".join(lines) + "\n"


def deploying() -> str:
    """What stands beside the manifests."""
    return (Path(cli.__file__).parent / "deploy" / "README.md").read_text(encoding="utf-8")


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands,
    "reference/settings.md": settings,
    "reference/api.md": api,
    "reference/metrics.md": metrics.page,
    "reference/deploying.md": deploying,
}


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Those that do something, by their whole names."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for part, found in command.commands.items():
        yield from _commands(f"{name} {part}", found)


def _called(parameter: Any) -> str:
    return "/".join(parameter.opts) if parameter.param_type_name == "option" else str(parameter.name).upper()


def _meaning(operation: dict[str, Any]) -> str:
    about = str(operation.get("description", "")).partition("\n\n")[0]
    return f"{operation['summary']}. {about}"


def _text(help_text: str) -> str:
    """As Markdown: what looks like a tag, <home>, is none, but in code."""
    parts = inspect.cleandoc(help_text).split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def _cell(text: str) -> str:
    return " ".join(_text(text).split()).replace("|", "\\|")


def _anywhere() -> Settings:
    """Settings that name every server: the application is made and described, never started."""
    return Settings(
        secret=SecretStr("of no installation"),
        kafka=KafkaSettings(bootstrap="kafka:9092"),
        redis=RedisSettings(url=SecretStr("redis://redis")),
    )
