"""The bandit bench: how fast decisions, updates and the way from the log to parameters are, and what they weigh."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bandit import kernels, loading
from benchmarks.bandit.log import LogBench
from benchmarks.bandit.rounds import rates
from benchmarks.bandit.world import PAPER, SMALL
from infra.benchmarks.bench import Goal
from infra.benchmarks.large_graph import Size
from infra.connections import redis_client, redis_url
from infra.programs import BROKER, REDIS
from infra.settings import load
from infra.stack import Stack
from offline_training.progress import Progress, section

_DECISIONS = 4_000
_MORE_DECISIONS = 12_000  # so that what an updater takes to begin is little of what it takes in all
_ROUNDS = 5
_CPU_ROUNDS = 3
_LEARNT = 0.1  # share of the items with rows in Redis when a serving process starts
_WARM_UP = Size(200, 2_000)


def run(seed: int, progress: Progress) -> tuple[dict[str, Any], list[Goal]]:
    """Runs every part on embedded servers in a home of their own."""
    results: dict[str, Any] = {"decisions": {}, "updates": {}}
    for number, (name, size) in enumerate({"small": SMALL, "paper": PAPER}.items()):
        progress(0.2 * number, f"decisions and updates, {size.edges} edges")
        results["decisions"][name] = kernels.decisions(size, seed)
        results["updates"][name] = kernels.updates(size, seed)
    with _servers(section(progress, 0.4, 0.5)) as stack:
        results["log"] = _log(LogBench(stack.settings), seed, section(progress, 0.5, 0.8))
        progress(0.8, "a serving process loads 3M edges")
        with redis_client(stack.settings) as client:
            names = [loading.prepare(stack.settings.home, client, size, _LEARNT, seed) for size in (_WARM_UP, PAPER)]
        loaded = loading.measure(stack.settings.home, redis_url(stack.settings), *names)
        results["serving_process"] = loaded
    return results, _goals(results)


def _log(bench: LogBench, seed: int, progress: Progress) -> dict[str, Any]:
    progress(0.0, f"a log of {_DECISIONS} decisions")
    bench.append(_DECISIONS, seed)
    progress(0.1, "bare consumer and updater in turn")
    works = {
        "bare_consumer": bench.bare,
        "bare_consumer_without_native_checksums": bench.bare_as_installed_alone,
        "updater": bench.updater,
    }
    read = rates(works, _ROUNDS)
    found = {"records": bench.records, "events": bench.events, "events_read": {n: r._asdict() for n, r in read.items()}}
    progress(0.5, "one updater process and two in turn")
    bench.append(_MORE_DECISIONS, seed + 1)
    cpu = [[bench.cpu_per_event(processes) for processes in (1, 2)] for _ in range(_CPU_ROUNDS)]
    return found | {
        "events_shared": bench.events,
        "cpu_microseconds_per_event": {
            name: 1e6 * sorted(turn[column] for turn in cpu)[_CPU_ROUNDS // 2]
            for column, name in enumerate(("one_updater", "two_updaters"))
        },
    }


def _goals(results: dict[str, Any]) -> list[Goal]:
    made, read = results["decisions"]["paper"]["made"], results["log"]["events_read"]
    cpu = results["log"]["cpu_microseconds_per_event"]
    loaded: loading.Loaded = results["serving_process"]
    # One core: seconds of its time. What has servers in it: seconds that pass.
    decisions, one, peer = (
        made[name]["per_cpu_second"] for name in ("score_and_slate", "score_and_one", "vowpalwabbit")
    )
    updates = results["updates"]["paper"]["made"]["per_cpu_second"]
    share = read["updater"]["per_second"] / read["bare_consumer"]["per_second"]
    sharing = cpu["two_updaters"] / cpu["one_updater"]
    return [
        Goal(name="decisions_to_vowpalwabbit", value=one / peer, target=100.0, unit="x", better="higher"),
        Goal(name="decisions", value=decisions, target=1e5, unit="1/s", better="higher"),
        Goal(name="edge_updates", value=updates, target=5e6, unit="1/s", better="higher"),
        Goal(name="updater_to_bare_consumer", value=share, target=0.6, unit="x", better="higher"),
        Goal(name="cpu_of_two_updaters_to_one", value=sharing, target=1.1, unit="x", better="lower"),
        Goal(name="serving_memory", value=loaded.megabytes, target=200.0, unit="MB", better="lower"),
        Goal(name="start_up_load", value=loaded.seconds, target=5.0, unit="s", better="lower"),
    ]


@contextmanager
def _servers(progress: Progress) -> Iterator[Stack]:
    given = load()
    kafka = given.kafka.model_copy(update={"bootstrap": None, "partitions": 2})
    redis = given.redis.model_copy(update={"url": None})
    with tempfile.TemporaryDirectory(prefix="matchloop-bandit-", ignore_cleanup_errors=True) as home:
        settings = given.model_copy(update={"home": Path(home), "kafka": kafka, "redis": redis})
        with Stack(settings) as stack:
            stack.start(BROKER, REDIS, progress=progress)
            yield stack
