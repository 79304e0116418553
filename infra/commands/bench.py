"""`matchloop bench`: measure, in one shape for all benches."""

from pathlib import Path
from typing import Annotated

import typer

from infra.console import Json, progress, show, table


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(bench)


def bench(
    name: Annotated[str, typer.Argument(help="Which bench: bandit, chaos, freshness, loop or regret.")],
    data: Annotated[Path | None, typer.Option(help="Folder with one sub-folder per data set.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    seconds: Annotated[float | None, typer.Option(min=1, help="chaos, freshness: how long the load lasts.")] = None,
    rate: Annotated[float | None, typer.Option(min=1, help="freshness: requests a second.")] = None,
    kills: Annotated[int | None, typer.Option(min=0, help="chaos: how many processes are killed or paused.")] = None,
    only: Annotated[str | None, typer.Option(help="regret: play the scenarios whose name contains this.")] = None,
    out: Annotated[Path | None, typer.Option(help="regret: where the picture is written, as PNG.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 unless every goal is met.")] = False,
    as_json: Json = False,
) -> None:
    """Run a bench and print its figures and goals.

    Example: `matchloop bench loop --json --check`
    """
    from infra.benchmarks.bench import run

    with progress(f"Bench {name}") as report:
        options = {"seconds": seconds, "rate": rate, "kills": kills, "only": only, "out": out}
        result = run(name, data, seed, report, **options)
    rows = [["GOAL", "VALUE", "TARGET", "UNIT", "MET"]]
    for goal in result.goals:
        side = "≥" if goal.better == "higher" else "≤"
        rows.append(
            [goal.name, f"{goal.value:.4g}", f"{side} {goal.target:.4g}", goal.unit, "yes" if goal.met else "NO"]
        )
    show(result.as_dict(), f"{table(rows)}\n\n{name}: {result.seconds:.1f} s, seed {seed}", as_json)
    if check and not result.met:
        raise typer.Exit(1)
