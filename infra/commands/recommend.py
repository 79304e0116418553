"""`matchloop recommend`: recommendations for many users, into a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.console import Json, options, progress, show

if TYPE_CHECKING:
    from infra.recommending import People
    from infra.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(recommend)


def recommend(
    context: typer.Context,
    to: Annotated[Path, typer.Option(help="The file to write: .parquet, or .jsonl for JSON lines.")],
    users: Annotated[Path | None, typer.Option(help="A file of user ids, one a line.")] = None,
    all_users: Annotated[
        bool, typer.Option("--all-users", help="All users of the training sets, by their pseudonyms.")
    ] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Items for each; default: serving.slate_size.")] = None,
    surface: Annotated[str, typer.Option(help="Where they will be shown: rules of serving.surfaces.")] = "default",
    where: Annotated[str | None, typer.Option("--filter", help="Which items, as in requests: 'price < 20'.")] = None,
    with_: Annotated[
        list[str] | None, typer.Option("--with", help="What to say of each item: title, categories, an attribute.")
    ] = None,
    log: Annotated[
        bool, typer.Option("--log", help="Each answer is a decision: explored, logged, and shown from now on.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write recommendations for many users into a file, as the API would answer now.

    Each row has the user, the items with their scores, and with --log the decision_id that feedback names. Without it
    nothing is logged, and nothing counts as shown: send what users do with such a mail to `/v1/events`. User ids are
    kept nowhere, so --all-users can name users by their pseudonyms only; those who came after the last training are not
    among them.

    Example: `matchloop recommend --users subscribers.txt --to mails.parquet --count 5 --with title`
    """
    import asyncio

    from feature_store.contracts.errors import InvalidInput
    from infra.api_config import api_config
    from infra.recommending import Wanted, recommend_to, written

    if all_users == (users is not None):
        raise InvalidInput("Say whom: --users FILE, or --all-users.")
    settings = options(context).connected_settings()
    people = _people(settings, users)
    asked: dict[str, Any] = {"slate_size": count, "surface": surface, "filter": where, "with": with_ or []}
    with progress("Recommending") as report, written(to) as rows:
        done = asyncio.run(recommend_to(api_config(settings), people, Wanted(asked, log), rows, report))
    show({"users": done, "file": str(to)}, f"{to} has what is recommended to {done} users.", as_json)


def _people(settings: "Settings", users: Path | None) -> "People":
    from infra.recommending import listed, trained_on

    return trained_on(settings.layout.runs) if users is None else listed(users)
