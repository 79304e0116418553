"""Several installations share a broker and a Redis: each has its own topics and keys, and nothing of the others."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient

from feature_store.contracts.events import Decision, Feedback, Tick, decode
from infra.benchmarks.small_release import items
from streaming.kafka import Reader
from tests.api_server import Installation, running, wait_until
from tests.updaters import start_updater

NAMES = ("shop", "films")


@pytest.fixture
def tenants(broker: str, redis_url: str, tmp_path: Path) -> Iterator[list[Installation]]:
    with ExitStack() as stack:
        made = [stack.enter_context(Installation(broker, redis_url, tmp_path / name, name)) for name in NAMES]
        for tenant in made:
            tenant.online.catalogue.add(items(30))
            tenant.online.deployment.activate(tenant.release(items(30)))
        yield made


def kinds(tenant: Installation) -> set[type]:
    """Of the events in its log."""
    reader = Reader(tenant.broker, tenant.kafka.topics.events, {0: 0, 1: 0})
    try:
        return {type(event) for record in reader.backlog() for event in decode(record.value)}
    finally:
        reader.close()


def test_what_one_learns_is_its_own(tenants: list[Installation]) -> None:
    shop, films = tenants
    answers: list[dict[str, Any]] = []
    stop = threading.Event()
    updaters = [start_updater(one.kafka, one.broker, one.client, one.redis_settings, one.home, stop) for one in tenants]
    try:
        with running(shop.config()) as shop_api, running(films.config()) as films_api:

            def logged() -> bool:
                answers.append(shop_api.post("/v1/recommendations", json={"user_id": "ada"}).json())
                return bool(answers[-1]["logged"])

            wait_until(logged)
            answer = answers[-1]
            told = {"decision_id": answer["decision_id"], "item_id": answer["items"][0]["id"], "type": "like"}
            event = {"events": [{**told, "event_id": "1"}]}
            assert shop_api.post("/v1/feedback", json=event).status_code == 202
            wait_until(lambda: shop_api.get("/v1/users/ada").status_code == 200)
            assert films_api.get("/v1/users/ada").status_code == 404
    finally:
        stop.set()
        for updater in updaters:
            updater.join()
    assert kinds(shop) == {Decision, Feedback, Tick}
    assert kinds(films) <= {Tick}
    admin = KafkaAdminClient(bootstrap_servers=shop.broker)
    topics = set(admin.list_topics())
    admin.close()
    assert topics == {f"{name}-{topic}" for name in NAMES for topic in ("events", "catalogue", "deadletter")}
    keys = {key.decode().partition(":")[0] for key in shop.client.scan_iter(count=1000)}
    assert keys == set(NAMES)
