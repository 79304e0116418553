"""`matchloop state`: does the bandit's state equal the log, and the way back when the log holds what it should not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.console import Json, moment, options, show

if TYPE_CHECKING:
    from infra.settings import Settings
    from offline_training.jobs.rollback import Installation

Stale = Annotated[
    bool, typer.Option("--stale", help="Serve it at once, also if no updater has folded it up to the present.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    state = typer.Typer(help="Verify the bandit's state against the log, or roll it back.")
    state.command()(verify)
    state.command()(rollback)
    state.command()(activate)
    app.add_typer(state, name="state")


def verify(context: typer.Context, as_json: Json = False) -> None:
    """Compare the live bandit state row by row with its base plus a replay of the log.

    Exit code 1 if they differ.

    Example: `matchloop state verify --json`
    """
    from feature_store.contracts.errors import Unavailable
    from infra.connections import redis_client
    from infra.verification import verify as compared

    settings = options(context).connected_settings()
    with redis_client(settings) as client:
        comparisons = compared(settings, client)
    if not comparisons:
        raise Unavailable("Nothing is being learnt yet: no namespace is active. Run `matchloop train`.")
    found = [
        {
            "namespace": name,
            "partition": partition.partition,
            "offset": partition.position.offset,
            "log": partition.position.log,
            "rows": partition.rows,
            "largest_difference": partition.largest_difference,
            "differing": partition.differing,
        }
        for name, partitions in comparisons.items()
        for partition in partitions
    ]
    equal = not any(partition["differing"] for partition in found)
    lines = [
        f"{part['namespace']} partition {part['partition']} at offset {part['offset']}: {part['rows']} rows, "
        f"largest relative difference {part['largest_difference']:.2g}"
        for part in found
    ]
    verdict = (
        "The state equals its base plus the replayed log." if equal else "The state DIFFERS from the replayed log."
    )
    show({"state_equals_replay": equal, "partitions": found}, "\n".join([*lines, verdict]), as_json)
    if not equal:
        raise typer.Exit(1)


def rollback(
    context: typer.Context,
    to: Annotated[
        str | None, typer.Option(help="Leave out everything later than this: ISO time (UTC) or ms since 1970.")
    ] = None,
    users: Annotated[
        Path | None, typer.Option(help="File of user ids, one per line, whose events are left out.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Only report what would be left out.")] = False,
    stale: Stale = False,
    as_json: Json = False,
) -> None:
    """Replace the bandit's state by one without the events after a time, or without those of some users.

    A new namespace of the serving release is built from the lake and swapped in under traffic. The log, the lake and
    users' histories do not change. The old state is kept: `matchloop state activate` goes back to it.

    Example: `matchloop state rollback --to 2026-01-31T12:00 --dry-run`
    """
    from feature_store.contracts.errors import InvalidInput
    from feature_store.rewriting import undisturbed
    from offline_training.jobs.rollback import Exclusion, perform, plan_rollback

    if to is None and users is None:
        raise InvalidInput("Specify what to leave out: --to TIME, --users FILE, or both.")
    settings = options(context).connected_settings()
    exclusion = Exclusion(moment("--to", to) if to else None, _user_keys(settings, users) if users else {})
    with _installation(settings) as installation, undisturbed(settings.layout):
        plan = plan_rollback(installation, exclusion)
        if not dry_run:
            perform(installation, plan, stale)
    serves = f"Would make namespace {plan.namespace.id}." if dry_run else f"Namespace {plan.namespace.id} serves."
    back = "" if dry_run else f" Back to before: `matchloop state activate {plan.parent}`."
    show(
        {
            "namespace": plan.namespace.id,
            "parent": plan.parent,
            "decisions": plan.decisions,
            "feedback": plan.feedback,
            "rows_changed": plan.rows,
            "rows": plan.rows_before,
            "dry_run": dry_run,
        },
        f"Left out: {plan.decisions} decisions and {plan.feedback} events of feedback; {plan.rows} of "
        f"{plan.rows_before} rows change. Users' histories keep theirs. {serves}{back}",
        as_json,
    )


def activate(
    context: typer.Context,
    namespace: Annotated[str, typer.Argument(help="Its name, as printed by `matchloop state verify` and `rollback`.")],
    stale: Stale = False,
    as_json: Json = False,
) -> None:
    """Serve another namespace of the serving release, for example to undo a rollback.

    Example: `matchloop state activate 1a2b3c-1`
    """
    from offline_training.jobs.rollback import activate as run

    with _installation(options(context).connected_settings()) as installation:
        run(installation, namespace, stale)
    show({"namespace": namespace}, f"Namespace {namespace} serves.", as_json)


@contextmanager
def _installation(settings: "Settings") -> "Iterator[Installation]":
    from feature_store.bandit_state import BanditStore
    from feature_store.contracts.clock import SystemClock
    from feature_store.online.store import OnlineStore
    from infra.connections import event_log, redis_client
    from offline_training.jobs.rollback import Installation

    log = event_log(settings)
    with redis_client(settings) as client:
        online, state = OnlineStore(client, settings.redis), BanditStore(client, settings.redis)
        yield Installation(settings.layout, settings.rewards, online, state, log, SystemClock())


def _user_keys(settings: "Settings", file: Path) -> dict[str, str]:
    from feature_store.contracts.errors import InvalidInput

    try:
        names = frozenset(file.read_text(encoding="utf-8").splitlines()) - {""}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The file of users {file} cannot be read: {error}.") from None
    if not names:
        raise InvalidInput(f"The file of users {file} is empty.")
    keyring = settings.keyring()
    return {keyring.user_key(name): name for name in names}
