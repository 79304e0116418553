"""Events that are sent together."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Callable, Union

from matchloop_client.answers import EventStatus, FeedbackAnswer
from matchloop_client.errors import NotFound
from matchloop_client.requests import FeedbackEvent, UserEvent

if TYPE_CHECKING:
    from typing_extensions import Self

Event = Union[FeedbackEvent, UserEvent]


class _Waiting:
    """Events on their way.

    waiting: those that the API has not taken yet. A call that failed leaves them there, for the next to send again: by
    their ids they count once. What the API refuses for a rule that it breaks stays as well, for you to mend or remove.
    rejected: of events that belong to no decision of this API, what it said.
    """

    def __init__(self, size: int) -> None:
        if not 1 <= size <= 1000:
            raise ValueError(f"a batch of {size} events cannot be: 1 to 1,000")
        self._size = size
        self.waiting: list[Event] = []
        self.rejected: list[EventStatus] = []

    def _next(self) -> list[Event]:
        """The first events that go into one request: of one kind."""
        kind = type(self.waiting[0])
        alike = itertools.takewhile(lambda event: type(event) is kind, self.waiting)
        return list(itertools.islice(alike, self._size))

    def _taken(self, sent: list[Event], statuses: list[EventStatus]) -> None:
        del self.waiting[: len(sent)]
        self.rejected += [one for one in statuses if one.status == "rejected"]


class EventBatch(_Waiting):
    """Collects events, and sends them when there are enough of them, when it is told to, and at the end of `with`.

    Made by Client.batch. Threads may share it. One click is sent sooner, and learnt from sooner, by send_feedback.
    """

    def __init__(
        self,
        send_feedback: Callable[..., FeedbackAnswer],
        send_events: Callable[..., FeedbackAnswer],
        size: int,
    ) -> None:
        super().__init__(size)
        self._send_feedback, self._send_events = send_feedback, send_events
        self._lock = threading.RLock()

    def add(self, event: Event) -> None:
        """Keeps an event until there are enough of them. Raises as flush does."""
        with self._lock:
            self.waiting.append(event)
            if len(self.waiting) >= self._size:
                self.flush()

    def flush(self) -> None:
        """Sends what waits. Raises NoAnswer or ApiError; what was not taken goes on waiting."""
        with self._lock:
            while self.waiting:
                sent = self._next()
                send = self._send_feedback if isinstance(sent[0], FeedbackEvent) else self._send_events
                try:
                    statuses = send(*sent).events
                except NotFound as error:
                    statuses = _statuses(error)
                self._taken(sent, statuses)

    def close(self) -> None:
        """Sends what waits."""
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncEventBatch(_Waiting):
    """As EventBatch, for asyncio. Made by AsyncClient.batch."""

    def __init__(
        self,
        send_feedback: Callable[..., Awaitable[FeedbackAnswer]],
        send_events: Callable[..., Awaitable[FeedbackAnswer]],
        size: int,
    ) -> None:
        super().__init__(size)
        self._send_feedback, self._send_events = send_feedback, send_events
        self._lock = asyncio.Lock()

    async def add(self, event: Event) -> None:
        """As EventBatch.add."""
        self.waiting.append(event)
        if len(self.waiting) >= self._size:
            await self.flush()

    async def flush(self) -> None:
        """As EventBatch.flush."""
        async with self._lock:
            while self.waiting:
                sent = self._next()
                send = self._send_feedback if isinstance(sent[0], FeedbackEvent) else self._send_events
                try:
                    statuses = (await send(*sent)).events
                except NotFound as error:
                    statuses = _statuses(error)
                self._taken(sent, statuses)

    async def close(self) -> None:
        """Sends what waits."""
        await self.flush()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _statuses(error: NotFound) -> list[EventStatus]:
    """What became of events none of which was taken. Raises the error if it is about something else."""
    if error.events is None:
        raise error
    return error.events
