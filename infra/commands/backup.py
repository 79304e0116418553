"""`matchloop backup` and `restore`: an installation in a folder."""

from pathlib import Path
from typing import Annotated

import typer

from infra.console import Json, byte_size, options, show


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(backup)
    app.command()(restore)


def backup(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    with_secret: Annotated[
        bool,
        typer.Option(
            "--with-secret", help="Also the file `secret`: whoever has it can tell users' keys from their ids."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy what an installation needs to go on elsewhere: lake, releases, namespaces, training runs, what serves.

    Everything goes on meanwhile. What came after it is in Kafka. Without the secret, keep that elsewhere: users and
    decisions are strangers under another one.

    Example: `matchloop backup /backups/2026-01-31`
    """
    from feature_store.contracts.clock import SystemClock
    from infra.backup import backup as run

    settings = options(context).settings()
    made = run(settings.layout, folder, SystemClock().now_ms(), with_secret)
    words = f"{made.files} files, {byte_size(made.bytes)}, in {folder}." + (
        "" if made.secret else " Without the secret."
    )
    if url := settings.lake.url:
        words += f" The lake stays in {url}, and is not in it."
    show({"created": made.created, "files": made.files, "bytes": made.bytes, "secret": made.secret}, words, as_json)


def restore(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The folder of a backup.")],
    as_json: Json = False,
) -> None:
    """Copy a backup into the home, which must be empty. Then start the servers, and run `matchloop recover`.

    Example: `matchloop restore /backups/2026-01-31`
    """
    from infra.backup import restore as run

    settings = options(context).settings()
    made = run(folder, settings.layout)
    secret = "" if made.secret else " Put the secret there, or set MATCHLOOP_SECRET."
    words = f"{made.files} files are in {settings.home}.{secret} Now `matchloop up`, and `matchloop recover`."
    show({"home": settings.home, "files": made.files, "secret": made.secret}, words, as_json)
