"""`matchloop simulate`: visitors over HTTP."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from infra.console import Json, options, progress, show


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(simulate)


def simulate(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="The imported directory; the users' ids are read from it.")],
    visits: Annotated[int, typer.Option(min=1, help="Recommendations to ask for.")] = 1_000,
    per_second: Annotated[
        float | None, typer.Option(help="Visits per second; default: as fast as the API answers.")
    ] = None,
    since: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Interactions after this fraction of the time span define the visitors' tastes."
        ),
    ] = 0.8,
    column: Annotated[list[str] | None, typer.Option("--map", help="OURS=YOURS, as for import.")] = None,
    as_json: Json = False,
) -> None:
    """Send simulated visitors to the API, with tastes taken from the imported interactions of real users.

    Users are never shown what the release was trained on, so train with --until in a home where you simulate.

    Example: `matchloop simulate ./export --visits 2000 --per-second 50`
    """
    from feature_store.contracts.clock import SystemClock
    from feature_store.contracts.errors import Unavailable
    from infra.stack import Stack
    from offline_training.data.lake import time_at_share
    from offline_training.data.sources import Mapping
    from offline_training.data.user_ids import user_ids
    from offline_training.report.data import traffic
    from offline_training.simulation.result import SimulationSettings
    from offline_training.simulation.simulator import Simulator
    from offline_training.simulation.world import World

    settings = options(context).settings()
    api = Stack(settings).endpoints.api
    if api is None:
        raise Unavailable("The API is not running in this home directory. Start it with `matchloop up`.")
    lake, key = settings.layout.lake, settings.serving.api_key
    ids = user_ids(source, Mapping.parse(column or []), settings.keyring())
    split = time_at_share(lake, since)
    world = World.from_lake(lake, ids, split, settings.training.positive_value)
    asked = SimulationSettings(
        url=api,
        visits=visits,
        slate_size=settings.serving.slate_size,
        visits_per_second=per_second,
        seed=settings.training.seed,
        api_key=key.get_secret_value() if key else None,
    )
    with progress("Visits") as report:
        result = Simulator(world, [], asked, SystemClock()).run(report)
    reward = sum(sum(visit.rewards) for visit in result.visits)
    shown = sum(len(visit.items) for visit in result.visits)
    rate = f", {1000 * reward / shown:.1f} per 1,000" if shown else ""
    words = f"{len(result.visits)} visits in {result.seconds:.1f} s: {shown} items shown, reward {reward:g}{rate}."
    failures = [f"{count} times: {kind}" for kind, count in result.errors.items()]
    if shown and not reward:
        failures.append(nothing_liked(split))
    show({"reward": reward, "shown": shown, "traffic": traffic(result)}, "\n".join([words, *failures]), as_json)


def nothing_liked(split_ms: int) -> str:
    """What may be the reason that visitors with tastes from split_ms (ms since the epoch) on liked nothing at all."""
    until = datetime.fromtimestamp(split_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return (
        "Nobody liked anything. Where a release was trained on these tastes too, the users have seen what they like, "
        f"and it is not shown again: begin in a new home directory, with `matchloop train --until {until}`."
    )
