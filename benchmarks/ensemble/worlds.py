"""The worlds of the bench: those of bench pay where an offline model and a bandit each know something of their own."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.pay.world import World
from benchmarks.pay.worlds import (
    EARLIER,
    ML_1M,
    ML_100K,
    RECURRENT,
    SMALL,
    SOURCES,
    SUDDEN,
    Make,
    drifting,
    mostly_new,
    plain,
    stale,
)
from benchmarks.retrieval.datasets import Dataset

DRIFT, NEW_ITEMS, RECURRENCE, STALE = "drift", "new-items", "recurrent", "stale"
TURNS = (6, 12)  # of 19, before which a retrained release follows


class Case(NamedTuple):
    """A world, and what its lake holds when the visitors begin to come. tuning: it is for choosing settings, and never
    reported."""

    source: str
    kind: str
    make: Make
    known: Make  # the world whose past it is
    tuning: bool

    @property
    def name(self) -> str:
        """As bench pay has it."""
        return f"{self.source}/{self.kind}"

    def world(self, data: Path) -> World:
        """Whoever comes, and what they like."""
        return self.make(data, self.name)

    def lake(self, data: Path) -> Dataset:
        """What the first retrain reads beside the visitors' log: all that was known by then, also where the first
        release is of long before."""
        return self.known(data, self.name).past


def _cases(source: str, *, tuning: bool) -> list[Case]:
    read = SOURCES[source]
    made = {
        DRIFT: partial(drifting, read, SUDDEN),
        NEW_ITEMS: partial(mostly_new, read),
        RECURRENCE: partial(drifting, read, RECURRENT),
        STALE: partial(stale, read),
    }
    known = made | {STALE: partial(plain, read)}
    return [Case(source, kind, make, known[kind], tuning) for kind, make in made.items()]


CASES = (
    *_cases(ML_100K, tuning=False),
    *_cases(ML_1M, tuning=False),
    *_cases(SMALL, tuning=True),
    *_cases(ML_100K + EARLIER, tuning=True),
)
