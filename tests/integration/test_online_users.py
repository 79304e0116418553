"""What is known of users in Redis: the same as anywhere else, however often and in whatever order it is written."""

import asyncio
import itertools

import pytest
import redis
import redis.asyncio

from feature_store.contracts.events import Erasure, Merge
from feature_store.definitions import HistoryEvent
from feature_store.online.store import AsyncOnlineStore, OnlineStore
from feature_store.settings import RedisSettings
from feature_store.shown import Shown, pack
from feature_store.user_features import NOBODY, Held, UserFeatures, UserRecord


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> RedisSettings:
    return RedisSettings(prefix=request.node.name[:40], history_kept=5)


@pytest.fixture
def online(redis_url: str, settings: RedisSettings) -> OnlineStore:
    return OnlineStore(redis.Redis.from_url(redis_url), settings)


def read(redis_url: str, settings: RedisSettings, user: str) -> UserFeatures:
    async def ask() -> UserFeatures:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            return await AsyncOnlineStore(client, settings).users.get(user)

    return asyncio.run(ask())


def test_a_history_is_its_newest_events_in_whatever_order_they_are_written(
    online: OnlineStore, redis_url: str, settings: RedisSettings
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
        online.users.add_history((user, event) for event in order[:3])
        online.users.put([UserRecord(user, ["age=5"], 1, list(order[3:]), [("a", 7)])])
        online.users.add_history((user, event) for event in order)  # a replay of all of it
        assert read(redis_url, settings, user) == UserFeatures(["age=5"], newest, Shown(pack([("a", 7)])))


def test_items_may_be_called_anything(online: OnlineStore, redis_url: str, settings: RedisSettings) -> None:
    names = ["", ":", "\n", "\0", "a\0b", "x" * 256]
    for item in names:
        online.users.add_history([(item, HistoryEvent(item, "click+", 1_700_000_000_123))])
        assert read(redis_url, settings, item).history == [HistoryEvent(item, "click+", 1_700_000_000_123)]


def test_the_newest_profile_counts_in_whatever_order_they_are_written(
    online: OnlineStore, redis_url: str, settings: RedisSettings
) -> None:
    profiles = [(["age=4.1"], 10), (["age=5"], 20), ([], 15)]
    for number, order in enumerate(itertools.permutations(profiles)):
        user = f"user{number}"
        (imported, at), *live = order
        online.users.put_profiles((user, tokens, time) for tokens, time in live)
        online.users.put([UserRecord(user, imported, at, [], [])])
        assert read(redis_url, settings, user).profile == ["age=5"]


def test_who_was_erased_is_not_brought_back_by_what_was_known_before(
    online: OnlineStore, redis_url: str, settings: RedisSettings
) -> None:
    """A job that read the lake before the erasure publishes after it, and an updater folds what stood before it."""
    before, after = HistoryEvent("a", "click+", 100), HistoryEvent("b", "click+", 101)
    record = UserRecord("ada", ["age=5"], 50, [before], [("a", 100)])
    online.users.put([record])

    async def erase(user: str, time: int) -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await AsyncOnlineStore(client, settings).users.erase(user, time)

    asyncio.run(erase("ada", 100))
    assert read(redis_url, settings, "ada") == NOBODY
    online.users.put([record, record._replace(user="bob")])
    online.users.add_history([("ada", before), ("bob", before)])
    online.users.put_profiles([("ada", ["age=4"], 99)])
    assert read(redis_url, settings, "ada") == NOBODY
    assert read(redis_url, settings, "bob") == UserFeatures(["age=5"], [before], Shown(pack([("a", 1)])))
    online.users.add_history([("ada", after)])  # back, as somebody new
    online.users.put_profiles([("ada", ["age=3"], 101)])
    online.users.erase([("ada", 100)])  # folded again
    assert read(redis_url, settings, "ada") == UserFeatures(["age=3"], [after], Shown(b""))
    assert online.users.erased() == {"ada": 100}
    online.users.end_erasures(before=100)
    assert online.users.erased() == {"ada": 100}
    online.users.end_erasures(before=101)
    assert online.users.erased() == {}


def events(*told: tuple[str, int]) -> list[HistoryEvent]:
    return [HistoryEvent(item, "click+", time) for item, time in told]


def test_what_a_visitor_did_and_was_shown_goes_over_once(
    online: OnlineStore, redis_url: str, settings: RedisSettings
) -> None:
    """Days are 86.4 million ms. The account's own stay, in their order in time; what came after the merge stays too."""
    day = 86_400_000
    online.users.put(
        [
            UserRecord("visit", ["age=5"], 10, events(("v1", 10), ("v2", 3 * day)), [("a", 1), ("b", 2 * day)]),
            UserRecord("ada", ["age=4"], 20, events(("u1", 5), ("u2", day)), [("b", 1), ("c", day), ("d", 3 * day)]),
        ]
    )
    merge = Merge(user="visit", account="ada", time=2 * day)

    async def at_once() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await AsyncOnlineStore(client, settings).users.merge(merge)

    whole = UserFeatures(
        ["age=4"],
        events(("u2", day), ("late", 15), ("v1", 10), ("u1", 5)),
        Shown(pack([("a", 1), ("c", day), ("b", 2 * day), ("d", 3 * day)])),
    )
    asyncio.run(at_once())  # by the API
    online.users.add_history([("visit", event) for event in events(("late", 15))])  # folded from before the merge
    for _ in range(2):
        online.users.depart([merge])
        assert read(redis_url, settings, "ada") == whole
        assert read(redis_url, settings, "visit") == UserFeatures([], events(("v2", 3 * day)), Shown(b""))
    online.users.put([UserRecord("visit", ["age=5"], 10, events(("v1", 10)), [])])  # by a release from before it
    assert read(redis_url, settings, "visit").history == events(("v2", 3 * day))
    online.users.depart([Merge(user="visit", account="bob", time=4 * day)])  # another one at the same machine
    assert read(redis_url, settings, "bob").history == events(("v2", 3 * day))


def test_an_erasure_and_a_merge_do_not_undo_each_other(
    online: OnlineStore, redis_url: str, settings: RedisSettings
) -> None:
    day = 86_400_000
    past, shown = events(("a", day), ("b", 3 * day)), [("a", day), ("b", 3 * day)]
    online.users.put([UserRecord(user, [], 0, past, shown) for user in ("visit", "gone", "seen")])
    online.users.depart([Erasure(user="ada", time=2 * day), Merge(user="visit", account="ada", time=4 * day)])
    assert read(redis_url, settings, "ada") == UserFeatures([], events(("b", 3 * day)), Shown(pack(shown[1:])))
    online.users.depart([Erasure(user="gone", time=2 * day), Merge(user="gone", account="eve", time=4 * day)])
    assert read(redis_url, settings, "eve").history == events(("b", 3 * day))
    online.users.depart([Merge(user="seen", account="bob", time=4 * day), Erasure(user="seen", time=5 * day)])
    assert len(read(redis_url, settings, "bob").history) == 2


def test_shown_items_that_are_too_many_are_cut_where_they_are_oldest(
    online: OnlineStore, redis_url: str, settings: RedisSettings
) -> None:
    day = 86_400_000
    few = OnlineStore(redis.Redis.from_url(redis_url), settings.model_copy(update={"shown_kept": 2}))
    few.users.add_shown([("visit", [("v1", 0), ("v2", 2 * day)]), ("ada", [("u1", day), ("u2", day)])])
    few.users.depart([Merge(user="visit", account="ada", time=2 * day)])
    assert read(redis_url, settings, "ada").shown == Shown(pack([("u2", day), ("v2", 2 * day)]))


def test_users_are_listed_once_page_by_page(online: OnlineStore, redis_url: str, settings: RedisSettings) -> None:
    online.users.put(
        UserRecord(f"user {n}", ["age=5"] * (n % 2), 9, events(("a", 10)) * (n % 3), [("a", 11)] * (n % 5))
        for n in range(60)
    )
    there = {f"user {n}" for n in range(60) if n % 2 or n % 3 or n % 5}
    strange = OnlineStore(redis.Redis.from_url(redis_url), settings.model_copy(update={"prefix": "*[a]?"}))
    strange.users.put([UserRecord("of somebody else", ["age=5"], 9, [], [])])

    async def page(prefix: str, cursor: int) -> tuple[int, list[tuple[str, Held]]]:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            return await AsyncOnlineStore(client, settings.model_copy(update={"prefix": prefix})).users.page(cursor, 7)

    def listed(prefix: str) -> list[tuple[str, Held]]:
        cursor, found = asyncio.run(page(prefix, 0))
        while cursor:
            cursor, more = asyncio.run(page(prefix, cursor))
            assert len(more) <= 40
            found += more
        return found

    found = listed(settings.prefix)
    assert sorted(user for user, _ in found) == sorted(there)
    assert dict(found)["user 1"] == Held(["age=5"], 9, 1, 10, 1)
    assert [user for user, _ in listed("*[a]?")] == ["of somebody else"]
