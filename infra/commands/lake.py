"""`matchloop lake`: is the log in the lake whole, and the upkeep of its files."""

from typing import Annotated

import typer

from infra.console import Json, options, show, table


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    lake = typer.Typer(help="Check, repair and compact the log's files in the lake.")
    lake.command()(check)
    lake.command()(repair)
    lake.command()(compact)
    app.add_typer(lake, name="lake")


def check(context: typer.Context, as_json: Json = False) -> None:
    """List ranges of the log that the lake does not hold, holds twice, or in torn files. Exit code 1 if there are any.

    Example: `matchloop lake check --json`
    """
    from feature_store.rewriting import reading
    from streaming.lake_repair import check as damages

    home = options(context).settings().layout
    with reading(home):
        found = damages(home.lake)
    rows = [[one.topic, one.log, str(one.partition), f"{one.start} to {one.end - 1}", one.what] for one in found]
    words = table(rows) + "\nRun `matchloop lake repair`." if found else "The lake holds the log without a hole."
    show({"damage": [one._asdict() for one in found]}, words, as_json)
    if found:
        raise typer.Exit(1)


def repair(
    context: typer.Context,
    declare_lost: Annotated[
        bool, typer.Option("--declare-lost", help="Mark what Kafka does not have either: readers then pass over it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read missing and torn ranges again from Kafka, and separate files that overlap. Exit code 1 if damage is left.

    Of users who were erased what is read again from Kafka is in the lake again, until Kafka's retention has passed:
    have them erased once more.

    Example: `matchloop lake repair`
    """
    from infra.connections import event_log
    from streaming.lake_repair import check as damages
    from streaming.lake_repair import repair as mend

    settings = options(context).connected_settings()
    home, topics = settings.layout, (settings.kafka.topics.events, settings.kafka.topics.catalogue)
    done = mend(home, event_log(settings), topics, declare_lost)
    rows = [
        [one.topic, one.log, str(one.partition), f"{one.start} to {one.end - 1}", one.what, outcome]
        for one, outcome in done
    ]
    left = damages(home.lake)
    words = table(rows) if done else "There is nothing to repair."
    if left:
        words += f"\n{len(left)} ranges are left. `--declare-lost` marks what Kafka does not have either."
    repairs = [{**damage._asdict(), "outcome": outcome} for damage, outcome in done]
    show({"repairs": repairs, "damage": [one._asdict() for one in left]}, words, as_json)
    if left:
        raise typer.Exit(1)


def compact(context: typer.Context, as_json: Json = False) -> None:
    """Replace runs of small files by larger ones, and remove what is older than lake.keep_days.

    Files that an earlier version wrote in an older format are written anew. Readers are not disturbed. The sink does it
    every lake.compact_hours.

    Example: `matchloop lake compact`
    """
    from feature_store.contracts.clock import SystemClock
    from offline_training.data.renewing import renew
    from streaming.lake_compaction import compact as run

    settings = options(context).settings()
    home = settings.layout
    done = run(home, settings.lake, SystemClock().now_ms())
    done = done._replace(renewed=done.renewed + renew(home))
    words = f"{done.merged} files became {done.into}; {done.expired} were removed by their age."
    if done.renewed:
        words += f"\n{done.renewed} more are in the present format now."
    show(done._asdict(), words, as_json)
