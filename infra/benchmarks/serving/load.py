"""Load from a process of its own, which costs the machine as little as Python can.

    python -m infra.benchmarks.serving.load < LOAD > MEASURED

LOAD and MEASURED are the JSON of the structs below.
"""

import asyncio
import sys
import time
from collections import deque
from typing import Any

import httptools
import msgspec
import numpy as np
import uvloop

_SKEW = 2  # a tenth of the users comes for a third of the requests
_OK, _COME_BACK = 200, 503
_COME_BACK_SECONDS = 1.0  # as Retry-After says
_LOGGED = b'"logged":true'


class Load(msgspec.Struct, frozen=True):
    """What is asked. With a rate, requests are due at fixed times, and those for which no connection is free wait;
    without, each connection asks again as soon as it is answered, or a second after it was told to come back."""

    port: int
    seconds: float
    connections: int
    users: int
    slate_size: int
    seed: int
    rate: float | None = None  # requests a second


class Measured(msgspec.Struct, frozen=True):
    """What was answered. Times in ms, since a request was due; 0 if there are none."""

    answered: int  # with a slate
    seconds: float
    statuses: dict[int, int]
    logged: int
    p50: float
    p90: float
    p99: float
    refused_p99: float  # of those that were told to come back, since they were sent
    cpu_seconds: float  # of the process that asked


class _Asker:
    """Asks over many connections, and notes what comes back."""

    def __init__(self, load: Load) -> None:
        self.took: list[float] = []
        self.refused: list[float] = []
        self.statuses: dict[int, int] = {}
        self.logged = 0
        self.end = 0.0
        self._load = load
        rng = np.random.default_rng(load.seed)
        self._users = (load.users * rng.random(1 << 16) ** _SKEW).astype(np.int64).tolist()
        self._asked = 0
        self._waiting: deque[float] = deque()  # when requests without a connection were due
        self._free: deque[_Connection] = deque()  # longest idle first: a server closes what is idle for long

    def request(self) -> bytes:
        """The next request."""
        user = self._users[self._asked % len(self._users)]
        self._asked += 1
        body = b'{"user_id":"user-%d","slate_size":%d,"surface":"home"}' % (user, self._load.slate_size)
        head = b"POST /v1/recommendations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        return b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)

    def answered(self, connection: "_Connection", status: int, body: bytes) -> None:
        """Takes note, and gives the connection something to do."""
        now = time.perf_counter()
        if status == _OK:
            self.took.append(now - connection.due)
        elif status == _COME_BACK:
            self.refused.append(now - connection.sent)
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.logged += _LOGGED in body
        if status == _COME_BACK and self._load.rate is None:
            asyncio.get_running_loop().call_later(_COME_BACK_SECONDS, self._again, connection)
        else:
            self._again(connection)

    def _again(self, connection: "_Connection") -> None:
        now = time.perf_counter()
        if self._waiting:
            connection.ask(self._waiting.popleft())
        elif self._load.rate is None and now < self.end:
            connection.ask(now)
        else:
            self._free.append(connection)

    async def run(self) -> float:
        """Asks for as long as it should, waits for all answers, and returns how long it took, in seconds."""
        loop = asyncio.get_running_loop()
        for _ in range(self._load.connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._load.port)
            self._free.append(connection)
        began = time.perf_counter()
        self.end = began + self._load.seconds
        if self._load.rate is None:
            while self._free:
                self._free.popleft().ask(time.perf_counter())
            await asyncio.sleep(self._load.seconds)
        else:
            for number in range(round(self._load.seconds * self._load.rate)):
                due = began + number / self._load.rate
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                if self._free:
                    self._free.popleft().ask(due)
                else:
                    self._waiting.append(due)
        while len(self._free) < self._load.connections:
            await asyncio.sleep(0.005)
        return time.perf_counter() - began


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, asker: _Asker) -> None:
        self.due = self.sent = 0.0
        self._asker = asker
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's own class

    def ask(self, due: float) -> None:
        """Sends a request that was due then."""
        self.due, self.sent, self._body = due, time.perf_counter(), b""
        self._transport.write(self._asker.request())

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body += body

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._asker.answered(self, self._parser.get_status_code(), self._body)


def _ms(took: list[float], quantile: float) -> float:
    return float(np.quantile(took, quantile)) * 1000 if took else 0.0


def main() -> None:
    """Reads what to ask, asks, and writes what was answered."""
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    asker, cpu = _Asker(load), time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seconds = runner.run(asker.run())
    p50, p90, p99 = (_ms(asker.took, q) for q in (0.5, 0.9, 0.99))
    found = Measured(
        len(asker.took), seconds, asker.statuses, asker.logged, p50, p90, p99, _ms(asker.refused, 0.99),
        time.process_time() - cpu,
    )  # fmt: skip
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
