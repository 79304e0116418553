"""Who is asked what: the published protocol of each data set, and the same one step earlier for tuning."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.retrieval.datasets import Dataset, gowalla, movielens_1m, movielens_100k
from feature_store.arrays import Bool, Int64
from feature_store.contracts.errors import InvalidInput
from offline_training.evaluation.splits import cold, leave_last_out, split_time

TEST = "test"
NEVER_SEEN, HIDDEN_ITEMS = "never_seen_items", "hidden_items"
TRAINING_SHARE = 0.8  # of the time span
VALIDATION_SHARE = 0.1  # of each user's items, where nothing has a time
HIDDEN_SHARE = 0.1  # of the items

Metric = tuple[str, int]  # name and size


@dataclass(frozen=True)
class Task:
    """What models learn from and what they are asked.

    train: rows of the log to learn from. past: rows of the log that the users asked about (n,), ascending, are known
    by; they are ranked every item that is not in it. relevant: for each of them the items that they wanted. slices:
    parts of the users, (n,) each.
    """

    train: Int64
    users: Int64
    past: Int64
    relevant: list[Int64]
    slices: dict[str, Bool]


@dataclass(frozen=True)
class Protocol:
    """validation: to tune on, by the metric `tuned_for`; nothing in it is of a test. published: figures of others, from
    their papers: never measured here."""

    dataset: Dataset
    validation: Task
    tests: dict[str, Task]
    metrics: list[Metric]
    tuned_for: Metric
    published: dict[str, dict[str, float]]


def read_protocol(name: str, data: Path) -> Protocol:
    """Raises InvalidInput if the name is unknown, or the files of the data set are not in the folder `data`."""
    if name not in PROTOCOLS:
        raise InvalidInput(f"There is no protocol for {name!r}. Give --dataset {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name](data)


def _movielens_1m(data: Path) -> Protocol:
    """Leave-last-out. Models learn from all but the last two of each user; the last but one is known at the test."""
    dataset, tied = movielens_1m(data)
    train, validation, test = leave_last_out(dataset.log.user)
    known = ~np.isnan(tied[test])
    slices = {"last_two_tied": known & (tied[test] == 1), "last_two_not_tied": known & (tied[test] == 0)}
    return Protocol(
        dataset=dataset,
        validation=_task(dataset, train, train, validation),
        tests={TEST: _task(dataset, train, np.sort(np.append(train, validation)), test, slices)},
        metrics=[("hit_rate", 10), ("ndcg", 10), ("hit_rate", 50), ("hit_rate", 200)],
        tuned_for=("ndcg", 10),
        published={
            "SASRec": {"hit_rate@10": 0.2853, "ndcg@10": 0.1603},
            "HSTU": {"hit_rate@10": 0.3097, "ndcg@10": 0.1720},
            "HSTU-large": {"hit_rate@10": 0.3294, "ndcg@10": 0.1893},
        },
    )


def _movielens_100k(data: Path) -> Protocol:
    """Global time split: learn from the first four fifths of the time span, be asked for what everybody liked in the
    rest. The tests of new items have a part of the items that the log does not know: those that nobody had rated yet,
    and a tenth of all items that is hidden from training."""
    dataset = movielens_100k(data)
    log = dataset.log
    cut = split_time(log.time, TRAINING_SHARE)
    train, later = np.flatnonzero(log.time < cut), np.flatnonzero(log.time >= cut)
    asked = later[dataset.positive[later]]
    hidden = np.random.default_rng(0).random(log.items) < HIDDEN_SHARE
    without = train[~hidden[log.item[train]]]
    earlier = split_time(log.time[train], TRAINING_SHARE)
    first, second = train[log.time[train] < earlier], train[log.time[train] >= earlier]
    return Protocol(
        dataset=dataset,
        validation=_task(dataset, first, first, second[dataset.positive[second]]),
        tests={
            TEST: _by_novelty(dataset, train, asked),
            NEVER_SEEN: _task(dataset, train, train, asked[cold(log.item[asked], log.item[train])]),
            HIDDEN_ITEMS: _task(dataset, without, without, asked[hidden[log.item[asked]]]),
        },
        metrics=[("recall", 50), ("ndcg", 10)],
        tuned_for=("ndcg", 10),
        published={},
    )


def _gowalla(data: Path) -> Protocol:
    """The published split, which is a random one: nothing in this data set has a time. To tune, a tenth of what each
    user did in training is held out the same way."""
    dataset, test = gowalla(data)
    train = np.setdiff1d(np.arange(len(dataset.log.user)), test)
    held = np.random.default_rng(0).random(len(train)) < VALIDATION_SHARE
    return Protocol(
        dataset=dataset,
        validation=_task(dataset, train[~held], train[~held], train[held]),
        tests={TEST: _task(dataset, train, train, test)},
        metrics=[("recall", 20), ("ndcg", 20)],
        tuned_for=("ndcg", 20),
        published={
            "MF-BPR": {"recall@20": 0.1291, "ndcg@20": 0.1109},
            "Mult-VAE": {"recall@20": 0.1641, "ndcg@20": 0.1335},
            "LightGCN": {"recall@20": 0.1830, "ndcg@20": 0.1554},
            "UltraGCN": {"recall@20": 0.1862, "ndcg@20": 0.1580},
        },
    )


PROTOCOLS: dict[str, Callable[[Path], Protocol]] = {
    "ml-1m": _movielens_1m,
    "ml-100k": _movielens_100k,
    "gowalla-lightgcn": _gowalla,
}


def _task(dataset: Dataset, train: Int64, known: Int64, asked: Int64, slices: dict[str, Bool] | None = None) -> Task:
    """asked: rows of the log, by user, that are the answers. known: rows that are the past of whoever is asked."""
    user = dataset.log.user[asked]
    users, first = np.unique(user, return_index=True)
    return Task(
        train=train,
        users=users,
        past=known[np.isin(dataset.log.user[known], users)],
        relevant=np.split(dataset.log.item[asked], first[1:]),
        slices=slices or {},
    )


def _by_novelty(dataset: Dataset, train: Int64, asked: Int64) -> Task:
    new = cold(np.unique(dataset.log.user[asked]), dataset.log.user[train])
    return _task(dataset, train, train, asked, {"known_users": ~new, "new_users": new})
