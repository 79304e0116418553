"""`matchloop bench`: measure, in one shape for all benches, each with options of its own.

The benches here check an installation. Those that compare with other libraries stand in benchmarks/, which is part of a
checkout but not of an installation; they join this group if they are there.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from infra.console import Json, progress, show, table

if TYPE_CHECKING:
    from infra.benchmarks.bench import Bench, Goal
    from offline_training.progress import Progress

_CHECKOUT = Path(__file__).parents[2]
_COMPARISONS = "benchmarks.commands"

Data = Annotated[Path | None, typer.Option(help="Folder with one sub-folder per data set.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Check = Annotated[bool, typer.Option("--check", help="Exit with 1 unless every goal is met.")]


class _Benches(TyperGroup):
    """Says which benches there are when asked for another one."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from feature_store.contracts.errors import InvalidInput

        command = super().get_command(ctx, cmd_name)
        if command is None:
            more = "" if _in_checkout() else " Others need a checkout with benchmarks/, and the extra `bench`."
            raise InvalidInput(
                f"There is no bench {cmd_name!r}. There are: {', '.join(sorted(self.list_commands(ctx)))}.{more}"
            )
        return command


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    bench = typer.Typer(cls=_Benches, help="Run a bench and print its figures and goals.", no_args_is_help=True)
    for command in (chaos, event_loop, faults, freshness, lake, loop, serving, slow_log, spark):
        bench.command()(command)
    if _in_checkout():
        sys.path.insert(0, str(_CHECKOUT))  # an editable installation finds only what it would install
        importlib.import_module(_COMPARISONS).register(bench)
    app.add_typer(bench, name="bench")


