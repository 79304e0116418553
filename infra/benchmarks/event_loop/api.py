"""An API process whose event loop writes down what it does.

    python -m infra.benchmarks.event_loop.api PORT OPERATIONS_PORT REPORT

It takes its settings as every process of a stack does, and writes the report when SIGTERM has ended it.
"""

import asyncio
import resource
import sys
import time
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from infra.api_config import api_config
from infra.servers import LOOPBACK
from infra.settings import load
from infra.stack import Stack
from online_serving.server import one_thread, serve

_WORTH_NOTING_SECONDS = 0.0005


class Ran(msgspec.Struct, frozen=True):
    """A callback of the loop, most often a step of a task. Times are those of the monotonic clock, in seconds."""

    name: str
    end: float
    cpu: float  # of the loop's thread
    wall: float  # the same with the time for which other threads held the interpreter, or other processes the core


class Lag(msgspec.Struct, frozen=True):
    """How late the loop came to a task that was due, as matchloop_api_loop_lag_seconds has it."""

    at: float
    seconds: float


class Report(msgspec.Struct, frozen=True):
    """What an API process's loop did."""

    ran: list[Ran]  # those that took longer than half a millisecond
    lags: list[Lag]
    fits: int  # of the prior
    fit_seconds: float  # all of them together
    peak_gb: float  # of the process


class MeasuredLoop(uvloop.Loop):
    """Measures every callback but uvloop's own of sockets, which start tasks and do little else."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[Ran] = []

    def call_soon(  # type: ignore[override]  # the base class's type variables add nothing here
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        """As the event loop's."""
        return super().call_soon(self._run, callback, args, context=context)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        """As the event loop's."""
        return super().call_soon_threadsafe(self._run, callback, args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        """As the event loop's; call_at comes here."""
        return super().call_later(delay, self._run, callback, args, context=context)

    def _run(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        began, cpu = time.monotonic(), time.thread_time()
        try:
            callback(*args)
        finally:
            cpu, end = time.thread_time() - cpu, time.monotonic()
            if max(cpu, end - began) > _WORTH_NOTING_SECONDS:
                self.ran.append(Ran(_name(callback), end, cpu, end - began))


def _name(callback: Callable[..., object]) -> str:
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        coroutine: Any = owner.get_coro()
        return str(coroutine.__qualname__)
    return str(getattr(callback, "__qualname__", type(callback).__qualname__))


def main(port: int, operations_port: int, report: Path) -> None:
    """Serves until SIGTERM."""
    one_thread()
    loop = MeasuredLoop()
    lags: list[Lag] = []

    async def sample() -> None:
        from online_serving.loop_lag import measuring_lag  # NumPy is loaded by now, or not at all

        async with measuring_lag(lambda seconds: lags.append(Lag(time.monotonic(), seconds))):
            await asyncio.Event().wait()

    def started() -> MeasuredLoop:
        sampling.append(loop.create_task(sample()))
        return loop

    sampling: list[asyncio.Task[None]] = []
    settings = Stack(load()).settings  # with the addresses of the servers that run in this home
    serving = settings.serving.model_copy(update={"port": port})
    serve(api_config(settings.model_copy(update={"serving": serving})), (LOOPBACK, operations_port), started)

    from online_serving.metrics import PRIOR_FIT

    fit = {sample.name: sample.value for metric in PRIOR_FIT.collect() for sample in metric.samples}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    name = "matchloop_prior_fit_seconds"
    found = Report(loop.ran, lags, int(fit[f"{name}_count"]), fit[f"{name}_sum"], peak)
    report.write_bytes(msgspec.json.encode(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
