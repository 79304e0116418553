"""A link to a server that can be cut, slowed and frozen: a TCP proxy in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Self

from infra.servers import LOOPBACK

_BLOCK = 65_536

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """Passes bytes between `port`, where clients connect, and a server's port. Begins well. A context manager.

    May be told what to do from any thread.
    """

    def __init__(self, port: int, server_port: int) -> None:
        """port: 0 for one that the system picks."""
        self.port = port
        self._server_port = server_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"link-{port}", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self._cut = False
        self._delay = 0.0  # seconds, each way of a block from the server
        self._flowing = asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> AbstractContextManager[None]:
        """The server seems down meanwhile: connections are closed, new ones as soon as they are made."""
        return self._being(True, 0.0, True)

    def slow(self, seconds: float) -> AbstractContextManager[None]:
        """What the server says comes so much later meanwhile."""
        return self._being(False, seconds, True)

    def frozen(self) -> AbstractContextManager[None]:
        """Connections stay open meanwhile, and nothing passes."""
        return self._being(False, 0.0, False)

    @contextmanager
    def _being(self, cut: bool, delay: float, flowing: bool) -> Iterator[None]:
        self._loop.call_soon_threadsafe(self._set, cut, delay, flowing)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._set, False, 0.0, True)

    def _set(self, cut: bool, delay: float, flowing: bool) -> None:
        self._cut, self._delay = cut, delay
        (self._flowing.set if flowing else self._flowing.clear)()
        if cut:
            for connection in self._connections:
                connection.cancel()

    async def _listen(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_server(self._connected, LOOPBACK, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._passing(client, to_client)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            to_client.transport.abort()

    async def _passing(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self._cut:
            return
        server, to_server = await asyncio.open_connection(LOOPBACK, self._server_port)
        ways = [asyncio.ensure_future(way) for way in self._ways((client, to_client), (server, to_server))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_server.transport.abort()  # before anything is waited for: that may be cancelled, too
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def _ways(self, client: Streams, server: Streams) -> tuple[Coroutine[Any, Any, None], Coroutine[Any, Any, None]]:
        """There and back."""
        return self._way(client[0], server[1], late=False), self._way(server[0], client[1], late=True)

    async def _way(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, late: bool) -> None:
        while block := await source.read(_BLOCK):
            await self._pass(block, to, late)

    async def _pass(self, block: bytes, to: asyncio.StreamWriter, late: bool) -> None:
        """late: whether it is from the server."""
        await self._flowing.wait()
        if late and self._delay:
            await asyncio.sleep(self._delay)
        to.write(block)
        await to.drain()
