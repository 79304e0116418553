"""What an updater asks of Python's collector."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from streaming.updater import collect_rarely


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def _collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("_collector")
def test_cycles_are_found_before_they_add_up() -> None:
    """kafka-python makes one with each poll that finds nothing: some hundred objects that hold an answer."""
    collect_rarely()
    alive = weakref.WeakSet[Cycle]()
    most = 0
    for _ in range(60_000):
        alive.add(Cycle())
        most = max(most, len(alive))
    assert most < 20_000
