"""What the serving bench makes of what it measured."""

import sys
from types import FrameType

import pytest

from infra.benchmarks.serving.api import Sample
from infra.benchmarks.serving.bench import Window, _by_part, _growth
from infra.benchmarks.serving.load import Measured
from infra.benchmarks.serving.parts import OTHER, part_of
from infra.benchmarks.serving.picture import draw

MEASURED = Measured(100, 2.0, {200: 100}, 99, 1.0, 2.0, 3.0, 0.0, 0.1)


def frame_in(path: str, function: str) -> FrameType:
    """A frame of a function of this name in a file at this path, called from here."""
    found: list[FrameType] = []
    code = compile(f"def {function}():\n    look()\n{function}()", path, "exec")
    exec(code, {"look": lambda: found.append(sys._getframe(1))})
    return found[0]


def test_the_innermost_named_frame_says_what_a_thread_works_on() -> None:
    assert part_of(frame_in("/x/online_serving/towers.py", "user_vectors")) == "user tower"
    assert part_of(frame_in("/x/online_serving/pipeline/rules.py", "anything")) == "rules"
    assert part_of(frame_in("/x/site-packages/redis/asyncio/client.py", "execute")) == "Redis"
    assert part_of(frame_in("/x/site-packages/numpy/lib.py", "unique")) == OTHER
    assert part_of(None) == OTHER


def test_samples_within_the_windows_are_divided_among_their_answers() -> None:
    windows = [Window(MEASURED, 10.0, 12.0, 0.5), Window(MEASURED, 20.0, 22.0, 0.5)]
    samples = [Sample(11.0, 0.2, "a"), Sample(13.0, 9.0, "a"), Sample(21.0, 0.4, "b"), Sample(21.5, 0.2, "a")]
    # 200 answers; 0.4 s for a, 0.4 for b, and of the process's second 0.2 in other threads.
    assert _by_part(windows, samples) == pytest.approx({"a": 2.0, "b": 2.0, "other threads": 1.0})
    assert windows[0].rate == 50.0
    assert windows[0].cpu_ms == pytest.approx(5.0)


def test_growth_is_by_decade_of_items() -> None:
    assert _growth({"10000": {"cpu_ms": 4.0}, "1000000": {"cpu_ms": 5.76}}) == pytest.approx(1.2)
    assert _growth({"10000": {"cpu_ms": 4.0}}) is None


def test_the_picture_names_each_part_and_size() -> None:
    svg = draw({"10000": {"ranker": 1.0}, "100000": {"ranker": 1.5, "log": 0.5}})
    for text in ("ranker", "log", "10,000 items: 1.00 ms", "100,000 items: 2.00 ms"):
        assert text in svg
