"""The event loop's lag: what blocks the loop is seen."""

import asyncio
import time

from prometheus_client import REGISTRY

from online_serving.loop_lag import measuring_lag


def late(at_least: str) -> float:
    """How many observations were later than a bucket's bound."""
    name = "matchloop_api_loop_lag_seconds"
    within = REGISTRY.get_sample_value(f"{name}_bucket", {"le": at_least})
    return (REGISTRY.get_sample_value(f"{name}_count") or 0.0) - (within or 0.0)


def test_a_task_that_blocks_the_loop_is_seen() -> None:
    before = late("0.1024")

    async def blocked() -> None:
        async with measuring_lag():
            await asyncio.sleep(0)
            time.sleep(0.2)
            while late("0.1024") == before:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(blocked(), 60))
