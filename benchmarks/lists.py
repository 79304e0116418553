"""`matchloop bench lists`: what PI2I finds, against the lists it is made of and the two towers, for as many items.

Everything is made as `matchloop train` makes it, of what came before the test. Then every positive of the test is asked
for at its own moment, by what the user had done until then: what serving knows. Nothing is tuned.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.retrieval.item_lists import spark_lists
from benchmarks.retrieval.ours import catalogue_of, sequences
from benchmarks.retrieval.protocols import TEST, Protocol, read_protocol
from feature_store.arrays import Bool, Float32, Float64, Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import ITEM_FEATURES
from infra.benchmarks.bench import Goal
from infra.settings import load
from offline_training.data.item_lists import SEQUENTIAL, ItemCf, Swing
from offline_training.data.training_sets import VALIDATION_SHARE
from offline_training.evaluation.metrics import interval
from offline_training.progress import Progress, section
from offline_training.retrieval.pi2i.lists import hit_rates, knee
from offline_training.retrieval.pi2i.moments import Moments, moments
from offline_training.retrieval.pi2i.scorer import PairScorer
from offline_training.retrieval.pi2i.training import fit_scorer
from offline_training.retrieval.training import finish_two_tower, fit_two_tower
from offline_training.settings import TrainingSettings
from online_serving.item_lists import ItemLists

ML_100K, ML_1M = "ml-100k", "ml-1m"
SIZES = (10, 50, 200)
LONGEST = 1_000  # lists that the picture shows; those that are asked are no longer than `train` makes them
ITEM_CF, SEQUENTIAL_CF, SWING = "item_cf", "item_cf_sequential", "swing"
RULES: dict[str, ItemCf | Swing] = {
    ITEM_CF: ItemCf(target_power=0.5, newest=200),  # a cosine in which heavy users count less, as of old
    SEQUENTIAL_CF: SEQUENTIAL,
    SWING: Swing(),
}
PI2I_RULE = SEQUENTIAL_CF  # what `train` uses
PI2I, TOWERS, UNION = "pi2i", "two_towers", "pi2i_and_two_towers"

Find = Callable[[int, Bool], Int64]  # row of the moments, and the items that may be found -> items, best first


@dataclass(frozen=True)
class TowersInTime:
    """What the two towers make of the data: the window's moments and item vectors (I, d) before it, and those of the
    test, by the finished towers."""

    window: Moments
    vectors_then: Float32
    test: Moments
    vectors: Float32


def run(
    data: Path | None, seed: int, progress: Progress, *, dataset: str, out: Path | None
) -> tuple[dict[str, Any], list[Goal]]:
    """data: folder that holds the data set. out: folder for the pictures.

    Raises InvalidInput if data is missing or the data set is not one of ml-100k and ml-1m.
    """
    if dataset not in (ML_100K, ML_1M):
        raise InvalidInput(f"Bench 'lists' knows {ML_100K} and {ML_1M}, not {dataset!r}.")
    if data is None:
        raise InvalidInput(f"Bench 'lists' needs --data: the folder with {dataset}.")
    protocol = read_protocol(dataset, data)
    train = protocol.tests[TEST].train
    wanted = train[protocol.dataset.positive[train]]
    start = int(np.quantile(protocol.dataset.log.time[wanted], 1 - VALIDATION_SHARE))
    progress(0.0, "making item lists")
    then, now = _lists(protocol, wanted, start)
    # Leave-last-out asks everybody at a time of their own: no time is newer than the others for all.
    timeless = {} if dataset == ML_100K else {"horizon": 0, "drift": False}
    settings = TrainingSettings(seed=seed).model_copy(update=timeless)
    towers = _towers(protocol, train, start, settings, section(progress, 0.3, 0.8))

    rates = {name: hit_rates(lists, towers.window) for name, lists in then.items()}
    knees = {name: knee(own) for name, own in rates.items()}
    lengths = {name: min(length, settings.list_length) for name, length in knees.items()}
    read = then[PI2I_RULE].cut(lengths[PI2I_RULE])
    scorer = fit_scorer(read, towers.vectors_then, towers.window, seed, section(progress, 0.8, 0.9))
    if scorer is None:
        raise InvalidInput(f"{data / dataset} holds too few interactions for a scorer of item lists.")
    progress(0.9, "asking")
    finders = _finders({name: lists.cut(lengths[name]) for name, lists in now.items()}, scorer, towers)
    places = _places(finders, towers.test, len(towers.vectors))
    results = {
        "dataset": dataset,
        "moments": len(towers.test),
        "users": len(np.unique(towers.test.person)),
        "lists": {
            name: {"rule": repr(rule), "hit_rate": rates[name], "knee": knees[name], "length": lengths[name]}
            for name, rule in RULES.items()
        },
        **compared(places, towers.test.person),
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw_lengths(rates, knees, f"{dataset}: what is within the lists", out / f"lists-length-{dataset}.png")
        draw_sizes(results["models"], f"{dataset}: what is found", out / f"lists-size-{dataset}.png")
    return results, goals(dataset, results["ahead"])


def rows(results: dict[str, Any]) -> list[list[str]]:
    """Every model by its hit rates, best last."""
    models = sorted(results["models"].items(), key=lambda one: one[1][f"hit_rate@{SIZES[1]}"]["mean"])
    return [
        ["MODEL", *(f"hit_rate@{size}" for size in SIZES)],
        *(
            [name, *(f"{rate['mean']:.4f} ± {rate['mean'] - rate['low']:.4f}" for rate in own.values())]
            for name, own in models
        ),
    ]


def compared(places: dict[str, Int64], person: Int64) -> dict[str, Any]:
    """models: hit rate by size, and ahead: what PI2I and its union with the towers are ahead of the others by; means
    and intervals over people, of each one's mean over moments. places: of what was wanted, (n,) from 0; person (n,)."""
    users = {
        name: {f"hit_rate@{size}": _by_person(found < size, person) for size in SIZES} for name, found in places.items()
    }

    def spread(values: Float64) -> dict[str, float]:
        return dict(zip(("mean", "low", "high"), interval(values), strict=True))

    return {
        "models": {name: {label: spread(values) for label, values in own.items()} for name, own in users.items()},
        "ahead": {
            name: {
                other: {label: spread(values - users[other][label]) for label, values in users[name].items()}
                for other in users
                if other != name
            }
            for name in (PI2I, UNION)
        },
    }


