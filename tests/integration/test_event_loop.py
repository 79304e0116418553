"""What is done on the event loop of an API process, on real servers."""

import asyncio
import gc
from pathlib import Path

from infra.benchmarks.event_loop.api import MeasuredLoop
from infra.benchmarks.event_loop.bench import run
from offline_training.progress import silent
from online_serving.app import create_app
from online_serving.schemas import ItemsRequest, ItemWithId
from tests.api_server import Installation


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


def test_a_batch_of_items_lets_other_requests_in_between(broker: str, redis_url: str, tmp_path: Path) -> None:
    loop = MeasuredLoop()
    batch = ItemsRequest(items=[ItemWithId(id=f"new-{n}", title=f"New {n}") for n in range(1_000)])

    async def put() -> float:
        """The largest share of its CPU time that a batch takes in one step."""
        app = create_app(made.config())
        async with app.router.lifespan_context(app):
            await app.state.services.catalogue.put_all(batch)  # the first one waits for the log's metadata
            loop.ran.clear()
            await asyncio.create_task(app.state.services.catalogue.put_all(batch))
            steps = [ran.cpu for ran in loop.ran if ran.name == "Catalogue.put_all"]
            return max(steps) / sum(steps)

    gc.disable()
    try:
        with (
            Installation(broker, redis_url, tmp_path, "batch") as made,
            asyncio.Runner(loop_factory=lambda: loop) as runner,
        ):
            assert runner.run(put()) < 0.5, loop.ran
    finally:
        gc.enable()
