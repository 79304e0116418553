"""Redis follows the catalogue's log: whoever writes first, entries end as the log's last record says."""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import Iterator

import httpx
import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from feature_store.catalogue_writes import ItemChange
from feature_store.contracts.catalogue import Item
from feature_store.online.store import AsyncOnlineStore, OnlineStore
from feature_store.settings import RedisSettings
from streaming.catalogue_log import decode
from streaming.kafka import Reader
from tests.api_server import SHORT_IDLE, Installation, running, wait_until
from tests.integration.conftest import Server

_prefixes = (f"order{n}" for n in itertools.count())
_change = st.tuples(st.sampled_from(["a", "b"]), st.booleans())


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connected:
        yield connected


def write(redis_url: str, settings: RedisSettings, calls: list[tuple[str, list[ItemChange]]]) -> None:
    async def writing() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            online = AsyncOnlineStore(client, settings)
            for log, changes in calls:
                await online.catalogue.write(log, changes)

    asyncio.run(writing())


@profile(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), written=st.lists(_change, min_size=1, max_size=6))
def test_any_order_of_writes_ends_in_the_same_entries(
    redis_url: str, client: redis.Redis, data: st.DataObject, written: list[tuple[str, bool]]
) -> None:
    settings = RedisSettings(prefix=next(_prefixes))
    changes = [
        ItemChange(offset, name, None if deleted else Item(id=name, title=str(offset)))
        for offset, (name, deleted) in enumerate(written, 9)  # 9, 10: compared as numbers
    ]
    order = data.draw(st.permutations(changes))
    cut = data.draw(st.integers(0, len(order)))
    online = OnlineStore(client, settings)
    write(redis_url, settings, [("log", order[:cut])] if cut else [])
    online.catalogue.add(
        [Item(id="a", title="imported"), Item(id="c", title="imported")]
    )  # by a training run meanwhile
    write(redis_url, settings, [("log", order[cut:]), ("log", order)] if cut < len(order) else [])

    last = {change.id: change.item for change in changes}
    last.setdefault("a", Item(id="a", title="imported"))
    last["c"] = Item(id="c", title="imported")
    assert dict(online.catalogue.items()) == {name: item for name, item in last.items() if item is not None}


def test_a_log_that_began_anew_is_newer_than_what_the_old_one_said(redis_url: str, client: redis.Redis) -> None:
    settings = RedisSettings(prefix=next(_prefixes))
    old, new = (Item(id="a", title=title) for title in ("old log", "new log"))
    write(redis_url, settings, [("log-1", [ItemChange(700, "a", old)]), ("log-2", [ItemChange(0, "a", new)])])
    assert dict(OnlineStore(client, settings).catalogue.items()) == {"a": new}


def test_writes_of_one_item_through_two_processes_end_as_the_log_does(
    broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    contested = [f"contested {n}" for n in range(60)]

    async def write_at_once(servers: list[httpx.Client]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            first, second = [
                await stack.enter_async_context(
                    httpx.AsyncClient(base_url=server.base_url, timeout=120, limits=SHORT_IDLE)
                )
                for server in servers
            ]
            for name in contested:
                # The first record of a batch is in the log well before its last one is acknowledged.
                batch = [{"id": name, "title": "batch"}, *({"id": f"other {n}"} for n in range(50))]
                path = f"/v1/items/{name}"
                found = await asyncio.gather(
                    first.post("/v1/items:batch", json={"items": batch}),
                    *(second.put(path, json={"title": f"{n}"}) for n in range(8)),
                    second.delete(path),
                    *(first.put(path, json={"title": f"{n}"}) for n in range(8)),
                    first.delete(path),
                )
                assert {response.status_code for response in found} <= {200, 201, 204, 404}

    with Installation(broker, redis_url, tmp_path_factory.mktemp("home"), "contest") as made:
        config = made.config(feedback_deadline_ms=60_000.0)
        with running(config, ready=False) as one, running(config, ready=False) as other:
            asyncio.run(write_at_once([one, other]))
        reader = Reader(made.broker, made.kafka.topics.catalogue, {0: 0})
        last = {change.id: change.item for change in (decode(record.value) for record in reader.backlog())}
        reader.close()
        assert set(contested) < set(last)
        assert dict(zip(last, made.online.catalogue.get(last), strict=True)) == last


def test_what_the_log_takes_too_late_reaches_redis_all_the_same(
    broker_server: Server, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with (
        Installation(broker_server.address, redis_url, tmp_path_factory.mktemp("home"), "late") as made,
        running(made.config(feedback_deadline_ms=200.0), ready=False) as api,
    ):
        os.kill(broker_server.pid, signal.SIGSTOP)
        try:
            answer = api.put("/v1/items/late", json={"title": "late"})
        finally:
            os.kill(broker_server.pid, signal.SIGCONT)
        assert answer.status_code == 503
        assert "Send it again" in answer.json()["message"]
        wait_until(lambda: made.online.catalogue.get(["late"]) == [Item(id="late", title="late")])
