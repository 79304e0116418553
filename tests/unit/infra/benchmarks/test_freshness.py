"""What the freshness bench counts, on an API that answers as it is told to."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import cast

from feature_store.contracts.catalogue import Item
from infra.benchmarks.freshness import ItemChanges, Traffic
from offline_training.simulation.client import (
    Client,
    EventStatus,
    Failure,
    FeedbackEvent,
    FeedbackReceipt,
    Recommendation,
    ShownItem,
)
from offline_training.simulation.freshness import FeedbackFreshness


class _Api:
    """Has learnt from feedback two answers later, and serves a changed catalogue from the third question on."""

    def __init__(self) -> None:
        self.offset = self.answers = 0
        self.learnt = [0, 0, 0]
        self.items: dict[str, bool] = {}
        self.asked = 0
        self.stop = asyncio.Event()

    async def recommend(
        self, user_id: str, slate_size: int, surface: str, only: Sequence[str] | None = None
    ) -> Recommendation | Failure:
        if only is not None:
            self.asked += 1
            there = self.items[only[0]] == (self.asked > 2)
            return Recommendation("d", [ShownItem(only[0], 1)] if there else [])
        self.learnt.append(self.offset)
        slate = [ShownItem(f"i{n}", n + 1) for n in range(slate_size)]
        return Recommendation("d", slate, parameter_offsets=[self.learnt[-3]])

    async def send_feedback(self, events: Sequence[FeedbackEvent]) -> FeedbackReceipt | Failure:
        assert {event.item_id for event in events} <= {"i0", "i1", "i2"}
        self.offset += 1
        return FeedbackReceipt([EventStatus("accepted", partition=0, offset=self.offset - 1) for _ in events])

    async def put_item(self, item: Item) -> Failure | None:
        self._changed(item.id, item.available)
        return None

    async def delete_item(self, item_id: str) -> Failure | None:
        self.stop.set()
        self._changed(item_id, False)
        return None

    def _changed(self, item: str, available: bool) -> None:
        self.items[item] = available
        self.asked = 0


def test_feedback_is_fresh_when_an_answer_was_made_with_it() -> None:
    api, failures = _Api(), Counter[str]()
    freshness = FeedbackFreshness(cast(Client, api), time.monotonic, lambda failure: None)
    freshness.to_parameters.unmeasured = "not polled"
    traffic = Traffic(cast(Client, api), freshness, failures, seed=1)
    asyncio.run(traffic.run(visits_per_second=1000, seconds=0.01))
    asyncio.run(freshness.finish())
    assert traffic.finished == 20
    assert len(freshness.to_answer.samples_ms) + freshness.to_answer.open == 10
    assert freshness.to_answer.open == 3  # the last feedback, and those that the last two answers had not learnt from
    assert failures == {}


def test_an_item_is_followed_into_answers_and_out_of_them_again() -> None:
    api, failures = _Api(), Counter[str]()
    changes = ItemChanges(cast(Client, api), failures)

    asyncio.run(changes.run(api.stop))
    assert api.items == {"new 0": False, "new 1": False}  # one switched off, one deleted
    assert [len(measured.samples_ms) for measured in (changes.to_answers, changes.from_answers)] == [2, 2]
    assert changes.finished == 4 * (1 + 3)  # changes, and questions until the third is answered as wanted
    assert failures == {}
