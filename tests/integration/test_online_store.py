"""Users' histories in Redis: the same order and the same newest events as anywhere else, however often written."""

import asyncio
import itertools

import pytest
import redis
import redis.asyncio

from feature_store.definitions import HistoryEvent
from feature_store.online import AsyncOnlineStore, OnlineStore, UserFeatures, UserRecord
from feature_store.settings import RedisSettings


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> RedisSettings:
    return RedisSettings(prefix=request.node.name[:40], history_kept=5)


@pytest.fixture
def store(redis_url: str, settings: RedisSettings) -> OnlineStore:
    return OnlineStore(redis.Redis.from_url(redis_url), settings)


def read(redis_url: str, settings: RedisSettings, user: str) -> UserFeatures:
    async def ask() -> UserFeatures:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            return await AsyncOnlineStore(client, settings).user(user)

    return asyncio.run(ask())


def test_a_history_is_its_newest_events_in_whatever_order_they_are_written(
    store: OnlineStore, redis_url: str, settings: RedisSettings
) -> None:
    events = [
        HistoryEvent("a", "click+", 10),
        HistoryEvent("a", "click+", 15),  # again: counts again
        HistoryEvent("a", "click-", 20),
        HistoryEvent("ü b", "like+", 20),  # at one time: by item, then by kind
        HistoryEvent("ü", "like+", 20),
        HistoryEvent("ü", "dislike-", 20),
        HistoryEvent("old", "click+", 1),
    ]
    newest = [events[3], events[4], events[5], events[2], events[1]]
    for number, order in enumerate(itertools.islice(itertools.permutations(events), 0, 5_040, 397)):
        user = f"user{number}"
        store.add_history((user, event) for event in order[:3])
        store.put_users([UserRecord(user, ["age=5"], list(order[3:]), [("a", 7)])])
        store.add_history((user, event) for event in order)  # a replay of all of it
        assert read(redis_url, settings, user) == UserFeatures(["age=5"], newest, frozenset({"a"}))


def test_items_may_be_called_anything(store: OnlineStore, redis_url: str, settings: RedisSettings) -> None:
    names = ["", ":", "\n", "\0", "a\0b", "x" * 256]
    for item in names:
        store.add_history([(item, HistoryEvent(item, "click+", 1_700_000_000_123))])
        assert read(redis_url, settings, item).history == [HistoryEvent(item, "click+", 1_700_000_000_123)]
