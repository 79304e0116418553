"""Simulated visitors: they ask the HTTP API for recommendations, look, and send feedback, like any client would."""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np

from feature_store.contracts.catalogue import Item
from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import Unavailable
from offline_training.progress import Progress
from offline_training.simulation.client import Client, Failure, FeedbackEvent, FeedbackReceipt, Recommendation
from offline_training.simulation.freshness import FeedbackFreshness, ItemFreshness
from offline_training.simulation.result import SimulationResult, SimulationSettings, Visit
from offline_training.simulation.world import Visitor, World, arrival_fractions

_ATTEMPTS = 4  # of feedback and of items; a recommendation that failed is the visitor's loss
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_TIMEOUT_SECONDS = 10.0
_FAILURES_IN_A_ROW = 200
_LOOK_SECONDS = 0.1  # between two looks whether visits may come faster by now
_CATCH_UP_SECONDS = 1.0  # what a longer wait held up does not come all at once

Rate = Callable[[int], float | None]  # visits begun -> visits a second; 0: none for now; None: no limit
Answer = TypeVar("Answer")


class Simulator:
    """Runs visitors of a world against an API, while new items enter its catalogue.

    The order of users is drawn with the seed; how concurrent visits interleave is up to the network. Twins come one
    behind the other, in an order that is drawn anew each time, and as often as each other: as long as there is
    something left that one of them would like.
    """

    def __init__(
        self,
        world: World,
        arrivals: Sequence[Item],
        settings: SimulationSettings,
        clock: Clock,
        rate: Rate | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """rate: how fast visits may come; None: as the settings say."""
        self._world = world
        self._arrivals = list(arrivals)
        self._settings = settings
        self._clock = clock
        self._rate = rate or (lambda _: settings.visits_per_second)
        self._monotonic = monotonic

    def run(self, progress: Progress) -> SimulationResult:
        """Simulates until enough visits were made or nobody is left. Call it from a thread without an event loop.

        Raises Unavailable if 200 requests fail in a row: then the API is not there, and going on would measure nothing.
        """
        return asyncio.run(self.run_async(progress))

    async def run_async(self, progress: Progress) -> SimulationResult:
        """The same inside a running event loop."""
        connections = self._settings.concurrency + 4  # probes and arriving items must not wait behind visits
        async with Client(self._settings.url, self._settings.api_key, _TIMEOUT_SECONDS, connections) as client:
            run = _Run(
                self._world, self._arrivals, self._settings, self._clock, self._rate, self._monotonic, client, progress
            )
            return await run.result()


class _Run:
    """The state of one simulation."""

    def __init__(
        self,
        world: World,
        arrivals: Sequence[Item],
        settings: SimulationSettings,
        clock: Clock,
        rate: Rate,
        monotonic: Callable[[], float],
        client: Client,
        progress: Progress,
    ) -> None:
        self._settings, self._client, self._progress = settings, client, progress
        self._clock, self._rate, self._monotonic = clock, rate, monotonic
        self._rng = np.random.default_rng(settings.seed)
        self._waiting = world.visitors()
        self._everybody = [visitor for twins in self._waiting for visitor in twins]
        self._rewards_possible = sum(len(visitor.left) for visitor in self._everybody)
        fractions = arrival_fractions(len(arrivals), settings.arrivals_until)
        self._arrivals = deque(zip((fraction * settings.visits for fraction in fractions), arrivals, strict=True))
        self._entering: set[asyncio.Task[None]] = set()
        self._visits: list[Visit] = []
        self._started = self._unserved = self._failures_in_a_row = 0
        self._errors: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._items_failed: list[str] = []
        self._last_failure: Failure | None = None
        self._feedback = FeedbackFreshness(client, monotonic, self._failed)
        self._items = ItemFreshness([item.id for item in arrivals], client, monotonic, self._failed)

    async def result(self) -> SimulationResult:
        self._begin = self._due = self._monotonic()
        self._turnstile = asyncio.Lock()
        await asyncio.gather(*(self._worker() for _ in range(self._settings.concurrency)))
        seconds = self._monotonic() - self._begin
        await asyncio.gather(*self._entering)
        await self._feedback.finish()
        await self._items.finish()
        if self._failures_in_a_row >= _FAILURES_IN_A_ROW and self._last_failure is not None:
            raise Unavailable(
                f"{_FAILURES_IN_A_ROW} requests to {self._settings.url} failed in a row, the last with "
                f"{self._last_failure.kind} ({self._last_failure.detail}). Is the API up? Try `matchloop status`."
            )
        self._progress(1.0, self._message())
        return SimulationResult(
            seconds=seconds,
            visits=self._visits,
            users=len(self._everybody),
            users_satisfied=sum(visitor.done for visitor in self._everybody),
            users_unserved=self._unserved,
            rewards_possible=self._rewards_possible,
            errors=dict(self._errors),
            error_examples=self._examples,
            items_entered=self._items.entered,
            items_failed=self._items_failed,
            items_never_shown=self._items.never_shown,
            items_shown_too_early=self._items.shown_too_early,
            feedback_to_parameters=self._feedback.to_parameters,
            feedback_to_answer=self._feedback.to_answer,
            item_to_servable=self._items.to_servable,
            item_to_impression=self._items.to_impression(),
        )

    async def _worker(self) -> None:
        while self._waiting and self._goes_on():
            twins, again = self._draw(), []
            for twin in self._rng.permutation(len(twins)):
                if not self._goes_on():
                    break
                turn = self._started
                self._started += 1
                async with self._turnstile:  # one after the other, in the order in which they came
                    await self._until_due(turn)
                if await self._visit(twins[twin]):
                    again.append(twins[twin])
                self._let_items_enter(turn + 1)
            if not all(visitor.done for visitor in again):
                self._waiting.append(again)

    def _goes_on(self) -> bool:
        return self._started < self._settings.visits and self._failures_in_a_row < _FAILURES_IN_A_ROW

    def _draw(self) -> list[Visitor]:
        """Takes somebody at random, with all their twins, out of those who are not on a visit."""
        chosen = int(self._rng.integers(len(self._waiting)))
        self._waiting[chosen], self._waiting[-1] = self._waiting[-1], self._waiting[chosen]
        return self._waiting.pop()

    async def _until_due(self, turn: int) -> None:
        """Waits until the visit with this number, from 0 on, may begin."""
        while True:
            self._progress(turn / self._settings.visits, self._message())
            rate = self._rate(turn)
            if rate is None:
                return
            now = self._monotonic()
            due = self._due + 1 / rate if rate else math.inf
            if due <= now:
                self._due = max(due, now - _CATCH_UP_SECONDS)
                return
            await asyncio.sleep(min(due - now, _LOOK_SECONDS))

    async def _visit(self, visitor: Visitor) -> bool:
        """Returns whether the visitor can be expected again."""
        asked = self._monotonic()
        answer = await self._client.recommend(visitor.user, self._settings.slate_size, self._settings.surface)
        got = self._monotonic()
        if isinstance(answer, Failure):
            self._failed(answer)
            self._failures_in_a_row += 1
            await asyncio.sleep(min(_FIRST_PAUSE_SECONDS * self._failures_in_a_row, _LONGEST_PAUSE_SECONDS))
            return True
        self._failures_in_a_row = 0
        self._feedback.answered(answer.parameter_offsets, got)
        items = [item.id for item in answer.items]
        self._items.shown(items, got)
        rewards = visitor.see(items)
        accepted = bool(items) and await self._send_feedback(answer, rewards)
        self._visits.append(
            Visit(
                user=visitor.user,
                decision=answer.decision_id,
                variant=answer.variant,
                started=asked - self._begin,
                latency_ms=(got - asked) * 1000,
                items=items,
                rewards=rewards,
                logged=answer.logged,
                feedback_accepted=accepted,
            )
        )
        self._unserved += not items
        return bool(items)

    async def _send_feedback(self, answer: Recommendation, rewards: Sequence[float]) -> bool:
        """A view of each shown item, and a like of each liked one. Ids are the same in every attempt, so none counts
        twice.
        """
        now = self._clock.now_ms()
        events = [
            FeedbackEvent(answer.decision_id, shown.id, kind, 1.0, now, f"{answer.decision_id}/{shown.position}/{kind}")
            for shown, liked in zip(answer.items, rewards, strict=True)
            for kind in (("view", "like") if liked else ("view",))
        ]

        async def send() -> FeedbackReceipt | Failure:
            return await self._client.send_feedback(events)

        receipt = await self._attempt(send)
        if isinstance(receipt, Failure):
            return False
        self._feedback.accepted(receipt.events, self._monotonic())
        refused = [status for status in receipt.events if status.status != "accepted"]
        for status in refused:
            self._failed(Failure(f"feedback event: {status.status}", status.reason or "no reason given"))
        return not refused

    def _let_items_enter(self, visits: int) -> None:
        while self._arrivals and self._arrivals[0][0] <= visits:
            _, item = self._arrivals.popleft()
            task = asyncio.create_task(self._enter(item))
            self._entering.add(task)
            task.add_done_callback(self._entering.discard)

    async def _enter(self, item: Item) -> None:
        self._items.sent(item.id, self._monotonic())

        async def send() -> bool | Failure:
            return await self._client.put_item(item) or True

        if isinstance(await self._attempt(send), Failure):
            self._items_failed.append(item.id)
        else:
            self._items.accepted(item.id, self._monotonic())

    async def _attempt(self, send: Callable[[], Awaitable[Answer | Failure]]) -> Answer | Failure:
        """Tries again after a busy or absent server (5xx or no answer), each time a little later. Every failure
        counts.
        """
        pause = _FIRST_PAUSE_SECONDS
        for _ in range(_ATTEMPTS - 1):
            answer = await send()
            if not isinstance(answer, Failure):
                return answer
            self._failed(answer)
            if answer.status is not None and answer.status < 500:
                return answer
            await asyncio.sleep(pause)
            pause *= 2
        answer = await send()
        if isinstance(answer, Failure):
            self._failed(answer)
        return answer

    def _failed(self, failure: Failure) -> None:
        self._errors[failure.kind] += 1
        self._examples.setdefault(failure.kind, failure.detail)
        self._last_failure = failure

    def _message(self) -> str:
        elapsed = max(self._monotonic() - self._begin, 1e-9)
        failed = f", {sum(self._errors.values())} errors" if self._errors else ""
        return f"{len(self._visits):,} visits, {len(self._visits) / elapsed:.0f} a second{failed}"
