"""HTTP/1.1 with time for slow clients, and an end to it: uvicorn's own protocol waits for ever for a request that was
begun, and for a connection on which none was."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from online_serving.errors import RETRY_AFTER_SECONDS, error_content
from online_serving.metrics import REQUESTS
from online_serving.overload import Door

MAX_HEAD_BYTES = 64 << 10
_JSON = b"content-type: application/json"
_TURNED_AWAY = REQUESTS.labels("none", "503")


class LimitedProtocol(HttpToolsProtocol):
    """A connection whose client has `seconds` to send the head of a request, as long again for its body, and as long to
    read the answer. What comes too slowly is answered 408, and the connection closed.

    One timer per connection looks after each `seconds`, so that a request costs no timer of its own.
    """

    seconds: float
    door: Door | None = None
    _turned_away: str | None = None  # why the request that is being read is not passed on
    _timer: asyncio.TimerHandle | None = None
    _since = 0.0  # loop time from which the client is being waited for
    _in_head = False
    _head_bytes = 0

    @classmethod
    def allowing(cls, seconds: float, door: Door | None = None) -> "type[LimitedProtocol]":
        """The protocol with a time limit, and with the door of the application if it has one, as uvicorn wants it: a
        class."""
        return type(cls.__name__, (cls,), {"seconds": seconds, "door": door})

    def connection_made(self, transport: Any) -> None:
        """The wait for the first head begins."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._watch(self.seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Refuses heads without end."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "head_too_large", f"The head of a request may have {MAX_HEAD_BYTES} bytes.")
        self._watch(self.seconds)

    def on_message_begin(self) -> None:
        """The wait for the rest of the head begins."""
        super().on_message_begin()
        self._since = self.loop.time()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """The wait for the body begins."""
        self._turned_away = self._why_not()
        if self._turned_away is None:
            super().on_headers_complete()
        self._since = self.loop.time()
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        """What is turned away is read and forgotten."""
        if self._turned_away is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """What is turned away is answered."""
        if self._turned_away is None:
            super().on_message_complete()
            return
        content = error_content("overloaded", self._turned_away)
        head = [_JSON, b"content-length: %d" % len(content), b"retry-after: %s" % RETRY_AFTER_SECONDS.encode()]
        stays = self.parser.should_keep_alive()
        if not stays:
            head.append(b"connection: close")
        self.transport.write(STATUS_LINE[503] + b"\r\n".join([*head, b"", content]))
        _TURNED_AWAY.inc()
        if not stays:
            self.transport.close()
        self.on_response_complete()

    def _why_not(self) -> str | None:
        """Why a request is not even passed on to the application: in an overload most of what comes is refused, and
        there that takes a task and several layers. Only what needs nothing of the application: no place in a pipeline,
        no headers for a browser."""
        before = self._current()
        if self.door is None or self.expect_100_continue or self.pipeline:
            return None
        if (before is not None and not before.response_complete) or any(name == b"origin" for name, _ in self.headers):
            return None
        return self.door.refuses(self.url.partition(b"?")[0].decode("ascii", "replace"))

    def on_response_complete(self) -> None:
        """The wait for the next request begins; uvicorn ends it, unless bytes come that begin none."""
        super().on_response_complete()
        self._since = self.loop.time()
        self._watch(self.seconds)

    def pause_writing(self) -> None:
        """The wait for the client to read begins."""
        super().pause_writing()
        self._since = self.loop.time()
        self._watch(self.seconds)

    def timeout_keep_alive_handler(self) -> None:
        """Closes an idle connection, whether or not the client has read everything."""
        super().timeout_keep_alive_handler()
        self._watch(self.seconds)

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP."""
        self._refuse(400, "bad_request", f"{msg} The API is described at /docs.")

    def _watch(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            self.transport.abort()  # closed that long ago, and the client has not read the rest
            return
        cycle = self._current()
        being_answered = cycle is not None and not cycle.more_body and not cycle.response_complete
        if (being_answered or self.pipeline) and not self.flow.write_paused:
            self._watch(self.seconds)
        elif self.timeout_keep_alive_task is None:
            left = self._since + self.seconds - self.loop.time()
            if left > 0:
                self._watch(left)
            else:
                self._give_up()

    def _give_up(self) -> None:
        cycle = self._current()
        unfinished = cycle if cycle is not None and not cycle.response_complete else None
        if self.flow.write_paused or (unfinished is not None and unfinished.response_started):
            self.transport.abort()
        elif unfinished is not None or self._in_head:
            if unfinished is not None:  # the application waits for the body: it is told that the client is gone
                unfinished.disconnected = True
                unfinished.message_event.set()
            self._refuse(408, "too_slow", f"The request did not come within {self.seconds:g} s. Send it again.")
        else:
            self.transport.close()

    def _current(self) -> RequestResponseCycle | None:
        """The request that came last, None before the first one."""
        return self.cycle

    def _refuse(self, status: int, code: str, message: str) -> None:
        content = error_content(code, message)
        head = [_JSON, b"content-length: %d" % len(content), b"connection: close"]
        self.transport.write(STATUS_LINE[status] + b"\r\n".join([*head, b"", content]))
        self.transport.close()
        self._watch(self.seconds)
