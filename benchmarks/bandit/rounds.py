"""Timing on machines that do other things too: short rounds in turn, medians over the rounds."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Work = Callable[[], int]  # does something and returns how often


class Rate(NamedTuple):
    """How often."""

    per_second: float
    per_cpu_second: float  # of this process: what one core would do that had nothing else to do


def rates(works: Mapping[str, Work], rounds: int) -> dict[str, Rate]:
    """By name, medians over the rounds, in each of which every work has its turn. One round before them is not
    counted."""
    measured: dict[str, list[Rate]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            started, cpu = time.perf_counter(), time.process_time()
            count = work()
            measured[name].append(Rate(count / (time.perf_counter() - started), count / (time.process_time() - cpu)))
    return {name: Rate(*map(statistics.median, zip(*found[1:], strict=True))) for name, found in measured.items()}
