"""`matchloop bench`: measure, in one shape for all benches."""

from pathlib import Path
from typing import Annotated

import typer

from infra.console import Json, progress, show, table


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(bench)


def bench(
    name: Annotated[
        str,
        typer.Argument(help="Which bench: bandit, chaos, freshness, graph, lists, loop, regret, retrieval or spark."),
    ],
    data: Annotated[Path | None, typer.Option(help="Folder with one sub-folder per data set.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    seconds: Annotated[float | None, typer.Option(min=1, help="chaos, freshness: how long the load lasts.")] = None,
    rate: Annotated[float | None, typer.Option(min=1, help="freshness: requests a second.")] = None,
    kills: Annotated[int | None, typer.Option(min=0, help="chaos: how many processes are killed or paused.")] = None,
    only: Annotated[str | None, typer.Option(help="regret: play the scenarios whose name contains this.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="graph, lists: ml-100k or ml-1m; retrieval: ml-1m, ml-100k or gowalla-lightgcn, each with its "
            "published split or one by time. Random splits are not offered: a model would learn from what comes "
            "after the question."
        ),
    ] = None,
    models: Annotated[str | None, typer.Option(help="retrieval: who takes part, with commas between.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="retrieval: trainings of a model, from --seed on.")] = None,
    sizes: Annotated[
        str | None, typer.Option("--rows", help="spark: interactions in each lake, with commas between.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="regret: where the picture is written, as PNG; graph, lists, retrieval: the folder for it."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 unless every goal is met.")] = False,
    as_json: Json = False,
) -> None:
    """Run a bench and print its figures and goals.

    Example: `matchloop bench loop --json --check`
    """
    from infra.benchmarks.bench import rows, run

    with progress(f"Bench {name}") as report:
        options = {"seconds": seconds, "rate": rate, "kills": kills, "only": only, "out": out}
        options |= {"dataset": dataset, "models": models, "seeds": seeds, "rows": sizes}
        result = run(name, data, seed, report, **options)
    goals = [["GOAL", "VALUE", "TARGET", "UNIT", "MET"]]
    for goal in result.goals:
        side = "≥" if goal.better == "higher" else "≤"
        goals.append(
            [goal.name, f"{goal.value:.4g}", f"{side} {goal.target:.4g}", goal.unit, "yes" if goal.met else "NO"]
        )
    parts = [table(part) for part in (rows(result), goals) if len(part) > 1]
    show(result.as_dict(), "\n\n".join([*parts, f"{name}: {result.seconds:.1f} s, seed {seed}"]), as_json)
    if check and not result.met:
        raise typer.Exit(1)
