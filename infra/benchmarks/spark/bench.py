"""The Spark bench: what a row costs the training-set job as logs grow, with driver and executors in 4 GB."""

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import InvalidInput
from infra.benchmarks.bench import Goal
from infra.benchmarks.spark.generator import write_lake
from offline_training.data.spark import spark_session, stop_session
from offline_training.data.spark_configuration import LOCAL_MASTER
from offline_training.data.training_sets import build_training_sets
from offline_training.progress import Progress, section, silent
from offline_training.settings import SparkSettings, TrainingSettings
from streaming.settings import RewardSettings

COST_GROWTH = 1.3  # of the last size's seconds per row over the first's, at most
MEMORY_GB = 4.0
_HEAP = "3g"  # the rest of the memory is for what a JVM holds beside its heap
_LEAST_ROWS = 1_000
_WARM_UP_ROWS = 20_000
_SAMPLE_SECONDS = 0.2


def run(seed: int, progress: Progress, *, sizes: str) -> tuple[dict[str, Any], list[Goal]]:
    """Generates a lake of each size and runs the job on it, in a JVM of its own that has run a small one before.
    Generating, starting and warming up are not timed. sizes: of the lakes, in imported interactions, with commas
    between. Raises InvalidInput for sizes that are not numbers, or too small."""
    rows, measured = _sizes(sizes), []
    for number, size in enumerate(rows):
        part = section(progress, number / len(sizes), (number + 1) / len(sizes))
        with tempfile.TemporaryDirectory(prefix="matchloop-spark-", ignore_cleanup_errors=True) as folder:
            measured.append(_measure(Path(folder), size, seed, part))
    growth = _growth(measured[0], measured[-1])
    results = {
        "settings": {"heap": _HEAP, "memory_gb": MEMORY_GB, "master": LOCAL_MASTER},
        "sizes": measured,
        "cost_growth": growth,
        "processor_growth": _growth(measured[0], measured[-1], "processor_"),
        "cost_growth_of_last_step": _growth(measured[-2:][0], measured[-1]),
    }
    return results, [
        Goal(name="cost_growth", value=growth, target=COST_GROWTH, unit="", better="lower"),
        Goal(
            name="peak_memory_gb",
            value=max(size["peak_jvm_gb"] for size in measured),
            target=MEMORY_GB,
            unit="GB",
            better="lower",
        ),
    ]


def rows(results: dict[str, Any]) -> list[list[str]]:
    """The sizes, for people."""
    head = ["ROWS", "SECONDS", "ROWS/S", "US/ROW", "CPU US/ROW", "PEAK GB", "LONGEST TASK S", "SPILLED GB"]
    return [head] + [
        [
            f"{size['rows']:,}",
            f"{size['seconds']:.1f}",
            f"{size['rows_per_second']:,.0f}",
            f"{size['microseconds_per_row']:.1f}",
            f"{size['processor_microseconds_per_row']:.1f}",
            f"{size['peak_jvm_gb']:.2f}",
            f"{size['longest_task_seconds']:.1f}",
            f"{size['spilled_disk_gb']:.2f}",
        ]
        for size in results["sizes"]
    ]


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(size) for size in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < _LEAST_ROWS:
        raise InvalidInput(
            f"--rows {text}: give whole numbers of at least {_LEAST_ROWS}, with commas between, as in 1000000,10000000."
        )
    return sizes


def _growth(of: dict[str, Any], to: dict[str, Any], kind: str = "") -> float:
    """How many times what a row of the one size costs, a row of the other does."""
    cost = f"{kind}microseconds_per_row"
    return float(to[cost] / of[cost])


def _measure(folder: Path, rows: int, seed: int, progress: Progress) -> dict[str, Any]:
    write_lake(folder / "small", _WARM_UP_ROWS, seed, silent)
    write_lake(folder / "lake", rows, seed, section(progress, 0.0, 0.2))
    log = folder / "spark"
    log.mkdir()
    properties = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": log.as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
        "spark.local.dir": str(folder),
    }
    settings = SparkSettings(master=LOCAL_MASTER, driver_memory=_HEAP, properties=properties)
    spark = spark_session(settings, "matchloop bench spark", rows)

    def build(lake: Path, progress: Progress) -> Any:
        return build_training_sets(
            spark,
            lake,
            folder / "sets",
            training=TrainingSettings(),
            rewards=RewardSettings(),
            until_ms=None,
            exclude_items=frozenset(),
            progress=progress,
        )

    try:
        progress(0.2, "warming up")
        build(folder / "small", silent)
        with _peak_memory() as peak:
            started, clock = SystemClock().now_ms(), time.monotonic()
            processor = _processor_seconds()
            summary = build(folder / "lake", section(progress, 0.25, 1.0))
            seconds, processor = time.monotonic() - clock, _processor_seconds() - processor
    finally:
        stop_session(spark)
    tasks = _Tasks.read(log, started)
    return {
        "rows": rows,
        "users": summary.users,
        "items": summary.items,
        "impressions": summary.impressions,
        "seconds": seconds,
        "rows_per_second": rows / seconds,
        "microseconds_per_row": seconds / rows * 1e6,
        "processor_microseconds_per_row": processor / rows * 1e6,
        "peak_jvm_gb": peak.bytes / 2**30,
        "tasks": tasks.count,
        "longest_task_seconds": tasks.longest_seconds,
        "spilled_memory_gb": tasks.spilled_memory / 2**30,
        "spilled_disk_gb": tasks.spilled_disk / 2**30,
    }


@dataclass(frozen=True)
class _Tasks:
    """What Spark's event log says of the tasks."""

    count: int
    longest_seconds: float
    spilled_memory: int
    spilled_disk: int

    @classmethod
    def read(cls, log: Path, since_ms: int) -> "_Tasks":
        """Of the tasks that began at that time or later."""
        events = (json.loads(line) for file in log.iterdir() for line in file.open())
        tasks = [
            (event["Task Info"], event["Task Metrics"])
            for event in events
            if event["Event"] == "SparkListenerTaskEnd" and event["Task Info"]["Launch Time"] >= since_ms
        ]
        return cls(
            count=len(tasks),
            longest_seconds=max((task["Finish Time"] - task["Launch Time"]) / 1000 for task, _ in tasks),
            spilled_memory=sum(metrics["Memory Bytes Spilled"] for _, metrics in tasks),
            spilled_disk=sum(metrics["Disk Bytes Spilled"] for _, metrics in tasks),
        )


class _Peak:
    bytes = 0


@contextmanager
def _peak_memory() -> Iterator[_Peak]:
    """The most memory that the processes below this one held together: the JVM, executors."""
    peak, done = _Peak(), threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            peak.bytes = max(peak.bytes, sum(map(_resident, psutil.Process().children(recursive=True))))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _processor_seconds() -> float:
    """Of the processes below this one."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(time.user + time.system for time in times)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
