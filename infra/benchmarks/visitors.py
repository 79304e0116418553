"""Visitors of an API that is being tormented: they repeat what was not answered, and remember what was promised."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from offline_training.simulation.client import Client, Failure, FeedbackEvent, Recommendation

_AT_ONCE = 64
_ANSWER_SECONDS = 5.0
_RETRY_SECONDS, _MOST_RETRY_SECONDS = 0.05, 1.0  # twice as long each time: repeating must not be the load
_PATIENCE_SECONDS = 60.0
_DUPLICATE_SHARE = 0.1
_MAX_EVENTS = 3
_BUSY = (None, 503)  # statuses of an API that says "try again", or says nothing


@dataclass
class Promises:
    """What the API answered."""

    decisions: dict[str, list[str]] = field(default_factory=dict)  # said to be logged -> the slate
    events: set[tuple[str, str]] = field(default_factory=set)  # accepted: (decision id, event id)
    duplicates: int = 0  # events sent again although they had been accepted
    unlogged: int = 0  # answers without exploration
    repeated: int = 0  # requests sent again because they were not answered
    unexpected: Counter[str] = field(default_factory=Counter)  # answers that say neither yes nor "try again"
    ends: dict[int, int] = field(default_factory=dict)  # partition -> the offset behind what was accepted


@contextlib.contextmanager
def visiting(
    url: str, api_key: str | None, users: int, per_second: float, slate_size: int, seed: int
) -> Iterator[Promises]:
    """Has visitors come, in a thread of their own, while this lasts. At its end they have all been answered."""
    client = Client(url, api_key, _ANSWER_SECONDS, _AT_ONCE)
    visitors, stop = Visitors(client, users, per_second, slate_size, seed), asyncio.Event()

    async def come() -> None:
        async with client:
            await visitors.come(stop)

    with ThreadPoolExecutor(1, "visitors") as thread, contextlib.closing(asyncio.new_event_loop()) as loop:
        coming = thread.submit(loop.run_until_complete, come())
        try:
            yield visitors.promises
        finally:
            if not coming.done():
                loop.call_soon_threadsafe(stop.set)
            coming.result()


class Visitors:
    """They come at a fixed rate. Each asks for a slate and clicks on one to three of its items."""

    def __init__(self, client: Client, users: int, per_second: float, slate_size: int, seed: int) -> None:
        self.promises = Promises()
        self._client = client
        self._users = users
        self._pause = 1 / per_second
        self._slate_size = slate_size
        self._rng = np.random.default_rng(seed)
        self._number = 0
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def come(self, stop: asyncio.Event) -> None:
        """Visits until told to stop; those who are there finish what they began."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        async with asyncio.TaskGroup() as visits:
            while not stop.is_set():
                await self._places.acquire()
                visits.create_task(self._visit())
                due = max(due + self._pause, loop.time() - 1)  # what a long outage held up does not come all at once
                await asyncio.sleep(max(0.0, due - loop.time()))

    async def _visit(self) -> None:
        try:
            self._number += 1
            number = self._number
            answer = await self._recommendation(f"visitor {self._rng.integers(self._users)}")
            if answer is None or not answer.items:
                return
            if not answer.logged:  # nothing that the log knows: feedback on it would be no trial
                self.promises.unlogged += 1
                return
            slate = [item.id for item in answer.items]
            self.promises.decisions[answer.decision_id] = slate
            count = min(int(self._rng.integers(1, _MAX_EVENTS + 1)), len(slate))
            clicked = self._rng.choice(len(slate), count, replace=False)
            events = [
                FeedbackEvent(
                    decision_id=answer.decision_id,
                    item_id=slate[i],
                    type="click",
                    value=1.0,
                    time=0,
                    event_id=f"{number}-{i}",
                )
                for i in clicked
            ]
            await self._send(events)
            if self._rng.random() < _DUPLICATE_SHARE:
                self.promises.duplicates += len(events)
                await self._send(events)
        finally:
            self._places.release()

    async def _recommendation(self, user: str) -> Recommendation | None:
        async for _ in self._attempts():
            answer = await self._client.recommend(user, self._slate_size, "home")
            if not isinstance(answer, Failure):
                return answer
            self._note(answer)
        return None

    async def _send(self, events: list[FeedbackEvent]) -> None:
        """The same events, by the same ids, until all of them are accepted."""
        async for _ in self._attempts():
            answer = await self._client.send_feedback(events)
            if not isinstance(answer, Failure):
                for event, status in zip(events, answer.events, strict=True):
                    self.promises.events.add((event.decision_id, event.event_id))
                    if status.partition is not None and status.offset is not None:
                        known = self.promises.ends.get(status.partition, 0)
                        self.promises.ends[status.partition] = max(known, status.offset + 1)
                return
            self._note(answer)

    def _note(self, failure: Failure) -> None:
        self.promises.repeated += 1
        if failure.status not in _BUSY:
            self.promises.unexpected[failure.kind] += 1

    async def _attempts(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + _PATIENCE_SECONDS, _RETRY_SECONDS
        while loop.time() < deadline:
            yield
            await asyncio.sleep(pause)
            pause = min(2 * pause, _MOST_RETRY_SECONDS)
        self.promises.unexpected["no answer in a minute"] += 1
