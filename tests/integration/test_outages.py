"""Servers that hang: the broker and Redis are stopped for longer than any time-out, and go on where they were."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import Unacknowledged
from feature_store.contracts.events import Decision, Event, Feedback, Tick, Withdrawal, decode, encode
from feature_store.contracts.identity import Keyring
from feature_store.home import Home
from feature_store.online.store import AsyncOnlineStore
from infra.benchmarks.small_release import items
from infra.servers import free_port
from streaming import lake_events, sink
from streaming.kafka import Appended, Log, Reader, Writer
from streaming.settings import LakeSettings
from tests.api_server import SECRET, Installation, running, wait_until
from tests.integration.conftest import Server, running_broker
from tests.updaters import start_updater

CATALOGUE = items(30)
_HANG_SECONDS = 13.0  # longer than kafka-python tries to deliver a record
_PATIENCE_SECONDS = 60.0


@pytest.fixture
def installation(broker: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    with Installation(broker, redis_url, tmp_path, request.node.name[:40]) as made:
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(made.release(CATALOGUE))
        yield made


@contextlib.contextmanager
def hanging(server: Server) -> Iterator[float]:
    """The server does nothing meanwhile, and its connections stay open. Yields when that is to be over."""
    os.kill(server.pid, signal.SIGSTOP)
    wait_until(lambda: stopped(server.pid))  # on a busy machine some of its threads go on for a moment
    try:
        yield time.monotonic() + _HANG_SECONDS
    finally:
        os.kill(server.pid, signal.SIGCONT)


def stopped(pid: int) -> bool:
    """Whether every thread of the process stands still."""
    states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
    return set(states) == {"T"}


def answer(api: httpx.Client) -> dict[str, Any]:
    asked = api.post("/v1/recommendations", json={"user_id": "ada"})
    assert asked.status_code == 200
    content: dict[str, Any] = asked.json()
    return content


def click(api: httpx.Client, answered: dict[str, Any], event: str) -> int:
    """The status of feedback on the first item of an answer."""
    item = answered["items"][0]["id"]
    told = {"decision_id": answered["decision_id"], "item_id": item, "type": "click", "event_id": event}
    return api.post("/v1/feedback", json={"events": [told]}).status_code


def history_of(installation: Installation) -> set[str]:
    """The items in the user's history, as the updater has written it."""

    async def read() -> set[str]:
        async with redis.asyncio.Redis.from_url(installation.redis_url) as client:
            user = Keyring(SECRET).user_key("ada")
            found = await AsyncOnlineStore(client, installation.redis_settings).users.get(user)
            return {event.item for event in found.history}

    return asyncio.run(read())


def events_in(installation: Installation) -> list[Event]:
    """All that the events topic holds."""
    reader = Reader(installation.broker, installation.kafka.topics.events, dict.fromkeys(range(2), 0))
    found = [event for record in reader.backlog() for event in decode(record.value)]
    reader.close()
    return found


@contextlib.contextmanager
def folding(installation: Installation) -> Iterator[None]:
    """An updater and a sink are at work."""
    stop = threading.Event()
    updater = start_updater(
        installation.kafka, installation.broker, installation.client, installation.redis_settings, installation.home,
        stop,
    )  # fmt: skip
    sinking = threading.Thread(
        target=sink.run,
        args=(
            installation.kafka, installation.broker, Home(installation.home), installation.online,
            LakeSettings(flush_seconds=0.1), SystemClock(), stop,
        ),
    )  # fmt: skip
    sinking.start()
    try:
        yield
        assert updater.is_alive()
        assert sinking.is_alive()
    finally:
        stop.set()
        updater.join()
        sinking.join()


def wait_until_folded(installation: Installation) -> None:
    """... and in the lake, up to a record that is appended now."""
    active = installation.online.deployment.active()
    assert active is not None
    log = Log(installation.kafka, installation.broker)
    log_id, ends = log.log_id(), log.append_everywhere(encode([Tick(time=1)]))

    def folded() -> bool:
        places = [installation.bandit.progress(active.namespace, partition)[0] for partition in range(2)]
        return all(place is not None and place.offset >= end for place, end in zip(places, ends, strict=True))

    def stored() -> bool:
        lake = installation.home / "lake"
        return all(lake_events.coverage(lake, log_id, partition) >= end for partition, end in enumerate(ends))

    wait_until(folded, _PATIENCE_SECONDS)
    wait_until(stored, _PATIENCE_SECONDS)


