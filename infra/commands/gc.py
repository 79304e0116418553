"""`matchloop gc`: what nobody serves with or goes back to any more."""

from typing import Annotated

import typer

from infra.console import Json, byte_size, options, show, table


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(gc)


def gc(
    context: typer.Context,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Newest releases that stay; by default releases.kept.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go, with sizes.")] = False,
    as_json: Json = False,
) -> None:
    """Remove old releases with their namespaces and MLflow's copies, keys of retired namespaces, what trainings left.

    Never what serves, its parent, what served before, or what the gate held back last. Every training does it, too.
    Keys go once a namespace has not been folded for `rewards.window_seconds`, drafts after a day.

    Example: `matchloop gc --keep 3 --dry-run`
    """
    from feature_store.contracts.clock import SystemClock
    from infra.site import site
    from offline_training.promotion.aliases import follow
    from offline_training.promotion.garbage import collect

    settings = options(context).connected_settings()
    with site(settings) as at:
        number = settings.releases.kept if keep is None else keep
        found = collect(at, number, settings.rewards.window_seconds, SystemClock().now_ms(), dry_run)
        behind = None if dry_run else follow(at)
    total = sum(waste.bytes for waste in found)
    rows = table([[waste.kind, waste.name, byte_size(waste.bytes)] for waste in found]) + "\n" if found else ""
    verb = "would go" if dry_run else "gone"
    words = f"{rows}{len(found)} things {verb}, {byte_size(total)}." if found else "There is nothing to remove."
    show(
        {"removed": found, "bytes": total, "dry_run": dry_run, "aliases": behind},
        words if behind is None else f"{words}\n{behind}",
        as_json,
    )
