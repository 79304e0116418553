"""`matchloop bench order`: is what a release serves in a better order than its parts have it?

A release is trained as `matchloop train` trains it, at its defaults, on the first part of a data set, and people are
asked for by what they came to like afterwards. Its order is held against that of its own retrieval and against lists
that everybody could make: per user, in pairs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.order.orders import GAUC, METRICS, NDCG, RECALL, RECENT_POPULARITY, RETRIEVAL, SERVED, Asked, ask
from benchmarks.pay.bench import TUNING_SEEDS
from benchmarks.pay.release import train
from benchmarks.pay.worlds import EARLIER, ML_1M, ML_100K, SMALL, SOURCES, plain
from feature_store.arrays import Bool, Float64
from feature_store.contracts.errors import InvalidInput
from infra.benchmarks.bench import Goal
from infra.settings import load
from offline_training.evaluation.metrics import interval
from offline_training.progress import Progress, section
from online_serving.snapshot import Snapshot

REPORTED = (ML_100K, SMALL, ML_1M)
TUNING = tuple(name + EARLIER for name in REPORTED)
ECE = 0.02

Results = dict[str, dict[str, Any]]  # world -> figures


def run(
    data: Path | None, seed: int, progress: Progress, *, only: str | None, seeds: int, tuning: bool
) -> tuple[dict[str, Any], list[Goal]]:
    """data: folder that holds the data sets. only: the world of this name; None: all of them. seeds: how many, from
    `seed` on. tuning: the worlds and seeds that settings are chosen on, not those that are reported.

    Raises InvalidInput if data is missing or there is no such world.
    """
    names = TUNING if tuning else REPORTED
    if only is not None and only not in names:
        raise InvalidInput(f"Bench 'order' has no world {only!r}. There are: {', '.join(names)}.")
    if data is None:
        raise InvalidInput("Bench 'order' needs --data: the folder with ml-100k and the other data sets.")
    settings = load()
    numbers = [seed + (TUNING_SEEDS if tuning else 0) + k for k in range(seeds)]
    chosen = names if only is None else (only,)
    results: Results = {}
    for place, name in enumerate(chosen):
        part = section(progress, place / len(chosen), (place + 1) / len(chosen))
        world, asked, metrics = plain(SOURCES[name], data, name), [], []
        for k, number in enumerate(numbers):
            training = settings.training.model_copy(update={"seed": number})
            step = section(part, k / len(numbers), (k + 1) / len(numbers))
            snapshot = Snapshot.load(*train(world, settings.home / "cache" / "pay", training, step), world.past.items)
            asked.append(ask(world, snapshot))
            metrics.append(snapshot.manifest.metrics)
        results[name] = figures(asked) | {
            "ranker": {
                key: float(np.mean([one.get(key, np.nan) for one in metrics]))
                for key in ("ranker_ece", "ranker_share", "ranker_form", "ranker_steepness")
            }
        }
    return {"worlds": results, "seeds": numbers, "tuning": tuning}, goals(results)


def figures(asked: Sequence[Asked]) -> dict[str, Any]:
    """asked: the same people by releases of different seeds; everybody counts once, with their mean over seeds.

    Each order's metrics, and how far the served one is ahead of each other order, with 95 % intervals over users: of
    everybody, of those whom training knew, and of others. ece: how far predictions are off on what would be offered
    first, which people wanted or did not within all the time after.
    """
    old = asked[0].returning
    quality = {name: np.mean([one.quality[name] for one in asked], axis=0) for name in asked[0].quality}
    parts = {"everybody": np.ones_like(old), "known_users": old, "new_users": ~old}
    weight, predicted, came = np.concatenate([one.calibration for one in asked]).T
    found: dict[str, Any] = {"ece": float(np.average(np.abs(predicted - came), weights=weight))}
    for part, users in parts.items():
        if users.any():
            found[part] = {"users": int(users.sum()), "orders": _means(quality, users), "ahead": _ahead(quality, users)}
    return found


def _means(quality: dict[str, Float64], users: Bool) -> dict[str, dict[str, float]]:
    return {
        name: dict(zip(METRICS, values[users].mean(axis=0).tolist(), strict=True)) for name, values in quality.items()
    }


def _ahead(quality: dict[str, Float64], users: Bool) -> dict[str, dict[str, dict[str, float]]]:
    def spread(paired: Float64) -> dict[str, float]:
        return dict(zip(("mean", "low", "high"), interval(paired[np.isfinite(paired)]), strict=True))

    return {
        name: {
            metric: spread(quality[SERVED][users, column] - values[users, column])
            for column, metric in enumerate(METRICS)
        }
        for name, values in quality.items()
        if name != SERVED
    }


def goals(results: Results) -> list[Goal]:
    """The served order is nowhere behind retrieval's or recent popularity's, and ahead of both over all worlds; what
    the ranker predicts comes."""
    found = []
    for other in (RETRIEVAL, RECENT_POPULARITY):
        for metric in METRICS:
            ahead = {name: one["everybody"]["ahead"][other][metric]["mean"] for name, one in results.items()}
            named = f"{metric} over {other}"
            found += [
                Goal(name=f"{name}.{named}", value=value, target=0.0, unit="", better="higher")
                for name, value in ahead.items()
            ]
    found += [
        Goal(name=f"{name}.ranker_ece", value=one["ranker"]["ranker_ece"], target=ECE, unit="", better="lower")
        for name, one in results.items()
    ]
    return found


def rows(results: dict[str, Any]) -> list[list[str]]:
    """Every order in every world, for people: its own figures, and how far the served one is ahead of it."""
    table = [["WORLD", "USERS", "", "ORDER", *(f"{m.upper()}: OWN, SERVED AHEAD" for m in (NDCG, RECALL, GAUC)), "ECE"]]
    for name, one in results["worlds"].items():
        for part in ("everybody", "known_users", "new_users"):
            if part not in one:
                continue
            for order, own in one[part]["orders"].items():
                ahead = one[part]["ahead"].get(order)
                table.append(
                    [
                        *(name, part.replace("_", " "), str(one[part]["users"]), order),
                        *(_cell(own[metric], None if ahead is None else ahead[metric]) for metric in METRICS),
                        f"{one['ece']:.3f}" if order == SERVED and part == "everybody" else "",
                    ]
                )
    return table


def _cell(own: float, ahead: dict[str, float] | None) -> str:
    if ahead is None:
        return f"{own:.4f}"
    return f"{own:.4f} {ahead['mean']:+.4f} ± {ahead['mean'] - ahead['low']:.4f}"
