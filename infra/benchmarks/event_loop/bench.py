"""How long the longest task on the event loop of an API process takes, and how late the loop is.

One API process, as `matchloop serve` starts it, on embedded servers, with a generated release: 64 dimensions, three
edges for each item. It follows two partitions of a fleet at 1,000 decisions a second (1,200 to 6,000 rows a commit, now
and then 60,000), takes in 500 new items every two seconds, and answers 20 visits a second; the prior is fitted when it
is due. At the end it swaps to another namespace of the release, loaded beside the one that serves.

A task is measured by the CPU time of the loop's thread, which other processes on the machine do not lengthen. Its wall
time, and the lag of the loop, hold besides the time for which other threads keep the interpreter or the core.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from feature_store.bandit_state import BanditStore
from feature_store.contracts.errors import InvalidInput, Unavailable
from feature_store.online.store import OnlineStore
from infra import servers
from infra.benchmarks.bench import Goal
from infra.benchmarks.event_loop.api import Report
from infra.benchmarks.event_loop.load import Fleet, Visitors
from infra.benchmarks.large_release import Installation, publish
from infra.connections import redis_client
from infra.leash import leashed
from infra.programs import BROKER, REDIS
from infra.settings import Settings, load
from infra.stack import Stack
from offline_training.progress import Progress, section
from offline_training.simulation.client import Client, Failure

FEWEST_ITEMS = 1_000
TARGET_MS = 20.0
_LOADED_SECONDS = 150.0
_LOOK_SECONDS = 0.1
_AFTER_SWAP_SECONDS = 5.0
_END_SECONDS = 120.0  # it may be loading
_TIMEOUT_SECONDS = 30.0
_CONNECTIONS = 64
_LONGEST = 5


class Phase(NamedTuple):
    """A part of the run, by the monotonic clock."""

    name: str
    begin: float
    end: float


def run(seed: int, progress: Progress, *, items: int, seconds: float) -> tuple[dict[str, Any], list[Goal]]:
    """Measures a release of so many items for `seconds`, and during a swap. Raises InvalidInput if they are too few."""
    if items < FEWEST_ITEMS:
        raise InvalidInput(f"--items {items} are too few for a graph, it takes {FEWEST_ITEMS:,} at least.")
    values = load().revealed()
    values["kafka"] |= {"bootstrap": None, "partitions": 2}
    values["redis"]["url"] = None
    values["serving"] |= {"api_key": None, "host": servers.LOOPBACK, "workers": 1, "drain_seconds": 0.0}
    with tempfile.TemporaryDirectory(prefix="matchloop-event-loop-", ignore_cleanup_errors=True) as home:
        values["home"], values["lake"]["url"] = home, None
        with Stack(Settings(**values)) as stack:
            stack.start(BROKER, REDIS, progress=section(progress, 0.0, 0.05))
            progress(0.05, f"making a release of {items:,} items")
            installed = publish(stack.settings, items, seed)
            report = Path(home) / "report.json"
            with _api(stack, report) as api:
                measured = asyncio.run(_measure(stack, installed, api, seed, seconds, section(progress, 0.4, 1.0)))
            found = msgspec.json.decode(report.read_bytes(), type=Report)
    phases = measured.pop("phases")
    results = {
        "items": items,
        "edges": installed.graph.n_edges,
        **measured,
        "prior_fits": found.fits,
        "prior_fit_seconds": found.fit_seconds / found.fits if found.fits else None,
        "api_peak_gb": found.peak_gb,
        "phases": {phase.name: summary(found, phase) for phase in phases},
    }
    serving = summary(found, Phase("serving", phases[1].begin, phases[-1].end))  # nobody is answered while it loads
    return results, [
        Goal(
            name="longest_task.cpu", value=serving["longest"][0]["cpu_ms"], target=TARGET_MS, unit="ms", better="lower"
        ),
        Goal(name="lag.p99", value=serving["lag_ms"]["p99"], target=TARGET_MS, unit="ms", better="lower"),
    ]


def summary(report: Report, phase: Phase) -> dict[str, Any]:
    """Of a phase: the longest tasks by CPU time, one of a name; the longest wall time; the loop's lag; and how much of
    the longest lag no task on the loop worked for: threads that held the interpreter, or cores that were busy."""
    ran = [r for r in report.ran if phase.begin <= r.end < phase.end]
    lags = [lag for lag in report.lags if phase.begin <= lag.at < phase.end]
    longest = {r.name: r for r in sorted(ran, key=lambda r: r.cpu)}  # the last of a name stays
    stalls = [
        lag.seconds - sum(r.cpu for r in ran if lag.at - lag.seconds < r.end <= lag.at)
        for lag in sorted(lags, key=lambda lag: -lag.seconds)[:_LONGEST]
    ]
    p50, p99, worst = np.quantile([lag.seconds for lag in lags] or [np.nan], [0.5, 0.99, 1.0]).tolist()
    return {
        "seconds": phase.end - phase.begin,
        "longest": [
            {"task": r.name, "cpu_ms": r.cpu * 1000, "wall_ms": r.wall * 1000}
            for r in sorted(longest.values(), key=lambda r: -r.cpu)[:_LONGEST]
        ],
        "longest_cpu_ms": max((r.cpu for r in ran), default=0.0) * 1000,
        "longest_wall_ms": max((r.wall for r in ran), default=0.0) * 1000,
        "lag_ms": {"count": len(lags), "p50": p50 * 1000, "p99": p99 * 1000, "max": worst * 1000},
        "longest_stall_ms": max(stalls, default=0.0) * 1000,
    }


def rows(results: dict[str, Any]) -> list[list[str]]:
    """A row per phase."""
    head = ["phase", "seconds", "longest task", "CPU", "longest wall", "lag p50", "lag p99", "lag max", "other threads"]
    table = [head]
    for name, found in results["phases"].items():
        lag, longest = found["lag_ms"], found["longest"]
        figures = [
            found["longest_cpu_ms"],
            found["longest_wall_ms"],
            lag["p50"],
            lag["p99"],
            lag["max"],
            found["longest_stall_ms"],
        ]
        table.append(
            [
                name,
                f"{found['seconds']:.0f}",
                longest[0]["task"] if longest else "",
                *(f"{value:.1f} ms" for value in figures),
            ]
        )
    return table


class _Api(NamedTuple):
    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def _api(stack: Stack, report: Path) -> Iterator["_Api"]:
    port, operations = servers.free_port(), servers.free_port()
    command = [sys.executable, "-m", "infra.benchmarks.event_loop.api", str(port), str(operations), str(report)]
    process = subprocess.Popen(
        leashed(command, os.getpid(), signal.SIGKILL), env=stack.environment(), stdout=subprocess.DEVNULL
    )
    try:
        yield _Api(f"http://{servers.LOOPBACK}:{port}", process)
        process.terminate()
        if process.wait(_END_SECONDS):
            raise Unavailable(f"The API process ended with {process.returncode}.")
    finally:
        process.kill()
        process.wait()


async def _measure(
    stack: Stack, installed: Installation, api: _Api, seed: int, seconds: float, progress: Progress
) -> dict[str, Any]:
    settings, began = stack.settings, time.monotonic()
    first, second = installed.namespaces
    with redis_client(settings) as stored:
        state, online = BanditStore(stored, settings.redis), OnlineStore(stored, settings.redis)
        names = [active.namespace for active in installed.namespaces]
        fleet = [
            Fleet(state, names, partition, installed.log, installed.graph, seed)
            for partition in range(settings.kafka.partitions)
        ]
        async with Client(api.url, None, _TIMEOUT_SECONDS, _CONNECTIONS) as client:
            progress(0.0, "loading it")
            await _serves(api, client, first.namespace)
            loaded = time.monotonic()
            progress(0.3, "following a fleet")
            visitors, stop = Visitors(client, seed), asyncio.Event()
            coming = asyncio.create_task(visitors.come(stop))
            for partition in fleet:
                partition.start()
            await asyncio.sleep(seconds)
            followed = time.monotonic()
            progress(0.7, "swapping")
            await asyncio.to_thread(online.deployment.activate, second)
            await _serves(api, client, second.namespace)
            swapped = time.monotonic()
            await asyncio.sleep(_AFTER_SWAP_SECONDS)
            ended = time.monotonic()
            for partition in fleet:
                await asyncio.to_thread(partition.stop)
            stop.set()
            await coming
    return {
        "commits": sum(partition.commits for partition in fleet),
        "rows": sum(partition.rows for partition in fleet),
        "requests": visitors.requests,
        "new_items": visitors.items,
        "failures": visitors.failures,
        "load_seconds": loaded - began,
        "swap_seconds": swapped - followed,
        "phases": [
            Phase("loading", began, loaded), Phase("following", loaded, followed), Phase("swapping", followed, ended),
        ],
    }  # fmt: skip


async def _serves(api: _Api, client: Client, namespace: str) -> None:
    deadline = time.monotonic() + _LOADED_SECONDS
    while True:
        answer = await client.parameters()
        if not isinstance(answer, Failure) and answer.namespace == namespace:
            return
        if api.process.poll() is not None or time.monotonic() > deadline:
            said = answer.detail if isinstance(answer, Failure) else answer.namespace
            raise Unavailable(f"The API does not serve {namespace}, or not within {_LOADED_SECONDS:.0f} s: {said}")
        await asyncio.sleep(_LOOK_SECONDS)
