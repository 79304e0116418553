"""How long the event loop keeps what is due waiting: whatever works on it for long delays every request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from online_serving.metrics import LOOP_LAG

_PERIOD_SECONDS = 0.01  # what blocks the loop for less can go unnoticed


@contextlib.asynccontextmanager
async def measuring_lag(observe: Callable[[float], object] = LOOP_LAG.observe) -> AsyncIterator[None]:
    """Observes, while the context is open, how late the loop wakes a task that sleeps, in seconds."""
    task = asyncio.create_task(_measure(observe))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _measure(observe: Callable[[float], object]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _PERIOD_SECONDS
        await asyncio.sleep(_PERIOD_SECONDS)
        observe(max(0.0, loop.time() - due))
