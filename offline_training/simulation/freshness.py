"""How long the loop takes: from feedback to parameters and answers that know it, from a new item to its first
impression.
"""

import asyncio
import heapq
from collections.abc import Callable, Collection, Sequence

import msgspec
import numpy as np

from offline_training.simulation.client import Client, EventStatus, Failure

POLL_SECONDS = 0.01
PROBE_SECONDS = 0.2  # between two feedbacks that are followed: polls are requests, too
PATIENCE_SECONDS = 10.0

Seconds = Callable[[], float]


class Delays(msgspec.Struct, kw_only=True):
    """Delays in milliseconds, and what is not among them."""

    samples_ms: list[float] = []
    open: int = 0  # still waiting when the run, or the patience, ended: the true delays are longer
    unmeasured: str | None = None  # why there are no samples

    def quantile(self, q: float) -> float | None:
        """The q-quantile in ms, None without samples."""
        return float(np.quantile(self.samples_ms, q)) if self.samples_ms else None


class FeedbackFreshness:
    """Follows feedback from its 202 until serving has learnt from it.

    `to_parameters` polls GET /v1/parameters every 10 ms for one feedback at a time, a few a second, so it does not
    depend on the rate of visits; a poll and its round trip are the error, always upwards. `to_answer` waits for the
    first recommendation whose parameters cover the feedback: it holds for every feedback and includes the wait for
    the next visit.
    """

    def __init__(self, client: Client, monotonic: Seconds, on_failure: Callable[[Failure], None]) -> None:
        self.to_parameters = Delays()
        self.to_answer = Delays()
        self._client = client
        self._monotonic = monotonic
        self._on_failure = on_failure
        self._waiting: dict[int, list[tuple[int, float]]] = {}
        self._probe: asyncio.Task[None] | None = None
        self._next_probe = 0.0

    def accepted(self, events: Sequence[EventStatus], at: float) -> None:
        """Feedback was accepted at a (monotonic) time."""
        placed = [(e.partition, e.offset) for e in events if e.partition is not None and e.offset is not None]
        if not placed:
            reason = "the API's answers to feedback carry no partition and offset"
            self.to_parameters.unmeasured = self.to_answer.unmeasured = reason
            return
        partition, offset = max(placed)
        heapq.heappush(self._waiting.setdefault(partition, []), (offset, at))
        free = at >= self._next_probe and (self._probe is None or self._probe.done())
        if free and self.to_parameters.unmeasured is None:
            self._next_probe = at + PROBE_SECONDS
            self._probe = asyncio.create_task(self._until_folded(partition, offset, at))

    def answered(self, offsets: Sequence[int] | None, at: float) -> None:
        """A recommendation was made with parameters folded up to the offsets (next offset, one per partition)."""
        if offsets is None:
            self.to_answer.unmeasured = "the API's recommendations carry no parameter offsets"
            return
        for partition, folded in enumerate(offsets):
            waiting = self._waiting.get(partition, [])
            while waiting and waiting[0][0] < folded:
                _, since = heapq.heappop(waiting)
                self.to_answer.samples_ms.append((at - since) * 1000)

    async def finish(self) -> None:
        """Waits for the probe in flight."""
        if self._probe is not None:
            await self._probe
        if self.to_answer.unmeasured is None:
            self.to_answer.open = sum(len(waiting) for waiting in self._waiting.values())

    async def _until_folded(self, partition: int, offset: int, since: float) -> None:
        while self._monotonic() - since < PATIENCE_SECONDS:
            answer = await self._client.parameters()
            if isinstance(answer, Failure):
                if answer.status == 404:
                    self.to_parameters.unmeasured = "the API has no GET /v1/parameters"
                    return
                self._on_failure(answer)
            elif partition < len(answer.offsets) and answer.offsets[partition] > offset:
                self.to_parameters.samples_ms.append((self._monotonic() - since) * 1000)
                return
            await asyncio.sleep(POLL_SECONDS)
        self.to_parameters.open += 1


class ItemFreshness:
    """Follows new items from their acceptance until they can be served, and until somebody is shown one."""

    def __init__(
        self, items: Collection[str], client: Client, monotonic: Seconds, on_failure: Callable[[Failure], None]
    ) -> None:
        self.to_servable = Delays()
        self._items = frozenset(items)
        self._client = client
        self._monotonic = monotonic
        self._on_failure = on_failure
        self._sent: dict[str, float] = {}
        self._accepted: dict[str, float] = {}
        self._shown: dict[str, float] = {}
        self._probe: asyncio.Task[None] | None = None
        self._next_probe = 0.0

    def sent(self, item: str, at: float) -> None:
        """The item is on its way to the API."""
        self._sent.setdefault(item, at)

    def accepted(self, item: str, at: float) -> None:
        """The API took the item."""
        self._accepted.setdefault(item, at)
        if self.to_servable.unmeasured is None and (self._probe is None or self._probe.done()):
            self._probe = asyncio.create_task(self._until_servable(item, at))

    def shown(self, items: Sequence[str], at: float) -> None:
        """A slate was answered."""
        for item in self._items.intersection(items):
            self._shown.setdefault(item, at)

    async def finish(self) -> None:
        """Waits for the probe in flight."""
        if self._probe is not None:
            await self._probe

    def to_impression(self) -> Delays:
        """From acceptance to the first answer with the item. Items shown before they were sent are left out."""
        delays = [
            max(self._shown[item] - at, 0.0) * 1000
            for item, at in self._accepted.items()
            if item in self._shown and item not in self.shown_too_early
        ]
        return Delays(samples_ms=delays, open=len(self.never_shown))

    @property
    def entered(self) -> int:
        return len(self._accepted)

    @property
    def never_shown(self) -> list[str]:
        return [item for item in self._accepted if item not in self._shown]

    @property
    def shown_too_early(self) -> list[str]:
        """Items that somebody was shown before they were sent: the catalogue had them already."""
        return [item for item, at in self._shown.items() if at < self._sent.get(item, float("inf"))]

    async def _until_servable(self, item: str, since: float) -> None:
        while self._monotonic() - since < PATIENCE_SECONDS:
            answer = await self._client.item(item)
            if isinstance(answer, Failure):
                self._on_failure(answer)
            elif answer.servable is None:
                self.to_servable.unmeasured = "the API's items do not say whether they can be served"
                return
            elif answer.servable:
                self.to_servable.samples_ms.append((self._monotonic() - since) * 1000)
                return
            await asyncio.sleep(POLL_SECONDS)
        self.to_servable.open += 1
