"""`matchloop import`: people's own data into the lake."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.console import Json, options, progress, reward_range, show

if TYPE_CHECKING:
    from offline_training.data.staging import DatasetReport


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("import")(import_data)


def import_data(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="Directory with interactions, and optionally items and users.")],
    column: Annotated[
        list[str] | None,
        typer.Option("--map", help="A column with another name, as OURS=YOURS; may be repeated."),
    ] = None,
    newlines_in_values: Annotated[
        bool, typer.Option("--newlines-in-values", help="Quoted values of the CSV files may hold line breaks.")
    ] = False,
    kind: Annotated[
        str, typer.Option("--as", help="data: interactions, items and users; log: decisions of another system.")
    ] = "data",
    name: Annotated[str, typer.Option(help="Of a log: what `matchloop replay --log` calls it.")] = "log",
    rewards: Annotated[
        str | None, typer.Option(help="Of a log: the range of rewards, as LEAST..MOST; others are rejected.")
    ] = None,
    propensity: Annotated[
        float | None,
        typer.Option(
            min=1e-9, max=1, help="Of a log without propensities: of every row, 0.5 of two letters at random."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Import interactions, items and users (Parquet or CSV) into the lake.

    Rows that break a rule are left out, counted, and listed with the reason in a rejects file. User ids are replaced
    by pseudonyms. Importing the same files again changes nothing. A column `written` says when a row was recorded, if
    that was after its timestamp: only from then on is it known to anything that learns.

    A row of a CSV file ends with its line: a quote that is left open there spoils its own row and no other.

    With --as log, SOURCE is a log of decisions to evaluate policies on: a file, or a folder of parts. Columns are
    action, reward, propensity, and optionally decision, user, timestamp, position, candidates, target (the chance that
    another policy would have done the same), category (of the action) and context (`--map context=age,country`). Where
    every row had the same chance, as in a test of letters sent at random, `--propensity` says it.

    Example: `matchloop import ./export --map user_id=customer --map item_id=sku --map timestamp=bought_at`
    """
    from dataclasses import asdict

    from feature_store.contracts.clock import SystemClock
    from feature_store.contracts.errors import InvalidInput
    from offline_training.data.importer import import_data as run
    from offline_training.data.sources import Mapping

    if kind == "log":
        _import_log(context, source, column or [], name, rewards, propensity, as_json)
        return
    if kind != "data":
        raise InvalidInput(f"--as {kind!r} is not a kind of data. Give data or log.")
    settings = options(context).settings()
    mapping = Mapping.parse(column or [])
    with progress("Importing") as report:
        imported = run(source, settings.layout, settings.keyring(), mapping, SystemClock(), report, newlines_in_values)
    sets = {"interactions": imported.interactions, "items": imported.items, "users": imported.users}
    show(asdict(imported), "\n".join(_words(name, found) for name, found in sets.items() if found), as_json)


def _import_log(
    context: typer.Context,
    source: Path,
    column: list[str],
    name: str,
    rewards: str | None,
    propensity: float | None,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from feature_store.contracts.clock import SystemClock
    from offline_training.data.foreign_log import COLUMNS, import_log
    from offline_training.data.sources import Mapping

    settings = options(context).settings()
    mapping, within = Mapping.parse(column, COLUMNS), None if rewards is None else reward_range("--rewards", rewards)
    with progress("Importing") as report:
        keyring = settings.keyring()
        found = import_log(source, settings.layout, name, keyring, mapping, within, SystemClock(), report, propensity)
    words = f"{_words(f'log {name}', found)}\nNext: `matchloop replay --log {name} --candidate uniform`."
    show(asdict(found), words, as_json)


def _words(name: str, found: "DatasetReport") -> str:
    lines = [f"{name}: {found.read} rows read, {found.accepted} accepted, {found.duplicates} duplicates"]
    lines += [f"  {count} rejected: {reason}" for reason, count in sorted(found.rejected.items())]
    if found.rejects_file:
        lines.append(f"  rejected rows are listed in {found.rejects_file}")
    if found.ignored_columns:
        lines.append(f"  columns not used: {', '.join(found.ignored_columns)}")
    return "\n".join(lines)
