"""An API process whose clock goes wrong when it is told to.

    python -m infra.benchmarks.faults.api PORT OPERATIONS_PORT CLOCK

It takes its settings as every process of a stack does. CLOCK is a file that says by how many ms its clock is ahead.
"""

import sys
import time
from pathlib import Path

from infra.api_config import api_config
from infra.servers import LOOPBACK
from infra.settings import load
from online_serving.server import one_thread, serve


class WrongClock:
    """The machine's clock and what a file says."""

    def __init__(self, ahead: Path) -> None:
        self._ahead = ahead

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + int(self._ahead.read_text())


def main(port: int, operations_port: int, ahead: Path) -> None:
    """Serves until SIGTERM."""
    one_thread()
    settings = load()
    serving = settings.serving.model_copy(update={"port": port})
    config = api_config(settings.model_copy(update={"serving": serving}))
    serve(config, (LOOPBACK, operations_port), clock=WrongClock(ahead))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
