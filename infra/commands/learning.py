"""`matchloop learning`: the switch that stops learning at once; `matchloop replay`: does the state equal the log?"""

from enum import StrEnum
from typing import Annotated

import typer

from infra.console import Json, options, show


class Switch(StrEnum):
    """Where the switch stands."""

    ON = "on"
    OFF = "off"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(learning)
    app.command()(replay)


def learning(
    context: typer.Context,
    switch: Annotated[Switch, typer.Argument(help="on or off.")],
    as_json: Json = False,
) -> None:
    """Stop the bandit's learning at once, or resume it. Decisions and feedback are logged all the same.

    The switch is a record in the log: a replay obeys it at the same place.

    Example: `matchloop learning off`
    """
    from feature_store.contracts.clock import SystemClock
    from infra.connections import kafka_bootstrap
    from streaming.switch import set_learning

    settings = options(context).connected_settings()
    set_learning(settings.kafka, kafka_bootstrap(settings), switch is Switch.ON, SystemClock())
    show({"learning": switch is Switch.ON}, f"Learning is {switch} from here on in the log.", as_json)


def replay(context: typer.Context, as_json: Json = False) -> None:
    """Hold the live bandit state against its base plus a replay of the log, row by row.

    Exit code 1 if they differ.

    Example: `matchloop replay --json`
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
