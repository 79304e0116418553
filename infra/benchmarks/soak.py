"""The soak: steady load for as long as is asked for, on a stack whose limits are reached within seconds.

What serves for months must take no more after an hour than after a minute: memory and open files of every process,
keys and memory of Redis, files that wait for a compaction, and how far updater and sink are behind. So users, what is
kept of them, windows, snapshots and compaction are small here. The embedded broker keeps the whole log in memory: it is
shown, and judged by nothing.

Files of the lake come one by one and go many at once, with a compaction. When it ends is up to the machine, which has
a process to start for it: so most of them say nothing, and the fewest in a few minutes say whether it keeps up. It
leaves a file per partition and lake.file_mb, which a lake that keeps everything has to have, and does not reach here.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import redis
from scipy.stats import theilslopes

from feature_store.bandit_state import BanditStore
from feature_store.online.store import OnlineStore
from infra import servers
from infra.benchmarks.bench import Goal
from infra.benchmarks.small_stack import small_stack
from infra.benchmarks.visitors import Promises, visiting
from infra.connections import event_log, redis_client
from infra.drain import drain
from infra.programs import BROKER
from infra.stack import Stack
from infra.verification import verify
from offline_training.progress import Progress, section
from streaming.lake_events import coverage

_VISITS_PER_SECOND = 40.0
_USERS = 100
_ITEMS = 200
_SLATE_SIZE = 10
_COMPACT_SECONDS = 30.0
_CHANGES: dict[str, dict[str, Any]] = {
    "updater": {"processes": 2},
    "redis": {"deltas_kept": 200, "history_kept": 50, "shown_kept": 50},
    "rewards": {"window_seconds": 20.0},
    "lake": {"flush_seconds": 3.0, "compact_hours": _COMPACT_SECONDS / 3600},
}
_EVERY_SECONDS = 2.0
_WARM_UP = 0.3  # of the time: caches and allocators fill

# Of what grows, by how much of itself it may in the time that is judged; lag: by how many records; files: how many.
_MEMORY, _DESCRIPTORS, _KEYS, _LAG, _FILES = 0.05, 0.05, 0.02, 100.0, 10.0
_LULL_SECONDS = 4 * _COMPACT_SECONDS


def run(seed: int, progress: Progress, *, minutes: float) -> tuple[dict[str, Any], list[Goal]]:
    """Load for so many minutes, looked at every two seconds."""
    key = secrets.token_hex(16)
    serving = {"workers": 2, "api_key": key, "host": servers.LOOPBACK, "port": 0}
    shape = {"clusters": 8, "edges_per_cluster": 60}
    with small_stack("soak", _CHANGES | {"serving": serving}, _ITEMS, shape, section(progress, 0, 0.1)) as stack:
        live = stack.settings
        with redis_client(live) as client:
            load = (str(stack.endpoints.api), key, _USERS, _VISITS_PER_SECOND, _SLATE_SIZE, seed)
            with visiting(*load) as promises:
                times, series = _watch(stack, client, promises, minutes * 60, section(progress, 0.1, 0.9))
            progress(0.9, "waiting until everything is folded and stored")
            drain(live)
            equal = all(one.equal for checks in verify(live, client).values() for one in checks)
    series["fewest_lake_files"] = fewest(times, series["lake_files"], _LULL_SECONDS / 3600)
    found = {name: trend(times, values) for name, values in series.items()}
    results = {
        "decisions": len(promises.decisions),
        "accepted_events": len(promises.events),
        "requests_repeated": promises.repeated,
        "answers_without_exploration": promises.unlogged,
        "unexpected_answers": promises.unexpected,
        "judged_minutes": minutes * (1 - _WARM_UP),
        "series": found,
    }

    def worst(kind: str, measure: str = "growth_share") -> float:
        return max(one[measure] for name, one in found.items() if name.startswith(kind) and not name.endswith(BROKER))

    return results, [
        Goal(name="memory_growth", value=worst("memory_mb"), target=_MEMORY, unit="", better="lower"),
        Goal(name="descriptors_growth", value=worst("descriptors"), target=_DESCRIPTORS, unit="", better="lower"),
        Goal(name="redis_memory_growth", value=worst("redis_mb"), target=_MEMORY, unit="", better="lower"),
        Goal(name="redis_keys_growth", value=worst("redis_keys"), target=_KEYS, unit="", better="lower"),
        Goal(
            name="lake_files_growth",
            value=worst("fewest_lake_files", "growth"),
            target=_FILES,
            unit="files",
            better="lower",
        ),
        Goal(name="lag_growth", value=worst("lag", "growth"), target=_LAG, unit="records", better="lower"),
        Goal(name="state_equals_replay", value=float(equal), target=1.0, unit="", better="higher"),
        Goal(name="unexpected_answers", value=float(promises.unexpected.total()), target=0.0, unit="", better="lower"),
    ]


def rows(results: dict[str, Any]) -> list[list[str]]:
    """What became of each, for people."""
    columns = ("first", "median", "last", "most", "slope_per_hour")
    lines = [[name, *(f"{one[column]:.4g}" for column in columns)] for name, one in results["series"].items()]
    return [["WHAT", "FIRST", "MEDIAN", "LAST", "MOST", "SLOPE PER HOUR"], *lines]


def _watch(
    stack: Stack, client: redis.Redis, promises: Promises, seconds: float, progress: Progress
) -> tuple[list[float], dict[str, list[float]]]:
    """When was looked, in hours, and what was found each time, by name."""
    settings = stack.settings
    programs = {program.name: psutil.Process(program.pid) for program in stack.status()}
    log, lake = event_log(settings).log_id(), settings.layout.lake
    online, state = OnlineStore(client, settings.redis), BanditStore(client, settings.redis)
    [namespace] = online.deployment.namespaces()
    times: list[float] = []
    series: dict[str, list[float]] = {}
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        ends = dict(promises.ends)
        now = {"redis_mb": client.info("memory")["used_memory"] / 2**20, "redis_keys": float(client.dbsize())}
        for name, process in programs.items():
            now[f"memory_mb {name}"] = process.memory_info().rss / 2**20
            now[f"descriptors {name}"] = float(process.num_fds())
        folded = {partition: state.position(namespace, partition) for partition in ends}
        now["lag updater"] = _behind(ends, {p: at.offset if at else 0 for p, at in folded.items()})
        now["lag sink"] = _behind(ends, {partition: coverage(lake, log, partition) for partition in ends})
        now["lake_files"] = float(_files(settings.layout.aside))
        times.append(passed / 3600)
        for name, value in now.items():
            series.setdefault(name, []).append(value)
        progress(passed / seconds, f"{passed / 60:.1f} of {seconds / 60:.1f} min")
        time.sleep(_EVERY_SECONDS)
    return times, series


def _behind(ends: Mapping[int, int], reached: Mapping[int, int]) -> float:
    """Records of all partitions that were accepted and not reached yet."""
    return float(sum(max(0, end - reached[partition]) for partition, end in ends.items()))


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def fewest(hours: Sequence[float], values: Sequence[float], lull: float) -> list[float]:
    """At each time the least that there was in the hours before it, so many of them."""
    first = np.searchsorted(hours, np.asarray(hours) - lull)
    return [min(values[begin : end + 1]) for end, begin in enumerate(first)]


def trend(hours: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """How something went after the warm-up: slope of Theil and Sen (the median of those between all pairs), which a
    few outliers do not turn; growth: by it, over that time, and as a share of the median."""
    late = np.asarray(hours) >= _WARM_UP * hours[-1]
    x, y = np.asarray(hours)[late], np.asarray(values)[late]
    slope, middle = float(theilslopes(y, x)[0]), float(np.median(y))
    growth = slope * (x[-1] - x[0])
    share = growth / middle if middle else 0.0
    return {
        "first": float(y[0]), "median": middle, "last": float(y[-1]), "most": float(y.max()),
        "slope_per_hour": slope, "growth": float(growth), "growth_share": float(share),
    }  # fmt: skip