def chaos(
    seconds: Annotated[float, typer.Option(min=1, help="How long the load lasts.")] = 60.0,
    kills: Annotated[int, typer.Option(min=0, help="How many processes are killed or paused.")] = 12,
    soak: Annotated[
        float | None,
        typer.Option(min=1, help="Minutes of load: nothing is killed, and memory, files and lag must not grow."),
    ] = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Kill and pause processes under load: nothing that was accepted is lost or counts twice.

    Updaters, API processes, Redis, the sink and the supervisor are killed; updaters, the sink, the broker and the
    supervisor are paused.

    Example: `matchloop bench chaos --kills 20`, or `matchloop bench chaos --soak 60`
    """
    from infra.benchmarks.chaos import run
    from infra.benchmarks.soak import rows
    from infra.benchmarks.soak import run as endure

    if soak is not None:
        present("soak", seed, lambda report: endure(seed, report, minutes=soak), check, as_json, rows)
    else:
        present("chaos", seed, lambda report: run(seed, report, seconds=seconds, kills=kills), check, as_json)


def event_loop(
    items: Annotated[
        int,
        typer.Option(help="How many items the release has, with three edges each; 200,000 take two minutes or three."),
    ] = 200_000,
    seconds: Annotated[float, typer.Option(min=1, help="How long the load lasts, beside loading and a swap.")] = 30.0,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure how long tasks hold the event loop of an API process that learns from a fleet over a large release.

    Example: `matchloop bench event-loop --items 100000 --check`
    """
    from infra.benchmarks.event_loop.bench import rows, run

    present("event-loop", seed, lambda report: run(seed, report, items=items, seconds=seconds), check, as_json, rows)


def faults(
    seconds: Annotated[float, typer.Option(min=0.5, help="How long each fault lasts.")] = 5.0,
    overload_seconds: Annotated[float, typer.Option(min=1, help="How long too much is asked.")] = 30.0,
    only: Annotated[str | None, typer.Option(help="Play only the cases whose names contain this.")] = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Cut, slow and fill what an API process needs: how answers look meanwhile, and that nothing promised is lost.

    Example: `matchloop bench faults --only redis`
    """
    from infra.benchmarks.faults.bench import rows, run

    def bench(report: "Progress") -> "tuple[dict[str, Any], list[Goal]]":
        return run(seed, report, seconds=seconds, overload_seconds=overload_seconds, only=only)

    present("faults", seed, bench, check, as_json, rows)


def freshness(
    seconds: Annotated[float, typer.Option(min=1, help="How long the load lasts.")] = 30.0,
    rate: Annotated[float, typer.Option(min=1, help="Requests a second.")] = 300.0,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure under load how soon feedback and catalogue changes are in the answers.

    Example: `matchloop bench freshness --rate 500`
    """
    from infra.benchmarks.freshness import run

    present("freshness", seed, lambda report: run(seed, report, seconds=seconds, rate=rate), check, as_json)


def lake(
    days: Annotated[int, typer.Option(min=15, help="How long the longer of two logs is.")] = 400,
    decisions: Annotated[int, typer.Option(min=12, help="Decisions a day, each with feedback.")] = 240,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Compact and check a generated year of log, and measure what its last fortnight costs who asks for it.

    Example: `matchloop bench lake --days 100 --check`
    """
    from infra.benchmarks.lake import rows, run

    present("lake", seed, lambda report: run(seed, report, days=days, decisions=decisions), check, as_json, rows)


def loop(data: Data = None, seed: Seed = 0, check: Check = False, as_json: Json = False) -> None:
    """Run the demo's loop in a home of its own and hold its figures against their bounds.

    Without --data, MovieLens-100K is downloaded.

    Example: `matchloop bench loop --json --check`
    """
    from infra.benchmarks.loop import run

    present("loop", seed, lambda report: run(data, seed, report), check, as_json)


def serving(
    sizes: Annotated[
        str, typer.Option("--items", help="How many items each release has, with commas between.")
    ] = "10000,100000,1000000",
    seconds: Annotated[float, typer.Option(min=1, help="How long each load lasts.")] = 15.0,
    picture: Annotated[Path | None, typer.Option(help="Where to draw what takes the time, as SVG.")] = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure what a recommendation costs an API process on one core, beside an endpoint that does nothing else.

    A million items take ten minutes. On a machine with two cores nothing else should run.

    Example: `matchloop bench serving --items 10000,100000 --picture profile.svg`
    """
    from infra.benchmarks.serving.bench import rows, run

    def bench(report: "Progress") -> "tuple[dict[str, Any], list[Goal]]":
        return run(seed, report, sizes=sizes, seconds=seconds, picture=picture)

    present("serving", seed, bench, check, as_json, rows)


def slow_log(
    seconds: Annotated[float, typer.Option(min=1, help="How long each load lasts.")] = 20.0,
    rate: Annotated[float, typer.Option(min=1, help="Decisions a second.")] = 200.0,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure how many decisions the bandit can learn from where the log acknowledges late, as a cluster across zones.

    Example: `matchloop bench slow-log --check`
    """
    from infra.benchmarks.slow_log import rows, run

    present("slow-log", seed, lambda report: run(seed, report, seconds=seconds, rate=rate), check, as_json, rows)


def spark(
    sizes: Annotated[
        str, typer.Option("--rows", help="Interactions in each lake, with commas between.")
    ] = "1000000,10000000,50000000",
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure what a row costs the Spark job as logs grow.

    Example: `matchloop bench spark --rows 1000000,10000000`
    """
    from infra.benchmarks.spark.bench import rows, run

    present("spark", seed, lambda report: run(seed, report, sizes=sizes), check, as_json, rows)


def present(
    name: str,
    seed: int,
    bench: "Bench",
    check: bool,
    as_json: bool,
    rows: Callable[[dict[str, Any]], list[list[str]]] | None = None,
) -> None:
    """Runs a bench and prints what it found. rows: a table of its results for people."""
    from infra.benchmarks.bench import measure

    with progress(f"Bench {name}") as report:
        result = measure(name, seed, bench, report)
    tables = [rows(result.results)] if rows else []
    if result.goals:
        tables.append([["GOAL", "VALUE", "TARGET", "UNIT", "MET"]])
        for goal in result.goals:
            side = "≥" if goal.better == "higher" else "≤"
            met = "yes" if goal.met else "NO"
            tables[-1].append([goal.name, f"{goal.value:.4g}", f"{side} {goal.target:.4g}", goal.unit, met])
    words = [*map(table, tables), f"{name}: {result.seconds:.1f} s, seed {seed}"]
    show(result.as_dict(), "\n\n".join(words), as_json)
    if check and not result.met:
        raise typer.Exit(1)


def _in_checkout() -> bool:
    return (_CHECKOUT / _COMPARISONS.replace(".", "/")).with_suffix(".py").is_file()
