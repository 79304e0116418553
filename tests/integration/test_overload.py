"""Many requests at once: each gets a whole answer, or is told to come back."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.events import Tick, encode
from infra.benchmarks.small_release import items
from online_serving.event_log import EventLog
from streaming.writer import Writer
from tests.api_server import Installation, running, wait_until

CATALOGUE = items(60)


@pytest.fixture(scope="module")
def installation(broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(broker, redis_url, tmp_path_factory.mktemp("home"), "overload") as made:
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(made.release(CATALOGUE))
        yield made


@pytest.fixture(scope="module")
def api(installation: Installation) -> Iterator[httpx.Client]:
    with running(installation.config()) as client:
        yield client


def at_once(api: httpx.Client, requests: list[tuple[str, str, Any]]) -> list[httpx.Response]:
    """Answers to requests (method, path, body) that are all on their way before the first answer is read."""

    async def send() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=api.base_url, limits=limits, timeout=120) as client:
            return await asyncio.gather(*(client.request(method, path, json=body) for method, path, body in requests))

    return asyncio.run(send())


def all_answered(api: httpx.Client, users: list[str]) -> list[dict[str, Any]]:
    """What users are recommended who ask at once, and again as long as they are told to come back."""
    found: list[dict[str, Any]] = []
    asked = users
    while asked:
        answers = at_once(api, [("POST", "/v1/recommendations", {"user_id": user}) for user in asked])
        assert {answer.status_code for answer in answers} <= {200, 503}
        found += [answer.json() for answer in answers if answer.status_code == 200]
        asked = [user for user, answer in zip(asked, answers, strict=True) if answer.status_code == 503]
    return found


def test_a_batch_may_have_a_thousand_items(api: httpx.Client) -> None:
    batch = [{"id": f"many {n}", "title": f"{n}"} for n in range(1000)]
    first = api.post("/v1/items:batch", json={"items": batch})
    assert first.json() == {"created": 1000, "replaced": 0}
    assert api.post("/v1/items:batch", json={"items": batch}).json() == {"created": 0, "replaced": 1000}
    assert api.get("/v1/items/many 999").json()["title"] == "999"


def test_nobody_is_a_stranger_because_many_ask_at_once(api: httpx.Client) -> None:
    users = [f"user {n}" for n in range(150)]
    for user in users:
        assert api.put(f"/v1/users/{user}", json={"attributes": {"age": 31}}).status_code == 204
    assert [answer["degraded"] for answer in all_answered(api, users)] == [[]] * 150


def test_many_items_may_be_put_at_once(api: httpx.Client) -> None:
    answers = at_once(api, [("PUT", f"/v1/items/at once {n}", {}) for n in range(200)])
    assert [answer.status_code for answer in answers] == [201] * 200


def test_a_redis_that_hangs_holds_up_many_no_longer_than_one(api: httpx.Client, installation: Installation) -> None:
    installation.client.client_pause(20_000)
    answers = all_answered(api, [f"hung {n}" for n in range(60)])
    assert [answer["degraded"] for answer in answers] == [["user_features", "shown_items"]] * 60
    assert {answer["path"] for answer in answers} == {"popular_in_segment"}
    wait_until(lambda: api.get("/readyz").status_code == 200, 60)
    wait_until(lambda: all_answered(api, ["back"])[0]["degraded"] == [], 60)  # asked again after a second


def test_an_acknowledgement_counts_when_it_has_come_also_if_the_event_loop_is_busy(installation: Installation) -> None:
    async def scenario() -> None:
        log = EventLog(installation.kafka, SystemClock())
        async with log.running(installation.broker):
            sent = log.append("ada", [Tick(time=1)])
            with contextlib.closing(Writer(installation.broker)) as other:  # blocks the loop, as computing does
                other.send(installation.kafka.topics.events, "ada", encode([Tick(time=1)])).result(60)
                wait_until(lambda: log.stalled_seconds("ada") == 0.0, 60)
            assert not sent.done(), "the loop has not come to it"
            await sent

    asyncio.run(scenario())


def test_requests_beyond_the_limit_are_told_to_come_back(installation: Installation) -> None:
    with running(installation.config(max_in_flight=3)) as api:
        requests = [("POST", "/v1/recommendations", {"user_id": f"u{n}"}) for n in range(50)]
        answers = at_once(api, requests)
        refused = [answer for answer in answers if answer.status_code == 503]
        assert {answer.status_code for answer in answers} == {200, 503}
        assert all(answer.headers["Retry-After"] == "1" for answer in refused)
        assert all(answer.json()["error"] == "overloaded" for answer in refused)
        assert all(answer.json()["degraded"] == [] for answer in answers if answer.status_code == 200)
        assert api.post("/v1/recommendations", json={"user_id": "later"}).status_code == 200
        wait_until(lambda: "matchloop_http_in_flight 0.0" in api.get("/metrics").text)
