"""The lake bench: what a year of log costs whoever looks after it and whoever asks for the last two weeks of it.

Two lakes of as many events a day, written as the sink writes: one of some weeks, one of all the days. Each is
compacted, checked, and then asked for its last fortnight: by a replay, as `state verify` and a retrain do it, and by
the columns that reports read. A fortnight should cost the same in both. Each step runs in a process of its own.
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow.compute as pc

from feature_store.bandit_state import Position
from feature_store.contracts.columns import EVENTS
from feature_store.contracts.events import Decision, Event, Feedback, encode
from feature_store.contracts.identity import Keyring
from feature_store.definitions import DAY_MS
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.namespace import Namespace, Start
from feature_store.sums import NO_ROWS
from infra.benchmarks.bench import Goal
from offline_training.experiment.impressions import rewarded_since
from offline_training.progress import Progress, section
from streaming.dead_letter import Outbox
from streaming.kafka import Record, Writer
from streaming.lake_compaction import compact
from streaming.lake_events import coverage
from streaming.lake_files import partition_folders, read_all
from streaming.lake_repair import check
from streaming.lake_rows import EVENT_TOPIC
from streaming.log_reader import LogReader
from streaming.replay import replay_partition
from streaming.settings import LakeSettings, RewardSettings
from streaming.sink import PartitionSink

GROWTH = 2.0  # what a fortnight may cost more in the long lake than in the short one
MEMORY_MB = 500.0  # that any step may take beside what a process has anyway
START = 1_700_000_000_000  # of the log, ms
_LOG = "bench"
_PARTITIONS = 2
_SHORT_DAYS = 28
_WINDOW_DAYS = 14
_FILES_A_DAY = 6  # of a partition
_USERS = 500
_ITEMS = [f"item-{number:04}" for number in range(500)]
_SLATE = 10
REPORTED = pc.field("kind").isin(["decision", "feedback"])
_COLUMNS = ["kind", "offset", "id", "user", "time", "items", "decision", "item", "type", "value", "received"]
_KEYRING = Keyring(b"a secret for the bench")


class Step(NamedTuple):
    """What a step took."""

    seconds: float  # of a processor
    memory_mb: float  # at its peak, beside what the process had before
    found: int  # what it is about: files, damages, events


def run(seed: int, progress: Progress, *, days: int, decisions: int) -> tuple[dict[str, Any], list[Goal]]:
    """decisions: in a day, each with an event of feedback."""
    results: dict[str, Any] = {}
    for number, length in enumerate((min(_SHORT_DAYS, days), days)):
        with tempfile.TemporaryDirectory(prefix="matchloop-lake-") as folder:
            part = section(progress, number / 2, (number + 1) / 2)
            results[f"{length} days"] = _measure(Home(Path(folder)), length, decisions, seed, part)
    short, long = next(iter(results.values())), list(results.values())[-1]
    growth = {name: long[name]["seconds"] / short[name]["seconds"] for name in ("verify", "retrain", "report")}
    results["growth"] = growth
    peak = max(step["memory_mb"] for step in long.values() if isinstance(step, dict))
    return results, [
        Goal(name="damage", value=float(long["check"]["found"]), target=0.0, unit="", better="lower"),
        Goal(name="files", value=float(long["compact"]["found"]), target=4.0 * _PARTITIONS, unit="", better="lower"),
        *(
            Goal(name=f"growth of {name}", value=value, target=GROWTH, unit="", better="lower")
            for name, value in growth.items()
        ),
        Goal(name="memory", value=peak, target=MEMORY_MB, unit="MB", better="lower"),
    ]


def rows(results: dict[str, Any]) -> list[list[str]]:
    """A row per step, for people."""
    lakes = [name for name in results if name != "growth"]
    steps = [name for name, step in results[lakes[0]].items() if isinstance(step, dict)]
    head = ["STEP", *(f"{name}, {what}" for name in lakes for what in ("S", "MB", "FOUND"))]
    return [head] + [
        [step, *(text for name in lakes for text in _texts(Step(**results[name][step])))] for step in steps
    ]


def _texts(step: Step) -> tuple[str, str, str]:
    return f"{step.seconds:.3f}", f"{step.memory_mb:.0f}", f"{step.found:,}"


def _measure(home: Home, days: int, decisions: int, seed: int, progress: Progress) -> dict[str, Any]:
    generate(home.aside, days, decisions, seed, section(progress, 0.0, 0.6))
    since, offset = START + (days - _WINDOW_DAYS) * DAY_MS, (days - _WINDOW_DAYS) * decisions
    files = len(list(home.aside.rglob("*.parquet")))
    steps: dict[str, Callable[..., int]] = {
        "report before": _report, "compact": _compact, "check": _check,
        "verify": _verify, "retrain": _retrain, "report": _report,
    }  # fmt: skip
    found: dict[str, Any] = {"files": files}
    for number, (name, step) in enumerate(steps.items()):
        progress(0.6 + 0.4 * number / len(steps), f"{name}: {days} days, {files:,} files")
        found[name] = _alone(step, home.root, since, offset)._asdict()
    return found | {"mb": round(sum(path.stat().st_size for path in home.aside.rglob("*.parquet")) / 1e6, 1)}


def generate(lake: Path, days: int, decisions: int, seed: int, progress: Progress) -> None:
    """Writes days of decisions of ten items, each with one event of feedback a second later, in files as the sink makes
    them of a slow log: a few a day."""
    rng = np.random.default_rng(seed)
    outbox = Outbox(Writer.__new__(Writer), "none")  # nothing here becomes a letter
    sinks = [PartitionSink(lake, EVENT_TOPIC, _LOG, partition, outbox) for partition in range(_PARTITIONS)]
    for day in range(days):
        progress(day / days, f"generating {days} days")
        for partition, sink in enumerate(sinks):
            moments = np.sort(rng.integers(0, DAY_MS, decisions // _PARTITIONS))
            for number, moment in enumerate(moments.tolist()):
                made = _decision(START + day * DAY_MS + moment, partition, rng)
                told = Feedback(
                    id="e", decision=made.id, user=made.user, item=made.items[0], type="like", value=1.0,
                    time=made.time + 1_000, received=made.time + 1_000,
                )  # fmt: skip
                events: list[Event] = [made, told]
                for event in events:
                    sink.take(Record(partition, sink.next, None, encode([event]), made.time))
                if (number + 1) % max(1, len(moments) // _FILES_A_DAY) == 0:
                    sink.flush()
            sink.flush()


def _decision(time_ms: int, partition: int, rng: np.random.Generator) -> Decision:
    user = _KEYRING.user_key(str(rng.integers(_USERS // _PARTITIONS) * _PARTITIONS + partition))
    items = [_ITEMS[number] for number in rng.choice(len(_ITEMS), _SLATE, replace=False)]
    return Decision(
        id=_KEYRING.decision_id(user, time_ms), user=user, time=time_ms, surface="home", release="r", namespace="r-1",
        variant="", learns=True, offsets=[0] * _PARTITIONS, clusters=[0], weights=[1.0],
        history=items[:5], history_kinds=["like+"] * 5, history_times=[time_ms - DAY_MS] * 5, profile=[],
        items=items, shown=_SLATE, sources=["index"] * _SLATE, predicted=[0.1] * _SLATE, mean=[0.1] * _SLATE,
        bonus=[0.1] * _SLATE, edges=[0] * _SLATE, probabilities=[1.0] * _SLATE,
    )  # fmt: skip


def _alone(step: Callable[..., int], *arguments: Any) -> Step:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, step, *arguments).result()


def _measured(step: Callable[..., int], *arguments: Any) -> Step:
    before = psutil.Process().memory_info().rss
    began = time.process_time()
    found = step(*arguments)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Step(round(seconds, 4), round(max(0, peak - before) / 1e6, 1), found)


def _compact(root: Path, *_: int) -> int:
    home = Home(root)
    compact(home, LakeSettings(), START)
    return len(list(home.aside.rglob("*.parquet")))


def _check(root: Path, *_: int) -> int:
    return len(check(Home(root).lake))


def _verify(root: Path, since: int, offset: int) -> int:
    lake, offsets = Home(root).lake, [offset] * _PARTITIONS
    namespace = Namespace(
        id="r-1", release="r", log=_LOG, offsets=offsets, created=since, graph=Graph(1).with_items(_ITEMS, [[]] * 500),
        base=NO_ROWS, starts=[Start()] * _PARTITIONS,
    )  # fmt: skip
    for partition in range(_PARTITIONS):
        ends = [Position(_LOG, coverage(lake, _LOG, partition))]
        replay_partition(namespace, partition, LogReader(lake), RewardSettings(), ends)
    return sum(coverage(lake, _LOG, partition) for partition in range(_PARTITIONS)) - sum(offsets)


def _retrain(root: Path, _: int, offset: int) -> int:
    ends = [Position(_LOG, offset)] * _PARTITIONS
    return len(rewarded_since(Home(root).lake, ends, RewardSettings()))


def _report(root: Path, since: int, _: int) -> int:
    folders = [folder for *_, folder in partition_folders(Home(root).lake, "events")]
    return sum(len(read_all(folder, EVENTS, _COLUMNS, REPORTED, since)) for folder in folders)