def goals(dataset: str, ahead: dict[str, Any]) -> list[Goal]:
    """PI2I is ahead of the lists it is made of, whatever their rule, at every size."""
    return [
        Goal(
            name=f"{dataset}.{label}.{PI2I}_ahead_of_{other}",
            value=ahead[PI2I][other][label]["mean"],
            target=0.0,
            unit="",
            better="higher",
        )
        for other in RULES
        for label in ahead[PI2I][other]
    ]


def draw_lengths(rates: dict[str, dict[int, float]], knees: dict[str, int], title: str, path: Path) -> None:
    """Writes a picture: hit rate against the length of the lists, a line for each rule, its knee marked."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for name, own in rates.items():
        [line] = axis.plot(list(own), list(own.values()), marker="o", markersize=3, label=f"{name}, knee {knees[name]}")
        axis.plot(knees[name], own[knees[name]], marker="*", markersize=15, color=line.get_color())
    axis.set(xscale="log", xlabel="list length", ylabel="share of wanted items among those scored", title=title)
    axis.set_xticks(list(own), [str(length) for length in own])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)


def draw_sizes(models: dict[str, Any], title: str, path: Path) -> None:
    """Writes a picture: hit rate of each model with its 95 % interval over people, a panel for each size."""
    figure = Figure(figsize=(3.4 * len(SIZES), 2.6), layout="constrained")
    for axis, size in zip(figure.subplots(1, len(SIZES), sharey=True), SIZES, strict=True):
        found = [own[f"hit_rate@{size}"] for own in models.values()]
        mean = np.array([rate["mean"] for rate in found])
        colors = ["black" if name in (PI2I, UNION) else "lightsteelblue" for name in models]
        axis.barh(list(models), mean, xerr=mean - [rate["low"] for rate in found], color=colors, ecolor="dimgray")
        axis.set_title(f"hit rate of {size} items", fontsize=10)
        axis.grid(axis="x", alpha=0.25)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def _lists(protocol: Protocol, wanted: Int64, start: int) -> tuple[dict[str, ItemLists], dict[str, ItemLists]]:
    """Lists of each rule: of what was wanted before the start of the window, and of all of it."""
    from offline_training.data.spark import spark_session, stop_session  # asked for only when it takes part

    log = protocol.dataset.log
    spark = spark_session(load().spark, "matchloop-bench-lists")
    try:
        then, now = (
            {name: spark_lists(spark, log.take(rows), rule, LONGEST) for name, rule in RULES.items()}
            for rows in (wanted[log.time[wanted] < start], wanted)
        )
    finally:
        stop_session(spark)
    return then, now


def _towers(
    protocol: Protocol, train: Int64, start: int, settings: TrainingSettings, progress: Progress
) -> TowersInTime:
    """Trains the towers in the two steps of offline_training/train_models.py, and keeps what they know after each."""
    dataset, learnt = protocol.dataset, sequences(protocol.dataset, train)
    catalogue = catalogue_of(dataset, np.zeros((len(dataset.items), len(ITEM_FEATURES)), np.float32))  # not read here
    before = learnt.before(start)
    fitted = fit_two_tower(catalogue, learnt, before, settings, progress)
    window, vectors_then = moments(fitted.model, learnt, before), fitted.model.item_vectors()
    model = finish_two_tower(fitted, learnt, settings, progress)
    test = moments(model, sequences(dataset, np.arange(len(dataset.positive))), known_events(protocol))
    return TowersInTime(window, vectors_then, test, model.item_vectors())


def known_events(protocol: Protocol) -> Int64:
    """(users,) how many of each user's events the test does not ask for: all of those whom it does not ask."""
    task, user = protocol.tests[TEST], protocol.dataset.log.user
    known = np.bincount(user, minlength=protocol.dataset.log.users)
    known[task.users] = np.bincount(user[task.past], minlength=len(known))[task.users]
    return known


