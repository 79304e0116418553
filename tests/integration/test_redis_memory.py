"""Redis stays bounded: what a user takes, and that it goes when nobody hears of them any more."""

import asyncio

import numpy as np
import pytest
import redis
import redis.asyncio

from feature_store.definitions import HistoryEvent
from feature_store.online.memory import memory
from feature_store.online.store import AsyncOnlineStore, OnlineStore
from feature_store.settings import RedisSettings
from feature_store.shown import DigestIndex, Shown, digests, pack
from feature_store.user_features import UserFeatures, UserRecord

NOW = 1_700_000_000_000
USERS = 5_000
_KEYS = ("profile", "history", "seen")


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> RedisSettings:
    return RedisSettings(prefix=request.node.name[:40])


def _items(user: int) -> list[str]:
    return [f"item-{user}-{n}" for n in range(520)]


def _ask(redis_url: str, settings: RedisSettings, user: str, slates: list[list[str]]) -> UserFeatures:
    async def ask() -> UserFeatures:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            users = AsyncOnlineStore(client, settings).users
            for slate in slates:
                await users.mark_shown(user, pack((item, NOW) for item in slate))
            return await users.get(user)

    return asyncio.run(ask())


def test_many_users_who_were_shown_500_items_take_four_kilobytes_each(redis_url: str, settings: RedisSettings) -> None:
    client = redis.Redis.from_url(redis_url)
    before = client.info("memory")["used_memory"]
    shown = [(item, NOW) for item in _items(0)]
    OnlineStore(client, settings).users.put(UserRecord(f"{n:064x}", [], 0, [], shown) for n in range(USERS))
    size = client.memory_usage(f"{settings.prefix}:user:{{{1:064x}}}:seen")
    assert size is not None
    assert size <= 4096
    found = memory(client, settings.prefix)
    assert {kind.kind: kind.keys for kind in found.kinds} == {"users: seen": USERS}
    assert found.kinds[0].bytes <= 4096 * USERS
    # What the server takes for them, its tables and expiries included.
    assert client.info("memory")["used_memory"] - before <= 4300 * USERS


def test_the_newest_items_are_kept_and_not_shown_again(redis_url: str, settings: RedisSettings) -> None:
    items = _items(0)
    slates = [items[n : n + 20] for n in range(0, 520, 20)]
    features = _ask(redis_url, settings, "ada", slates)
    assert isinstance(features.shown, Shown)
    index = DigestIndex(digests(items))
    assert sorted(index.positions(features.shown.digests(), 520).tolist()) == list(range(20, 520))


def test_what_is_published_stands_before_what_was_shown_and_comes_once(redis_url: str, settings: RedisSettings) -> None:
    """Of five kept: published are x and what was shown already, as old as can be."""
    settings = settings.model_copy(update={"shown_kept": 5})
    online = OnlineStore(redis.Redis.from_url(redis_url), settings)
    _ask(redis_url, settings, "ada", [["a", "b"]])
    for _ in range(2):
        online.users.put([UserRecord("ada", [], 0, [], [("x", 1), ("a", 2)])])
    names = ["x", "a", "b", "c", "d", "e"]

    def held(slates: list[list[str]]) -> list[str]:
        shown = _ask(redis_url, settings, "ada", slates).shown
        assert isinstance(shown, Shown)
        index = DigestIndex(digests(names))
        return [names[index.positions(np.array([one]), len(names))[0]] for one in shown.digests()]

    assert held([]) == ["x", "a", "b"]
    assert held([["c", "d", "e"]]) == ["a", "b", "c", "d", "e"]


def test_every_key_of_a_user_expires_and_activity_renews_it(redis_url: str, settings: RedisSettings) -> None:
    client = redis.Redis.from_url(redis_url)
    online, keys = OnlineStore(client, settings), [f"{settings.prefix}:user:{{ada}}:{name}" for name in _KEYS]
    event = HistoryEvent("a", "click+", NOW)
    online.users.put([UserRecord("ada", ["age=5"], NOW, [event], [("a", NOW)])])
    day = 86_400
    assert [round(client.ttl(key) / day) for key in keys] == [180, 180, 30]
    for key in keys:
        client.expire(key, 10)
    _ask(redis_url, settings, "ada", [["b"]])
    assert [round(client.ttl(key) / day) for key in keys] == [180, 180, 30]
    for key in client.scan_iter(f"{settings.prefix}:user:*"):
        assert client.ttl(key) > 0
