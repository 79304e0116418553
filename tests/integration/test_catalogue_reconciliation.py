"""Redis agrees with the catalogue's log in the end, whoever dies between the two writes."""

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_store.contracts.catalogue import Item
from feature_store.contracts.clock import SystemClock
from feature_store.contracts.events import encode
from feature_store.home import Home
from feature_store.online.store import OnlineStore
from infra.benchmarks.small_release import items
from streaming import lake_events, sink
from streaming.catalogue_log import encode_deletion, encode_item
from streaming.catalogue_reconciler import PART
from streaming.health import Health
from streaming.kafka import Writer
from streaming.settings import LakeSettings
from tests.api_server import Installation, running, wait_until
from tests.events import decision
from tests.integration.conftest import Server

RELEASED = items(12)
_users = (f"user {n}" for n in itertools.count())  # to whom nothing was shown yet


@pytest.fixture
def made(broker: str, redis_url: str, tmp_path: Path) -> Iterator[Installation]:
    with Installation(broker, redis_url, tmp_path, tmp_path.name.strip("_")) as installation:
        yield installation


@contextlib.contextmanager
def sinking(made: Installation) -> Iterator[Health]:
    """A sink at work, with a client as the command has it, but less patient."""
    stop, health, settings = threading.Event(), sink.new_health(), LakeSettings(flush_seconds=0.05)
    with redis.Redis.from_url(made.redis_url, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
        online = OnlineStore(client, made.redis_settings)
        arguments = (made.kafka, made.broker, Home(made.home), online, settings, SystemClock(), stop, health)
        working = threading.Thread(target=sink.run, args=arguments)
        working.start()
        try:
            yield health
        finally:
            stop.set()
            working.join()


def log_only(made: Installation, change: Item | str) -> int:
    """What a process leaves behind that dies before it writes to Redis: an item, or the id of a deleted one. Returns
    the offset behind the record."""
    record = encode_deletion(change, 1) if isinstance(change, str) else encode_item(change, 1)
    with contextlib.closing(Writer(made.broker)) as writer:
        return writer.send(made.kafka.topics.catalogue, None, record).result().offset + 1


def reconciled(made: Installation) -> int:
    return made.online.catalogue.reconciled(made.log.log_id(made.kafka.topics.catalogue))


def recommended(api: httpx.Client, item: str) -> bool:
    answer = api.post("/v1/recommendations", json={"user_id": next(_users), "only": [item], "slate_size": 1})
    return bool(answer.raise_for_status().json()["items"])


def test_what_only_the_log_has_reaches_redis_and_those_who_serve(made: Installation) -> None:
    new = Item(id="new", title="ü", categories=["drama"], attributes={"a": 1.0, "b": 2, "c": True, "d": "1"})
    made.online.catalogue.add(RELEASED)
    made.online.deployment.activate(made.release(RELEASED))
    with running(made.config()) as api, sinking(made):
        assert recommended(api, "i3")
        assert not recommended(api, "new")
        log_only(made, new)
        wait_until(lambda: recommended(api, "new"))
        assert made.online.catalogue.get(["new"]) == [new]
        log_only(made, "i3")
        wait_until(lambda: not recommended(api, "i3"))
        assert made.online.catalogue.get(["i3"]) == [None]


def test_a_record_does_not_undo_a_later_one_and_repeats_nothing(made: Installation) -> None:
    with running(made.config(), ready=False) as api:
        log_only(made, Item(id="put", title="older"))
        log_only(made, Item(id="deleted", title="older"))
        for name in ("put", "deleted"):
            assert api.put(f"/v1/items/{name}", json={"title": "newer"}).status_code == 201
        assert api.delete("/v1/items/deleted").status_code == 204
    end, before = log_only(made, Item(id="last")), made.online.changes.position()
    with sinking(made):
        wait_until(lambda: reconciled(made) == end)
    assert dict(made.online.catalogue.items()) == {"put": Item(id="put", title="newer"), "last": Item(id="last")}
    assert [change.id for change in made.online.changes.after(before, block_ms=1)] == ["last"]


def test_a_redis_that_lost_the_catalogue_has_it_again(made: Installation) -> None:
    end = [log_only(made, Item(id=name)) for name in ("a", "b", "c")][-1]
    with sinking(made):
        wait_until(lambda: reconciled(made) == end)
        made.client.delete(*made.client.keys(f"{made.redis_settings.prefix}:catalogue*"))
        wait_until(lambda: reconciled(made) == end)
        assert set(dict(made.online.catalogue.items())) == {"a", "b", "c"}
        made.client.delete(*made.client.keys(f"{made.redis_settings.prefix}:catalogue*"))
    with sinking(made):  # which has nothing more to read of the log
        wait_until(lambda: reconciled(made) == end)
    assert set(dict(made.online.catalogue.items())) == {"a", "b", "c"}


def test_while_redis_hangs_the_lake_is_written_and_redis_catches_up(made: Installation, redis_server: Server) -> None:
    def set_aside() -> bool:
        return [part[:2] for part in health.quarantined()] == [PART]

    with sinking(made) as health, contextlib.closing(Writer(made.broker)) as writer:
        end = log_only(made, Item(id="before"))
        wait_until(lambda: reconciled(made) == end)
        os.kill(redis_server.pid, signal.SIGSTOP)
        try:
            log_only(made, Item(id="meanwhile"))
            wait_until(set_aside)
            assert sink.QUARANTINED.labels(PART.of, str(PART.partition))._value.get() == 1
            record = encode([decision("ada", 1, ["a"])])
            end = writer.send(made.kafka.topics.events, None, record, 0).result().offset + 1
            wait_until(lambda: lake_events.coverage(made.home / "lake", made.log.log_id(), 0) == end)
            wait_until(set_aside)
        finally:
            os.kill(redis_server.pid, signal.SIGCONT)
        wait_until(lambda: made.online.catalogue.get(["meanwhile"]) == [Item(id="meanwhile")])
        wait_until(lambda: not health.quarantined())
    assert sink.QUARANTINED.labels(PART.of, str(PART.partition))._value.get() == 0
