"""`matchloop users`: what an installation holds of people."""

import typer

from infra.console import Json, options, show


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    users = typer.Typer(help="Have erased users leave the files, too.")
    users.command()(forget)
    app.add_typer(users, name="users")


def forget(context: typer.Context, as_json: Json = False) -> None:
    """Rewrite lake and namespaces so that nothing in them leads to users who were erased.

    `DELETE /v1/users/ID` takes them out of Redis at once and out of training at the next retrain, which rewrites the
    files, too. Run this where more than `lake.forget_within_days` pass between two retrains. What the bandit has learnt
    stays: sums over many.

    Example: `matchloop users forget`
    """
    from feature_store.bandit_state import BanditStore
    from feature_store.contracts.clock import SystemClock
    from feature_store.online.store import OnlineStore
    from infra.connections import redis_client
    from offline_training.jobs.forget import forget as run

    settings = options(context).connected_settings()
    with redis_client(settings) as client:
        online, state = OnlineStore(client, settings.redis), BanditStore(client, settings.redis)
        done = run(settings.layout, online, state, SystemClock().now_ms(), settings.lake.forget_within_days)
    words = f"{done.users} users are forgotten; {done.files} files were rewritten."
    if done.waiting:
        words += f" {done.waiting} erasures wait until the updater has come to them: run it again then."
    show(done._asdict(), words, as_json)
