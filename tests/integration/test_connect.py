"""A topic of somebody else's JSON, read into our log: once, also when it is read twice."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import Feedback, decode
from infra.connect import Connection, Health, Position, connect, read_connection
from infra.settings import Settings
from streaming.dead_letter import pending
from tests.api_server import Installation, wait_until

FILE = """
topic = "{topic}"
[events]
user_id = ["customer", "visitor"]
item_id = "lines[].sku"
type = "what"
types = {{ "ordered" = "purchase" }}
"""
MESSAGES = [
    b'{"what": "ordered", "customer": "ann", "lines": [{"sku": "a"}, {"sku": "b"}]}',
    b"not JSON",
    b'{"what": "looked"}',
    b'{"what": "ordered", "lines": [{"sku": "a"}]}',
]


@pytest.fixture
def installation(broker: str, redis_url: str, tmp_path: Path) -> Iterator[Installation]:
    with Installation(broker, redis_url, tmp_path, "connect") as made:
        admin = KafkaAdminClient(bootstrap_servers=broker)
        admin.create_topics([NewTopic("shop", 1, 1)])
        admin.close()
        with contextlib.closing(made.log.writer()) as writer:
            for message in MESSAGES:
                writer.send("shop", None, message).result()
        yield made


def told(made: Installation) -> list[Feedback]:
    reader = made.log.reader(made.kafka.topics.events, {0: 0, 1: 0})
    with contextlib.closing(reader):
        events = [event for record in reader.backlog() for event in decode(record.value)]
    return [event for event in events if isinstance(event, Feedback)]


def run_until(settings: Settings, connection: Connection, done: Callable[[], bool]) -> None:
    stop, health = threading.Event(), Health()
    thread = threading.Thread(target=lambda: asyncio.run(connect(settings, connection, stop, health)))
    thread.start()
    try:
        wait_until(lambda: done() or not thread.is_alive())
        assert thread.is_alive()
        assert health.problem() is None
    finally:
        stop.set()
        thread.join()


def test_messages_become_events_and_what_cannot_be_read_a_dead_letter(
    installation: Installation, tmp_path: Path
) -> None:
    kafka = installation.kafka.model_copy(update={"bootstrap": installation.broker})
    settings = Settings(home=tmp_path, kafka=kafka)
    file = tmp_path / "shop.toml"
    file.write_text(FILE.format(topic="shop"))
    connection, position = read_connection(file, settings), tmp_path / "connect" / "shop.json"

    def read_all() -> bool:
        return position.exists() and msgspec.json.decode(position.read_bytes(), type=Position).offsets == {0: 4}

    run_until(settings, connection, read_all)
    user = settings.keyring().user_key("ann")
    said = [(event.user, event.item, event.type, event.id) for event in told(installation)]
    assert said == [(user, "a", "purchase", "shop/0/0/0"), (user, "b", "purchase", "shop/0/0/1")]
    reader = installation.log.reader(installation.kafka.topics.deadletter, {0: 0})
    with contextlib.closing(reader):
        junk, nobody = pending(reader.backlog(), {})
    assert (junk.source, junk.offset, junk.record) == ("connected", 1, b"not JSON")
    assert "user_id, from customer or visitor" in nobody.reason

    position.unlink()  # as if it had ended before it could keep its place
    run_until(settings, connection, read_all)
    assert [event.id for event in told(installation)] == ["shop/0/0/0", "shop/0/0/1"] * 2, (
        "the same ids: they count once"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('topic = "shop"', "events: Field required"),
        (FILE.format(topic=""), "topic: String should have at least 1 character"),
        (FILE.format(topic="shop").replace("purchase", "bought"), "events.types: ['bought'] are not declared"),
        ("topic = ", "is not valid TOML"),
    ],
)
def test_a_file_that_says_something_wrong(tmp_path: Path, change: str, words: str) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(change)
    with pytest.raises(InvalidInput) as found:
        read_connection(file, Settings(home=tmp_path))
    assert words in str(found.value)
