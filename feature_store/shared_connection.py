"""Many calls to Redis on one connection: each is sent at once, behind those that wait for their answers (pipelining).

redis-py gives each call a connection of its own, and takes ten times as long for it. It opens the connection here, with
password, TLS and whatever else the address says.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import hiredis
import redis
import redis.asyncio

from feature_store.turns import SLICES, Breaker

_CLOSED = "it closed the connection"
_MORE = object()  # of an answer is to come

Command = tuple[str | bytes | int, ...]
_pack: Any = hiredis.pack_command  # declared as of one word


class SharedConnection:
    """Calls from one event loop. The connection is the pool's, and ends with it; one that was lost is opened anew."""

    def __init__(self, pool: redis.asyncio.ConnectionPool, seconds: float) -> None:
        """seconds: for an answer, and for the connection to be opened."""
        self._pool, self._seconds = pool, seconds
        self._breaker = Breaker()
        self._held: Any = None  # the pool's connection, open or not
        self._answers: _Answers | None = None
        self._opening: asyncio.Task[_Answers] | None = None

    async def call(self, commands: Sequence[Command]) -> list[Any]:
        """Their answers, in order. Raises redis.RedisError or OSError: for the first command that is refused, if the
        server does not answer in time, and at once if it did not answer of late."""
        asked = self._breaker.ask()
        packed = b"".join([_pack(command) for command in commands])
        try:
            try:
                answers = await (await self._open()).to(packed, len(commands))
            except redis.ConnectionError:  # as when the server was restarted
                answers = await (await self._open()).to(packed, len(commands))
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            self._breaker.failed(asked)
            raise
        self._breaker.answered()
        return answers

    async def _open(self) -> "_Answers":
        if self._answers is not None and not self._answers.lost:
            return self._answers
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._connect())
        return await asyncio.shield(self._opening)  # whoever gives up leaves it to the others

    async def _connect(self) -> "_Answers":
        async with asyncio.timeout(self._seconds):
            if self._held is not None:
                held, self._held = self._held, None
                await held.disconnect(nowait=True)
                await self._pool.release(held)
            self._held = await self._pool.get_connection()
        self._answers = _Answers(self._held._writer.transport, self._seconds)  # noqa: SLF001 - it has no public name
        return self._answers


class _Call(NamedTuple):
    done: "asyncio.Future[list[Any]]"
    answers: list[Any]  # those that have come
    wanted: int
    sent: int  # tick


class _Answers(asyncio.Protocol):
    """Takes a connection over from redis-py's streams, and hands out answers in the order of the calls."""

    def __init__(self, transport: Any, seconds: float) -> None:
        self.lost = False
        self._transport = transport
        self._streams: asyncio.Protocol = transport.get_protocol()
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=redis.ResponseError, notEnoughData=_MORE)
        self._waiting: deque[_Call] = deque()
        # As Turns counts time: while the event loop is busy it hears no answer, and that is not the server's fault.
        self._slice, self._tick = seconds / SLICES, 0
        self._timer: asyncio.TimerHandle | None = None
        transport.set_protocol(self)

    def to(self, packed: bytes, wanted: int) -> "asyncio.Future[list[Any]]":
        """The answers to so many commands."""
        done: asyncio.Future[list[Any]] = self._loop.create_future()
        if self.lost:
            done.set_exception(redis.ConnectionError(_CLOSED))
            return done
        self._waiting.append(_Call(done, [], wanted, self._tick))
        self._transport.write(packed)
        if self._timer is None:
            self._timer = self._loop.call_later(self._slice, self._look)
        return done

    def data_received(self, data: bytes) -> None:
        """Hands out answers that are complete."""
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not _MORE:
            if not isinstance(answer, hiredis.PushNotification):
                self._take(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is answered any more."""
        self._fail(redis.ConnectionError(_CLOSED))
        self._streams.connection_lost(exc)  # whoever closes the connection waits for it

    def _take(self, answer: Any) -> None:
        call = self._waiting[0]
        call.answers.append(answer)
        if len(call.answers) == call.wanted:
            self._waiting.popleft()
            refused = next((one for one in call.answers if isinstance(one, redis.ResponseError)), None)
            if call.done.done():
                pass  # whoever asked has gone
            elif refused is None:
                call.done.set_result(call.answers)
            else:
                call.done.set_exception(refused)
        if isinstance(answer, redis.ResponseError) and str(answer).startswith("READONLY"):
            self._transport.close()  # the master is one no longer: the next connection is to the new one

    def _look(self) -> None:
        self._timer = None
        self._tick += 1
        if not self._waiting:
            return
        if self._tick - self._waiting[0].sent > SLICES:
            self._fail(redis.TimeoutError(f"it did not answer within {self._slice * SLICES:g} s"))
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(self._slice, self._look)

    def _fail(self, error: Exception) -> None:
        self.lost = True
        while self._waiting:
            call = self._waiting.popleft()
            if not call.done.done():
                call.done.set_exception(error)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
