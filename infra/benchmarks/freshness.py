"""The freshness bench: how long until what happened is what answers are made with, under load.

A stack of its own on embedded servers with two API processes, all on this machine, load generator included. Half of
the requests ask for a slate of 20 out of 3,000 items, half report what a visitor did with one (a view of each of its
first three items, and a click on one of them). Every feedback is followed from its 202 to the first answer made with
parameters that hold it; an item from the answer to its PUT or DELETE to the first answer with or without it, by asking
for that item alone.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from typing import Any, NamedTuple

import numpy as np
import psutil

from feature_store.contracts.catalogue import Item
from infra.benchmarks.bench import Goal
from infra.benchmarks.small_stack import small_stack
from infra.drain import drain
from infra.stack import Stack
from offline_training.progress import Progress, section
from offline_training.simulation.client import Client, Failure, FeedbackEvent
from offline_training.simulation.freshness import Delays, FeedbackFreshness

_CHANGES: dict[str, dict[str, Any]] = {
    "serving": {"workers": 2, "api_key": None, "host": "127.0.0.1", "port": 0},
}
_RELEASE = {
    "dimensions": 32,
    "clusters": 200,
    "edges_per_cluster": 100,
    "active_clusters": 10,
    "history_length": 20,
}
_ITEMS = 3_000
_USERS = 5_000
_SLATE_SIZE = 20
_VIEWED = 3
_WARM_UP_SECONDS = 3.0
_CONNECTIONS = 64
_TIMEOUT_SECONDS = 10.0
_ITEM_PAUSE_SECONDS = 0.1
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 20.0


class _Usage(NamedTuple):
    wall: float
    cpu: dict[str, float]  # seconds, by program


class Traffic:
    """Visits at a fixed rate, whether the API keeps up or not."""

    def __init__(self, client: Client, freshness: FeedbackFreshness, failures: Counter[str], seed: int) -> None:
        self.latencies: dict[str, list[float]] = {"recommendations": [], "feedback": []}
        self.finished = 0  # requests
        self.unlogged = 0
        self._client = client
        self._freshness = freshness
        self._failures = failures
        self._rng = np.random.default_rng(seed)

    async def run(self, visits_per_second: float, seconds: float) -> None:
        """Starts visits for so long, and waits until all are over."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as visits:
            for number in range(round(visits_per_second * seconds)):
                await asyncio.sleep(began + number / visits_per_second - time.monotonic())
                visits.create_task(self._visit(number))

    async def _visit(self, number: int) -> None:
        began = time.monotonic()
        answer = await self._client.recommend(f"visitor {self._rng.integers(_USERS)}", _SLATE_SIZE, "home")
        answered = self._note("recommendations", began)
        if isinstance(answer, Failure):
            self._failures[answer.kind] += 1
            return
        self._freshness.answered(answer.parameter_offsets, answered)
        if not answer.logged:
            self.unlogged += 1
            return
        slate = [item.id for item in answer.items]
        happened = [("view", item) for item in slate[:_VIEWED]] + [("click", slate[int(self._rng.integers(_VIEWED))])]
        events = [
            FeedbackEvent(
                decision_id=answer.decision_id, item_id=item, type=kind, value=1.0, time=0, event_id=f"{number}-{i}"
            )
            for i, (kind, item) in enumerate(happened)
        ]
        began = time.monotonic()
        receipt = await self._client.send_feedback(events)
        accepted = self._note("feedback", began)
        if isinstance(receipt, Failure):
            self._failures[receipt.kind] += 1
        else:
            self._freshness.accepted(receipt.events, accepted)

    def _note(self, what: str, began: float) -> float:
        now = time.monotonic()
        self.latencies[what].append((now - began) * 1000)
        self.finished += 1
        return now


class ItemChanges:
    """New items, one after the other: put, seen in answers, and then deleted or switched off."""

    def __init__(self, client: Client, failures: Counter[str]) -> None:
        self.to_answers, self.from_answers = Delays(), Delays()
        self._client = client
        self._failures = failures
        self.finished = 0  # requests

    async def run(self, stop: asyncio.Event) -> None:
        """Until told to stop."""
        number = 0
        while not stop.is_set():
            item = Item(id=f"new {number}", title=f"New {number}", categories=["space"])
            await self._follow(self.to_answers, self._client.put_item(item), item.id, True)
            gone = Item(id=item.id, title=item.title, categories=item.categories, available=False)
            change = self._client.delete_item(item.id) if number % 2 else self._client.put_item(gone)
            await self._follow(self.from_answers, change, item.id, False)
            number += 1
            await asyncio.sleep(_ITEM_PAUSE_SECONDS)

    async def _follow(self, measured: Delays, change: Awaitable[Failure | None], item: str, wanted: bool) -> None:
        failure = await change
        self.finished += 1
        since = time.monotonic()
        if failure is not None:
            self._failures[failure.kind] += 1
            return
        while time.monotonic() - since < _PATIENCE_SECONDS:
            self.finished += 1
            answer = await self._client.recommend(f"prober {self.finished}", 1, "probe", only=[item])
            if isinstance(answer, Failure):
                self._failures[answer.kind] += 1
            elif bool(answer.items) == wanted:
                measured.samples_ms.append((time.monotonic() - since) * 1000)
                return
            await asyncio.sleep(_POLL_SECONDS)
        measured.open += 1


