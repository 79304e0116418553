"""What the event-loop bench makes of what an API process's loop did."""

import asyncio
import time

import pytest

from infra.benchmarks.event_loop.api import Lag, MeasuredLoop, Ran, Report
from infra.benchmarks.event_loop.bench import Phase, rows, summary


def test_the_loop_measures_steps_of_tasks_timers_and_calls_from_other_threads() -> None:
    def busy(seconds: float) -> None:
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    async def step() -> None:
        busy(0.02)

    async def work() -> None:
        running = asyncio.get_running_loop()
        await asyncio.create_task(step())
        running.call_later(0.001, busy, 0.03)
        await asyncio.to_thread(running.call_soon_threadsafe, busy, 0.04)
        await asyncio.sleep(0.01)

    loop = MeasuredLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work())
    for name, seconds in ((step.__qualname__, 0.02), (busy.__qualname__, 0.03), (busy.__qualname__, 0.04)):
        assert any(r.name == name and seconds <= r.cpu < r.wall + 0.005 for r in loop.ran), (name, seconds, loop.ran)


def test_a_phase_is_summed_up_by_the_longest_tasks_and_what_the_lag_owes_to_other_threads() -> None:
    report = Report(
        ran=[
            Ran("before", 0.9, 9.0, 9.0),
            Ran("a", 1.5, 0.004, 0.03), Ran("a", 1.6, 0.002, 0.002), Ran("b", 1.7, 0.003, 0.003),
        ],
        lags=[Lag(0.5, 7.0), Lag(1.51, 0.03), Lag(1.8, 0.001)],
        fits=1, fit_seconds=0.5, peak_gb=1.0,
    )  # fmt: skip
    found = summary(report, Phase("following", 1.0, 2.0))
    assert [longest["task"] for longest in found["longest"]] == ["a", "b"]
    assert found["longest_cpu_ms"] == pytest.approx(4.0)
    assert found["longest_wall_ms"] == pytest.approx(30.0)
    assert found["lag_ms"]["count"] == 2
    assert found["lag_ms"]["max"] == pytest.approx(30.0)
    assert found["longest_stall_ms"] == pytest.approx(26.0)
    assert rows({"phases": {"following": found}})[1][:4] == ["following", "1", "a", "4.0 ms"]
