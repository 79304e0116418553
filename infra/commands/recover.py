"""`matchloop recover`: what Redis has lost."""

from typing import Annotated

import typer

from infra.console import Json, options, progress, show


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(recover)


def recover(
    context: typer.Context,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also if Redis seems to have everything.")] = False,
    as_json: Json = False,
) -> None:
    """Rebuild an empty or older Redis from home, lake and log, with what was learnt.

    What served serves again, once an updater has folded the log. Sink and updater must run; API processes may.

    Example: `matchloop recover`
    """
    from feature_store.bandit_state import BanditStore
    from feature_store.contracts.clock import SystemClock
    from feature_store.contracts.errors import InvalidInput
    from feature_store.deployment_note import note_file, read_note
    from feature_store.online.store import OnlineStore
    from infra.connections import event_log, redis_client
    from offline_training.jobs.recover import recover as run

    settings = options(context).connected_settings()
    prefix = settings.redis.prefix
    noted = read_note(settings.home, prefix)
    if noted is None:
        raise InvalidInput(
            f"There is nothing to recover: {note_file(settings.home, prefix)} is missing, so nothing has ever served "
            "from this home. Run `matchloop train`, or set redis.prefix to what it was."
        )
    with redis_client(settings) as client, progress("Recovering") as report:
        online, state = OnlineStore(client, settings.redis), BanditStore(client, settings.redis)
        if online.deployment.to_note().version >= noted.version and not anyway:
            raise InvalidInput("Redis knows all that the home knows. `--anyway` publishes everything again.")
        done = run(
            settings.layout,
            noted,
            online,
            state,
            event_log(settings),
            SystemClock(),
            settings.redis.shown_days,
            report,
        )
    about = "users from before the log are not, their training sets are gone" if done.users is None else ""
    words = f"Release {done.release} serves again, with namespace {done.namespace}; {done.users or 0} users published."
    gone = f"Namespaces that are gone from the home: {', '.join(done.missing)}." if done.missing else ""
    show(done._asdict(), " ".join(filter(None, [words, about and f"But {about}.", gone])), as_json)
