"""The event-loop bench at a small size, on real servers: what it does is done, and the loop's work is seen."""

from infra.benchmarks.event_loop.bench import run
from offline_training.progress import silent


def test_an_api_process_is_measured_while_it_follows_takes_items_and_swaps() -> None:
    """The goals are for a machine of its own: `matchloop bench event-loop`."""
    results, goals = run(1, silent, items=1_000, seconds=3.0)
    assert list(results["phases"]) == ["loading", "following", "swapping"]
    assert results["commits"] > 0
    assert results["new_items"] >= 500
    assert results["prior_fits"] >= 1
    for phase in results["phases"].values():
        assert phase["lag_ms"]["count"] > 0
    assert {goal.name for goal in goals} == {"longest_task.cpu", "lag.p99"}
    assert all(goal.value > 0 for goal in goals)