def run(seed: int, progress: Progress, *, seconds: float, rate: float) -> tuple[dict[str, Any], list[Goal]]:
    """Measures for `seconds` at `rate` requests a second."""
    with small_stack("freshness", _CHANGES, _ITEMS, _RELEASE, section(progress, 0, 0.3)) as stack:
        return asyncio.run(_measure(stack, seed, seconds, rate, section(progress, 0.3, 1)))


async def _measure(
    stack: Stack, seed: int, seconds: float, rate: float, progress: Progress
) -> tuple[dict[str, Any], list[Goal]]:
    url = stack.endpoints.api
    assert url is not None
    failures: Counter[str] = Counter()
    async with Client(url, None, _TIMEOUT_SECONDS, _CONNECTIONS) as client:
        progress(0.0, "warming up")
        await Traffic(client, _follower(client, failures), failures, seed).run(rate / 2, _WARM_UP_SECONDS)
        await asyncio.to_thread(drain, stack.settings)  # the first run on a machine compiles kernels meanwhile
        progress(0.1, f"{rate:.0f} requests/s")
        freshness = _follower(client, failures)
        traffic, items = Traffic(client, freshness, failures, seed + 1), ItemChanges(client, failures)
        stop = asyncio.Event()
        changing = asyncio.create_task(items.run(stop))
        before = _usage(stack)
        await traffic.run(rate / 2, seconds)
        after = _usage(stack)
        stop.set()
        await changing
        await freshness.finish()
    wall, requests = after.wall - before.wall, traffic.finished + items.finished
    cpu = {name: (after.cpu[name] - before.cpu[name]) / wall for name in after.cpu}
    api = sum(share for name, share in cpu.items() if name.startswith("api"))
    found = {
        "feedback_to_answer": _quantiles(freshness.to_answer.samples_ms),
        "item_to_answers": _quantiles(items.to_answers.samples_ms),
        "item_gone_from_answers": _quantiles(items.from_answers.samples_ms),
    }
    latency = {name: _quantiles(samples) for name, samples in traffic.latencies.items()}
    results = {
        "requests_per_second": {"asked": rate, "answered": traffic.finished / wall, "with_probes": requests / wall},
        "milliseconds": {**found, "latency": latency},
        "cpu_share_of_a_core": cpu,
        "api_cpu_ms_per_request": api * wall / requests * 1000,
        "answers_without_exploration": traffic.unlogged,
        "failures": failures,
        "never_measured": freshness.to_answer.open + items.to_answers.open + items.from_answers.open,
    }
    return results, [
        _goal("requests_per_second", traffic.finished / wall, 0.98 * rate, "1/s", "higher"),
        _goal("failures", float(failures.total()), 0.0, "requests", "lower"),
        _goal("feedback_to_answer.p50", found["feedback_to_answer"]["p50"], 200.0, "ms", "lower"),
        _goal("feedback_to_answer.p99", found["feedback_to_answer"]["p99"], 1000.0, "ms", "lower"),
        _goal("item_to_answers.p99", found["item_to_answers"]["p99"], 2000.0, "ms", "lower"),
        _goal("item_gone_from_answers.p99", found["item_gone_from_answers"]["p99"], 1000.0, "ms", "lower"),
    ]


def _follower(client: Client, failures: Counter[str]) -> FeedbackFreshness:
    follower = FeedbackFreshness(client, time.monotonic, lambda failure: failures.update([failure.kind]))
    follower.to_parameters.unmeasured = "every answer is looked at: requests of its own would be load"
    return follower


def _usage(stack: Stack) -> _Usage:
    pids = {program.name: program.pid for program in stack.status() if program.pid}
    cpu = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
    cpu["load generator"] = psutil.Process().cpu_times()
    return _Usage(time.monotonic(), {name: times.user + times.system for name, times in cpu.items()})


def _quantiles(samples_ms: list[float]) -> dict[str, float]:
    if not samples_ms:
        return {"count": 0, "p50": float("nan"), "p99": float("nan")}
    p50, p99, worst = np.quantile(samples_ms, [0.5, 0.99, 1.0]).tolist()
    return {"count": len(samples_ms), "p50": p50, "p99": p99, "max": worst}


def _goal(name: str, value: float, target: float, unit: str, better: Any) -> Goal:
    return Goal(name=name, value=value, target=target, unit=unit, better=better)