def test_all_goes_on_when_a_broker_that_hung_is_back(installation: Installation, broker_server: Server) -> None:
    """... and of the decisions that were on their way none counts that was not answered."""
    answered: list[dict[str, Any]] = []
    sent: list[Future[Appended]] = []

    def logged() -> bool:
        answered.append(answer(api))
        return bool(answered[-1]["logged"])

    def taken() -> bool:
        sent.append(writer.send(installation.kafka.topics.catalogue, "key", b"x"))
        with contextlib.suppress(TimeoutError):
            return sent[-1].exception(0.5) is None
        return False

    def what_counts_was_answered() -> bool:
        in_log = events_in(installation)
        made = {event.id for event in in_log if isinstance(event, Decision)}
        withdrawn = {event.decision for event in in_log if isinstance(event, Withdrawal)}
        shown = {one["decision_id"] for one in answered if one["logged"]}
        assert shown <= made - withdrawn
        return made - withdrawn == shown

    with (
        running(installation.config(repeat_days=0)) as api,
        folding(installation),
        contextlib.closing(Writer(installation.broker)) as writer,
    ):
        wait_until(logged)
        wait_until(taken)
        wait_until_folded(installation)
        with hanging(broker_server) as over:
            while time.monotonic() < over:
                assert not taken()
                assert not logged()
            assert click(api, answered[0], "while it hangs") == 503
        wait_until(taken, _PATIENCE_SECONDS)
        wait_until(logged, _PATIENCE_SECONDS)
        wait_until(lambda: click(api, answered[-1], "afterwards") == 202, _PATIENCE_SECONDS)
        wait_until(what_counts_was_answered, _PATIENCE_SECONDS)
        unlogged = next(one for one in answered if not one["logged"])
        wait_until(lambda: click(api, unlogged, "of an unlogged answer") == 202, _PATIENCE_SECONDS)
        clicked = {one["items"][0]["id"] for one in (answered[-1], unlogged)}
        wait_until(lambda: clicked <= history_of(installation), _PATIENCE_SECONDS)
        assert "afterwards" in [event.id for event in events_in(installation) if isinstance(event, Feedback)]
        wait_until_folded(installation)
        for done in sent:
            error = done.exception(_PATIENCE_SECONDS)
            assert error is None or isinstance(error, Unacknowledged)


def test_all_goes_on_when_a_redis_that_hung_is_back(installation: Installation, redis_server: Server) -> None:
    with running(installation.config(repeat_days=0)) as api, folding(installation):
        wait_until(lambda: answer(api)["degraded"] == [])
        wait_until_folded(installation)
        with hanging(redis_server) as over:
            assert "user_features" in answer(api)["degraded"]
            wait_until(lambda: time.monotonic() > over, 2 * _HANG_SECONDS)
        wait_until(lambda: answer(api)["degraded"] == [], _PATIENCE_SECONDS)
        wait_until(lambda: api.put("/v1/items/fresh", json={"title": "Fresh"}).status_code == 201)
        only = {"user_id": "ada", "only": {"items": ["fresh"]}}
        wait_until(lambda: api.post("/v1/recommendations", json=only).json()["items"], _PATIENCE_SECONDS)
        wait_until_folded(installation)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_api_starts_without_its_log_and_finds_it_later(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "kafka")  # its records of refused connections hold their sockets open
    port = free_port()
    with running_broker(port) as server, Installation(server.address, redis_url, tmp_path, "late") as installation:
        installation.online.catalogue.add(CATALOGUE)
        installation.online.deployment.activate(installation.release(CATALOGUE))
    with contextlib.ExitStack() as after_the_api, running(installation.config()) as api:
        ready = api.get("/readyz").json()
        assert ready["ready"]
        assert "acknowledged nothing" in ready["degraded"]["log"]
        assert answer(api)["logged"] is False
        after_the_api.enter_context(running_broker(port))
        wait_until(lambda: answer(api)["logged"], _PATIENCE_SECONDS)
        wait_until(lambda: api.get("/readyz").json()["degraded"] == {})
    gc.collect()  # it does not close them either
