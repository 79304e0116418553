"""What the commands share: settings, and how they speak (results to standard output, progress to standard error)."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from infra.telemetry import form_logs

if TYPE_CHECKING:  # a command's --help must not wait for what only running it needs
    from infra.settings import Settings
    from offline_training.progress import Progress

_QUIET_SECONDS = 2.0  # between two lines of progress where there is no terminal

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]


@dataclass
class Options:
    """The options before the command."""

    config: Path | None
    debug: bool
    log_level: str

    def settings(self) -> "Settings":
        """The settings from file and environment; from here on logs have the form that they say."""
        from infra.settings import load

        found = load(self.config)
        form_logs(found.logging.format)
        return found

    def connected_settings(self) -> "Settings":
        """The same with the addresses of the embedded servers that run in this home."""
        from infra.stack import Stack

        return Stack(self.settings()).settings


def options(context: typer.Context) -> Options:
    """The options before the command that runs."""
    found: Options = context.obj
    return found


def show(value: Any, words: str, as_json: bool) -> None:
    """Prints a result, as JSON or in words."""
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=str)).decode())
    else:
        typer.echo(words)


def moment(option: str, text: str) -> int:
    """A time (ms since the epoch) as the value of an option: ISO, of UTC unless it says otherwise, or milliseconds.
    Raises InvalidInput for anything else."""
    from feature_store.contracts.errors import InvalidInput

    if text.isdecimal():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{option} {text!r} is not a time. Give 2026-01-31T12:00, or milliseconds since 1970."
        ) from None
    return int(time.replace(tzinfo=time.tzinfo or UTC).timestamp() * 1000)


def reward_range(option: str, text: str) -> tuple[float, float]:
    """LEAST..MOST as the value of an option. Raises InvalidInput for anything else."""
    from feature_store.contracts.errors import InvalidInput

    least, dots, most = text.partition("..")
    try:
        found = float(least), float(most)
    except ValueError:
        found = math.nan, math.nan
    if not dots or not found[0] < found[1]:
        raise InvalidInput(f"{option} {text!r} is not a range. Give LEAST..MOST, such as 0..1.")
    return found


def table(rows: list[list[str]]) -> str:
    """Rows as aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def byte_size(count: int) -> str:
    """As MB or GB, of 1,024."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.1f} MB"


@contextlib.contextmanager
def progress(title: str) -> Iterator["Progress"]:
    """A progress bar on a terminal, otherwise a line whenever there is something new to say."""
    if sys.stderr.isatty():
        with _bar(title) as report:
            yield report
        return
    last, said_at = "", -_QUIET_SECONDS

    def report_line(fraction: float, message: str) -> None:
        nonlocal last, said_at
        now = time.monotonic()
        if message != last and (now - said_at >= _QUIET_SECONDS or fraction >= 1):
            last, said_at = message, now
            typer.echo(f"{title} {fraction:4.0%}  {message}", err=True)

    yield report_line


@contextlib.contextmanager
def _bar(title: str) -> Iterator["Progress"]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = [
        TextColumn(title),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[at]}"),
    ]
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=1.0, at="")
        yield lambda fraction, message: bar.update(task, completed=fraction, at=message)
