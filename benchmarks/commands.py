"""The benches that compare with other libraries, as commands of `matchloop bench`."""

from pathlib import Path
from typing import Annotated

import typer

from infra.commands.bench import Check, Data, Seed, present
from infra.console import Json

Out = Annotated[Path | None, typer.Option(help="Folder for the pictures.")]
Picture = Annotated[Path | None, typer.Option(help="Where the picture is written, as PNG.")]
GraphDataset = Annotated[str, typer.Option(help="ml-100k, ml-latest-small or ml-1m.")]
SmallDataset = Annotated[str, typer.Option(help="ml-100k or ml-1m.")]


def register(bench: typer.Typer) -> None:
    """Adds the commands."""
    for command in (bandit, ensemble, experiment, graph, lists, ope, order, pay, recover, regret, retrieval, start):
        bench.command()(command)


def bandit(seed: Seed = 0, check: Check = False, as_json: Json = False) -> None:
    """Measure how fast decisions and updates are, beside Vowpal Wabbit and mabwiser.

    Example: `matchloop bench bandit --json`
    """
    from benchmarks.bandit.bench import run

    present("bandit", seed, lambda report: run(seed, report), check, as_json)


def ensemble(
    only: Annotated[str | None, typer.Option(help="Play only the worlds whose names contain this.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each arm, from --seed on.")] = 1,
    grid: Annotated[bool, typer.Option("--grid", help="Play every weight of the online value, too.")] = False,
    tuning: Annotated[
        bool,
        typer.Option("--tuning", help="Play the worlds and seeds that settings are chosen on, which are not reported."),
    ] = False,
    data: Data = None,
    out: Picture = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure what retraining and learning online are worth to each other, in closed loops with retrains in mid-flight.

    Example: `matchloop bench ensemble --data DIR --only ml-100k/drift --out ensemble.png`
    """
    from benchmarks.ensemble.bench import rows, run

    present(
        "ensemble",
        seed,
        lambda report: run(data, seed, report, only=only, seeds=seeds, grid=grid, tuning=tuning, out=out),
        check,
        as_json,
        rows,
    )


def experiment(
    tests: Annotated[int, typer.Option(min=10, help="Simulated experiments of each kind.")] = 1_000,
    data: Data = None,
    out: Picture = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure whether the statistics of experiments keep what they promise, on tests whose truth is known.

    Example: `matchloop bench experiment --data DIR --out experiment.png`
    """
    from benchmarks.experiment.bench import rows, run

    present("experiment", seed, lambda report: run(data, seed, report, tests=tests, out=out), check, as_json, rows)


def graph(
    dataset: GraphDataset = "ml-100k",
    data: Data = None,
    out: Out = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure what the cluster-item graph keeps of retrieval and whom it reaches, for a grid of its sizes.

    Example: `matchloop bench graph --data DIR --out pictures`
    """
    from benchmarks.graph import run

    present("graph", seed, lambda report: run(data, seed, report, dataset=dataset, out=out), check, as_json)


def lists(
    dataset: SmallDataset = "ml-100k",
    data: Data = None,
    out: Out = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Compare personalised item lists with ItemCF, Swing and the two towers.

    Example: `matchloop bench lists --dataset ml-1m --data DIR`
    """
    from benchmarks.lists import rows, run

    present("lists", seed, lambda report: run(data, seed, report, dataset=dataset, out=out), check, as_json, rows)


def ope(
    logs: Annotated[int, typer.Option(min=1, help="Synthetic logs of each kind.")] = 1_000,
    tuning: Annotated[
        bool, typer.Option("--tuning", help="Use the seeds that intervals were chosen on, which are not reported.")
    ] = False,
    worlds: Annotated[
        str, typer.Option(help="Worlds of bench pay to replay policies in before they run, with commas between.")
    ] = "",
    data: Data = None,
    out: Picture = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure whether off-policy estimates are right and their intervals honest, on logs whose truth is known.

    Example: `matchloop bench ope --data DIR --out ope.png`
    """
    from benchmarks.ope.bench import rows, run

    present(
        "ope",
        seed,
        lambda report: run(
            data, seed, report, logs=logs, tuning=tuning, worlds=[name for name in worlds.split(",") if name], out=out
        ),
        check,
        as_json,
        rows,
    )


def order(
    only: Annotated[str | None, typer.Option(help="Ask only in the world of this name.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings in each world, from --seed on.")] = 1,
    tuning: Annotated[
        bool,
        typer.Option("--tuning", help="Use the worlds and seeds that settings are chosen on, which are not reported."),
    ] = False,
    data: Data = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure whether what a release serves is in a better order than retrieval or popularity would have it.

    Example: `matchloop bench order --data DIR --only ml-100k`
    """
    from benchmarks.order.bench import rows, run

    present(
        "order",
        seed,
        lambda report: run(data, seed, report, only=only, seeds=seeds, tuning=tuning),
        check,
        as_json,
        rows,
    )


def pay(
    only: Annotated[
        str | None, typer.Option(help="Play only the world of this name, or those whose names contain it.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each arm, from --seed on.")] = 2,
    tuning: Annotated[
        bool,
        typer.Option("--tuning", help="Play the worlds and seeds that settings are chosen on, which are not reported."),
    ] = False,
    data: Data = None,
    out: Picture = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure whether what is learnt online earns more than it costs, in closed loops with the same visitors.

    Example: `matchloop bench pay --data DIR --only ml-100k --out pay.png`
    """
    from benchmarks.pay.bench import rows, run

    present(
        "pay",
        seed,
        lambda report: run(data, seed, report, only=only, seeds=seeds, tuning=tuning, out=out),
        check,
        as_json,
        rows,
    )


def recover(seed: Seed = 0, check: Check = False, as_json: Json = False) -> None:
    """Measure what repeat intervals earn where the reward of an item recovers after it was shown.

    Example: `matchloop bench recover --json`
    """
    from benchmarks.recover.bench import rows, run

    present("recover", seed, lambda report: run(seed, report), check, as_json, rows)


def regret(
    only: Annotated[str | None, typer.Option(help="Play only the scenarios whose name contains this.")] = None,
    data: Data = None,
    out: Picture = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Play the bandit against tuned peers in closed loops with known rewards.

    Example: `matchloop bench regret --only jester --data DIR`
    """
    from benchmarks.regret.bench import run

    present("regret", seed, lambda report: run(data, seed, report, only=only, out=out), check, as_json)


def retrieval(
    dataset: Annotated[
        str,
        typer.Option(
            help="ml-100k, ml-1m or gowalla-lightgcn, each with its published split or one by time. Random splits are "
            "not offered: a model would learn from what happened after the question."
        ),
    ] = "ml-100k",
    models: Annotated[str | None, typer.Option(help="Models that take part, with commas between.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each model, from --seed on.")] = 3,
    data: Data = None,
    out: Out = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Compare the two towers with other models on public protocols.

    Example: `matchloop bench retrieval --dataset ml-1m --data DIR`
    """
    from benchmarks.retrieval.bench import rows, run

    present(
        "retrieval",
        seed,
        lambda report: run(data, seed, report, dataset=dataset, models=models, seeds=seeds, out=out),
        check,
        as_json,
        rows,
    )


def start(
    dataset: SmallDataset = "ml-100k",
    users: Annotated[
        int | None, typer.Option(min=100, help="Of the data set, evenly over all; else all of them.")
    ] = None,
    retrains: Annotated[int, typer.Option(min=1, max=2, help="One after the other, each with a tenth more.")] = 2,
    data: Data = None,
    seed: Seed = 0,
    check: Check = False,
    as_json: Json = False,
) -> None:
    """Measure what retrains that go on from the champion's weights cost and keep, beside retrains from nothing.

    Example: `matchloop bench start --dataset ml-1m --users 1500 --data DIR`
    """
    from benchmarks.start.bench import rows, run

    present(
        "start",
        seed,
        lambda report: run(data, seed, report, dataset=dataset, users=users, retrains=retrains),
        check,
        as_json,
        rows,
    )
