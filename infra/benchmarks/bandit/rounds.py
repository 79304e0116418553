"""Timing on machines that do other things too: short rounds in turn, medians over the rounds."""

import statistics
import time
from collections.abc import Callable, Mapping

Work = Callable[[], int]  # does something and returns how often


def rates(works: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """By name, how often a second: the median over the rounds, in each of which every work has its turn. One round
    before them is not counted."""
    measured: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            started = time.perf_counter()
            count = work()
            measured[name].append(count / (time.perf_counter() - started))
    return {name: statistics.median(found[1:]) for name, found in measured.items()}