def _finders(lists: dict[str, ItemLists], scorer: PairScorer, towers: TowersInTime) -> dict[str, Find]:
    test, vectors, most = towers.test, towers.vectors, max(SIZES)

    @torch.no_grad()
    def score(
        triggers: Float32, length: Int64, user: Float32, trigger: Int64, target: Float32, cross: Float32
    ) -> Float32:
        inputs = (triggers, length, user, trigger, target, cross)
        found: Float32 = scorer(*(torch.from_numpy(values) for values in inputs)).numpy()
        return found

    def summed(own: ItemLists) -> Find:
        return lambda row, allowed: own.pairs(own.triggers(test.liked[row]), allowed).target[:most]

    def pi2i(row: int, allowed: Bool) -> Int64:
        return lists[PI2I_RULE].recommend(score, vectors, test.user[row], test.liked[row], allowed, most)

    def nearest(row: int, allowed: Bool) -> Int64:
        scores = np.where(allowed, vectors @ test.user[row], -np.inf)
        found: Int64 = np.argsort(-scores, kind="stable")[:most]
        return found

    return {name: summed(own) for name, own in lists.items()} | {PI2I: pi2i, TOWERS: nearest}


def alternating(first: Int64, second: Int64) -> Int64:
    """The items of both (n,), (m,) by their places, each once: the first's best, the second's best, and so on."""
    place = np.concatenate([2 * np.arange(len(first)), 2 * np.arange(len(second)) + 1])
    items = np.concatenate([first, second])[np.argsort(place)]
    _, at = np.unique(items, return_index=True)
    found: Int64 = items[np.sort(at)]
    return found


def _places(finders: dict[str, Find], test: Moments, items: int) -> dict[str, Int64]:
    """Where each finder puts what was wanted, from 0, and where PI2I and the towers do that take turns; beyond all
    sizes if nowhere."""
    places = {name: np.full(len(test), max(SIZES)) for name in (*finders, UNION)}
    for row, allowed in enumerate(test.allowed(items)):
        found = {name: find(row, allowed) for name, find in finders.items()}
        found[UNION] = alternating(found[PI2I], found[TOWERS])
        for name, named in found.items():
            places[name][row] = next(iter(np.flatnonzero(named == test.wanted[row])), max(SIZES))
    return places


def _by_person(hit: Bool, person: Int64) -> Float64:
    count = np.bincount(person)
    rate: Float64 = np.bincount(person, hit)[count > 0] / count[count > 0]
    return rate
