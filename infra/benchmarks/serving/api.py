"""An API process that keeps to one core and writes down what its event loop's thread spends its time on.

    python -m infra.benchmarks.serving.api PORT OPERATIONS_PORT CORE REPORT

It takes its settings as every process of a stack does, and writes the report when SIGTERM has ended it.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import msgspec

from infra.api_config import api_config
from infra.benchmarks.serving.parts import part_of
from infra.servers import LOOPBACK
from infra.settings import load
from infra.stack import Stack
from online_serving.server import one_thread, serve

_SAMPLE_SECONDS = 0.005  # of the process's CPU time


class Sample(msgspec.Struct, frozen=True):
    """CPU time of the loop's thread, up to a moment of the monotonic clock, and what it was at work on then."""

    at: float
    cpu: float  # seconds
    part: str


class Sampler:
    """Looks at the main thread each time that the process has used so much CPU time. The kernel's timer counts what the
    process uses, so that waiting costs nothing and compiled code is seen as its caller."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._last = time.thread_time()

    def start(self) -> None:
        """From now on, in the main thread."""
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _SAMPLE_SECONDS, _SAMPLE_SECONDS)

    def stop(self) -> None:
        """No more."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _look(self, _: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        self.samples.append(Sample(time.monotonic(), now - self._last, part_of(frame)))
        self._last = now


def main(port: int, operations_port: int, core: int, report: Path) -> None:
    """Serves until SIGTERM."""
    one_thread()
    os.sched_setaffinity(0, {core})
    settings = Stack(load()).settings  # with the addresses of the servers that run in this home
    serving = settings.serving.model_copy(update={"port": port})
    sampler = Sampler()
    sampler.start()
    serve(api_config(settings.model_copy(update={"serving": serving})), (LOOPBACK, operations_port))
    sampler.stop()
    report.write_bytes(msgspec.json.encode(sampler.samples))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
