"""`matchloop bench retrieval`: the two towers against what people would use instead, on public protocols.

Splits are by time, or the published ones. A random split is not offered: see offline_training/evaluation/splits.py.
Everybody is asked for every item of the catalogue that is not in their past; nothing is sampled.
"""

from pathlib import Path
from typing import Any

from benchmarks.retrieval import ranker
from benchmarks.retrieval.contenders import contenders
from benchmarks.retrieval.measure import label, measure, tune
from benchmarks.retrieval.plot import draw
from benchmarks.retrieval.protocols import TEST, read_protocol
from benchmarks.retrieval.report import Figures, goals, report, table
from feature_store.contracts.errors import InvalidInput
from infra.benchmarks.bench import Goal
from offline_training.progress import Progress, section


def run(
    data: Path | None,
    seed: int,
    progress: Progress,
    *,
    dataset: str,
    models: str | None,
    seeds: int,
    out: Path | None,
) -> tuple[dict[str, Any], list[Goal]]:
    """data: folder that holds the data set. models: names with commas between; None is everybody. seeds: how many, from
    `seed` on, a model that depends on chance is trained with. out: folder for the picture and the log of figures.

    Raises InvalidInput if data is missing, a name is unknown, or a library to compare with is not installed.
    """
    if data is None:
        raise InvalidInput(f"Bench 'retrieval' needs --data: the folder with {dataset}.")
    protocol = read_protocol(dataset, data)
    chosen = contenders(dataset, None if models is None else [name.strip() for name in models.split(",")], out)
    figures: Figures = {}
    tuning = {}
    for number, contender in enumerate(chosen):
        part = section(progress, number / len(chosen), (number + 1) / len(chosen))
        part(0.0, f"tuning {contender.name}")
        parameters, tried = tune(contender, protocol, seed)
        tuning[contender.name] = {"chosen": parameters, "tried": tried}
        figures |= measure(contender, parameters, protocol, list(range(seed, seed + seeds)), section(part, 0.5, 1.0))
    results: dict[str, Any] = {
        "dataset": dataset,
        "tuned_for": label(protocol.tuned_for),
        "tuning": tuning,
        "tests": report(protocol, figures),
        "seconds": {
            model: {"fit": one.fit_seconds, "score": one.score_seconds}
            for (model, test), one in figures.items()
            if test == TEST
        },
        "details": {
            one.name: figures[one.name, TEST].details for one in chosen if any(figures[one.name, TEST].details)
        },
        "published_by_others": protocol.published,
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(results["tests"], protocol.published, out / f"retrieval-{dataset}.png")
    compared = [one["ranker"] for details in results["details"].values() for one in details if "ranker" in one]
    of_ranker = ranker.goals(compared) if compared else []
    return results, [*goals(dataset, protocol, results["tests"]), *of_ranker]


def rows(results: dict[str, Any]) -> list[list[str]]:
    """Every model by its figures on all users of the test."""
    return table(results["tests"])
