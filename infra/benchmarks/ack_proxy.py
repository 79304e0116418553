"""A proxy in front of a broker that acknowledges as late as a cluster which copies every record does.

    python -m infra.benchmarks.ack_proxy PORT BROKER_PORT MEDIAN_MS P99_MS SEED

Delays are lognormal, or constant if both figures are the same. Like Apache Kafka, it works on one request of a
connection at a time: what is sent behind a record waits for its acknowledgement as well.
"""

import asyncio
import contextlib
import math
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from feature_store.contracts.errors import Unavailable
from infra import servers
from infra.leash import leashed

_PRODUCE = 0
_P99 = 2.3263478740408408  # quantile of the standard normal distribution
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_SECONDS_TO_END = 2.0


class Acknowledgements(NamedTuple):
    """How long a broker takes to acknowledge a record."""

    median_ms: float
    p99_ms: float

    def delay(self, seed: int) -> Callable[[], float]:
        """Draws delays, in seconds."""
        rng, sigma = random.Random(seed), math.log(self.p99_ms / self.median_ms) / _P99
        return lambda: self.median_ms / 1000 * math.exp(sigma * rng.gauss(0.0, 1.0))


@contextlib.contextmanager
def slow_broker(acknowledgements: Acknowledgements, seed: int) -> Iterator[str]:
    """Address of an embedded broker behind a proxy. Raises Unavailable if they do not come up."""
    port, broker_port = servers.free_port(), servers.free_port()
    figures = [str(port), str(broker_port), *map(str, acknowledgements), str(seed)]
    with (
        _process(servers.broker_command(broker_port, advertised=port)),
        _process([sys.executable, "-m", __name__, *figures]),
    ):
        end = time.monotonic() + _START_SECONDS
        while True:
            try:
                servers.kafka_answers(servers.LOOPBACK, port)
                break
            except (OSError, Unavailable) as error:
                if time.monotonic() > end:
                    raise Unavailable(f"The broker does not answer behind its proxy: {error}.") from None
                time.sleep(_LOOK_SECONDS)
        yield f"{servers.LOOPBACK}:{port}"


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(leashed(command, os.getpid(), signal.SIGKILL), stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:  # the broker waits for its clients
            process.kill()
            process.wait()


async def _serve(port: int, broker_port: int, delay: Callable[[], float]) -> None:
    async def connected(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        broker, to_broker = await asyncio.open_connection(servers.LOOPBACK, broker_port)
        records: set[int] = set()  # numbers of the requests that bring some

        async def requests() -> None:
            while True:
                frame = await _frame(client)
                key, _, number = struct.unpack_from(">hhi", frame, 4)
                if key == _PRODUCE:
                    records.add(number)
                to_broker.write(frame)

        async def responses() -> None:
            while True:
                frame = await _frame(broker)
                (number,) = struct.unpack_from(">i", frame, 4)
                if number in records:
                    records.remove(number)
                    await asyncio.sleep(delay())
                to_client.write(frame)

        ways = [asyncio.ensure_future(requests()), asyncio.ensure_future(responses())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        to_broker.close()
        to_client.close()

    server = await asyncio.start_server(connected, servers.LOOPBACK, port)
    await server.serve_forever()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    return head + await reader.readexactly(int.from_bytes(head, "big"))


if __name__ == "__main__":
    listen, target, median, p99, seed = sys.argv[1:]
    asyncio.run(_serve(int(listen), int(target), Acknowledgements(float(median), float(p99)).delay(int(seed))))
