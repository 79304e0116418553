"""`matchloop state`: does the bandit's state equal the log, and the way back when the log holds what it should not."""

import typer

from infra.console import Json, options, show


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    state = typer.Typer(help="Hold the bandit's state against the log, or leave a part of the log out of it.")
    state.command()(verify)
    app.add_typer(state, name="state")


def verify(context: typer.Context, as_json: Json = False) -> None:
    """Hold the live bandit state against its base plus a replay of the log, row by row.

    Exit code 1 if they differ.

    Example: `matchloop state verify --json`
    """
    from feature_store.bandit_state import BanditStore
    from feature_store.contracts.errors import Unavailable
    from feature_store.namespace import Namespace
    from feature_store.online import OnlineStore
    from infra.connections import kafka_bootstrap, redis_client
    from streaming.replay import compare

    settings = options(context).connected_settings()
    with redis_client(settings) as client:
        store = BanditStore(client, settings.redis)
        names = OnlineStore(client, settings.redis).namespaces()
        if not names:
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
            for name in names
            for partition in compare(
                Namespace.load(settings.home / "namespaces", name),
                store,
                settings.home / "lake",
                settings.rewards,
                kafka_bootstrap(settings),
                settings.kafka.events_topic,
            )
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
