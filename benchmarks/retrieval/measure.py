"""Fits contenders, asks them, and measures: each user counts once, and models are compared on the same users."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from benchmarks.retrieval.datasets import Dataset
from benchmarks.retrieval.protocols import TEST, Metric, Protocol, Task
from feature_store.arrays import Float64, Int64
from offline_training.evaluation import metrics
from offline_training.progress import Progress

_SCORES = 20_000_000  # in memory at a time

Score = Callable[[Int64, Int64], Float64]  # users (n,) ascending and rows of the log that are their past -> (n, items)


@dataclass(frozen=True)
class FittedModel:
    """What came of a fit: one way to score, or several (by name) of the same training; what to keep of it; and what
    else to measure of it on the test."""

    scores: dict[str, Score]
    details: dict[str, Any] = field(default_factory=dict)
    compare: Callable[[Task], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Contender:
    """A model with its grid. fit(dataset, rows of the log to learn from, seed, **parameters); `seeded`: chance plays a
    part in it, so it is measured with every seed."""

    name: str
    fit: Callable[..., FittedModel]
    grid: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    seeded: bool = False


class TestResults(NamedTuple):
    """A model on a task, by seed: values (n,) of each metric, and seconds."""

    values: list[dict[str, Float64]]
    fit_seconds: list[float]
    score_seconds: list[float]
    details: list[dict[str, Any]]


def tune(
    contender: Contender, protocol: Protocol, seed: int
) -> tuple[dict[str, Any], list[tuple[dict[str, Any], float]]]:
    """The parameters of the grid with the largest mean metric on validation, and all that were tried with theirs."""
    if len(contender.grid) == 1:
        return contender.grid[0], []
    tried = []
    for parameters in contender.grid:
        fitted = contender.fit(protocol.dataset, protocol.validation.train, seed, **parameters)
        (score,) = fitted.scores.values()
        values = ask(score, protocol.dataset, protocol.validation, [protocol.tuned_for])
        tried.append((parameters, float(values[label(protocol.tuned_for)].mean())))
    return max(tried, key=lambda one: one[1])[0], tried


def measure(
    contender: Contender, parameters: dict[str, Any], protocol: Protocol, seeds: list[int], progress: Progress
) -> dict[tuple[str, str], TestResults]:
    """(model, test) -> figures. Tests that share their training rows share the fit."""
    found: dict[tuple[str, str], TestResults] = {}
    for number, seed in enumerate(seeds if contender.seeded else seeds[:1]):
        progress(number / len(seeds), f"{contender.name}, seed {seed}")
        fits: dict[int, tuple[FittedModel, float]] = {}
        for name, task in protocol.tests.items():
            if id(task.train) not in fits:
                started = time.perf_counter()
                fitted = contender.fit(protocol.dataset, task.train, seed, **parameters)
                fits[id(task.train)] = fitted, time.perf_counter() - started
            fitted, seconds = fits[id(task.train)]
            if name == TEST and fitted.compare is not None:
                fitted.details["ranker"] = fitted.compare(task)
            for model, score in fitted.scores.items():
                one = found.setdefault((model, name), TestResults([], [], [], []))
                started = time.perf_counter()
                one.values.append(ask(score, protocol.dataset, task, protocol.metrics))
                one.score_seconds.append(time.perf_counter() - started)
                one.fit_seconds.append(seconds)
                one.details.append(fitted.details)
    return found


def ask(score: Score, dataset: Dataset, task: Task, wanted: list[Metric]) -> dict[str, Float64]:
    """Each metric (n,) of every user: all items that are not in their past are ranked, ties against the model."""
    log, found = dataset.log, []
    for start, stop in _blocks(len(task.users), log.items):
        users = task.users[start:stop]
        low, high = np.searchsorted(log.user[task.past], [users[0], users[-1] + 1])
        past = task.past[low:high]
        scores = np.array(score(users, past))
        scores[np.searchsorted(users, log.user[past]), log.item[past]] = -np.inf
        found += [metrics.places(own, task.relevant[start + row]) for row, own in enumerate(scores)]
    measures = {"recall": metrics.recall, "hit_rate": metrics.hit_rate, "ndcg": metrics.ndcg}
    return {label((name, size)): np.array([measures[name](places, size) for places in found]) for name, size in wanted}


def label(metric: Metric) -> str:
    """`ndcg@10`."""
    return f"{metric[0]}@{metric[1]}"


def _blocks(users: int, items: int) -> Iterator[tuple[int, int]]:
    size = max(1, _SCORES // items)
    for start in range(0, users, size):
        yield start, min(users, start + size)
