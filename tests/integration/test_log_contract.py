"""What the log promises, on a broker that shares no code with the embedded one; and what it does when one of several
brokers fails, which this one does when it is asked to."""

import contextlib
import gc
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from feature_store.contracts.errors import LogMismatch
from feature_store.contracts.events import Tick, encode
from infra.checks import Check
from infra.server_checks import kafka_checks
from infra.settings import Settings
from streaming.kafka import Log, PartitionsLost, Reader, Record, Writer, partition_of
from streaming.settings import KafkaSettings
from tests.mock_kafka import PROPERTIES, MockKafka, Request, mock_kafka

TOPIC = "events"
SECONDS = 60


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with mock_kafka(brokers=3) as cluster:
        cluster.create(TOPIC, partitions=2, replicas=3)
        cluster.lead(TOPIC, 0, broker=1)
        yield cluster


@pytest.fixture
def log(kafka: MockKafka) -> Log:
    return Log(KafkaSettings(partitions=2, properties=PROPERTIES), kafka.bootstrap)


@pytest.fixture
def writer(log: Log) -> Iterator[Writer]:
    with contextlib.closing(log.writer([log.settings.topics.events])) as opened:
        yield opened


def value(time: int) -> bytes:
    return encode([Tick(time=time)])


def read(reader: Reader, count: int) -> list[Record]:
    found: list[Record] = []
    for _ in range(10 * SECONDS):
        found += reader.poll(100)
        if len(found) >= count:
            return found
    raise AssertionError(f"{len(found)} of {count} records came")


def test_records_come_back_in_order_from_where_one_begins_to_read(log: Log, writer: Writer) -> None:
    topic = log.settings.topics.events
    places = [writer.send(topic, None, value(n), 0).result(SECONDS) for n in range(5)]
    assert [(place.partition, place.offset) for place in places] == [(0, n) for n in range(5)]
    with contextlib.closing(log.reader(topic, {0: 3, 1: 0})) as reader:
        assert [(r.partition, r.offset, r.value) for r in read(reader, 2)] == [(0, n, value(n)) for n in (3, 4)]
        assert reader.lag(0) == 0
        assert [r.offset for r in reader.backlog()] == list(range(5))
        writer.send(topic, None, value(9), 1).result(SECONDS)
        assert [(r.partition, r.offset, r.value) for r in read(reader, 1)] == [(1, 0, value(9))]


def test_a_key_leads_to_its_partition(log: Log, writer: Writer) -> None:
    for key in ("anna", "ben", "carl", "dora"):
        place = writer.send(log.settings.topics.events, key, value(1)).result(SECONDS)
        assert place.partition == partition_of(key, 2)


def test_an_offset_that_the_log_does_not_hold_is_named(log: Log, writer: Writer) -> None:
    topic = log.settings.topics.events
    writer.send(topic, None, value(1), 0).result(SECONDS)
    with (
        contextlib.closing(log.reader(topic, {0: 1_000})) as reader,
        pytest.raises(PartitionsLost, match="offset 1000 of partition 0"),
    ):
        read(reader, 1)


def test_a_slow_broker_takes_as_long_as_it_takes(kafka: MockKafka, log: Log) -> None:
    for broker in (1, 2, 3):
        kafka.delay(broker, 200)
    with contextlib.closing(log.writer([TOPIC])) as writer:
        sent = [writer.send(TOPIC, None, value(n), 0) for n in range(3)]
        assert [one.result(SECONDS).offset for one in sent] == [0, 1, 2]
    with contextlib.closing(log.reader(TOPIC, {0: 0})) as reader:
        assert len(read(reader, 3)) == 3


TRANSIENT = [
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NOT_ENOUGH_REPLICAS,
]


def test_errors_that_pass_cost_time_and_neither_order_nor_a_record(kafka: MockKafka, log: Log) -> None:
    with contextlib.closing(log.writer([TOPIC])) as writer:
        writer.send(TOPIC, None, value(0), 0).result(SECONDS)
        kafka.fail(Request.PRODUCE, *TRANSIENT)
        sent = [writer.send(TOPIC, None, value(n), 0) for n in range(1, 6)]
        assert [one.result(SECONDS).offset for one in sent] == [1, 2, 3, 4, 5]
    kafka.fail(Request.FETCH, *TRANSIENT[:2])
    with contextlib.closing(log.reader(TOPIC, {0: 0})) as reader:
        assert [r.value for r in read(reader, 6)] == [value(n) for n in range(6)]


def _leader_changes(kafka: MockKafka) -> Iterator[None]:
    for leader in (2, 3, 1):
        kafka.lead(TOPIC, 0, leader)
        yield


def _leader_dies(kafka: MockKafka) -> Iterator[None]:
    with kafka.down(1):
        kafka.lead(TOPIC, 0, 2)
        yield
    yield


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("happens", [_leader_changes, _leader_dies])
def test_writer_and_reader_follow_the_leader(
    kafka: MockKafka,
    log: Log,
    happens: Callable[[MockKafka], Iterator[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "kafka")  # its records of refused connections hold their sockets open
    with (
        contextlib.closing(log.writer([TOPIC])) as writer,
        contextlib.closing(log.reader(TOPIC, {0: 0})) as reader,
    ):
        writer.send(TOPIC, None, value(0), 0).result(SECONDS)
        assert len(read(reader, 1)) == 1
        for offset, _ in enumerate(happens(kafka), 1):
            assert writer.send(TOPIC, None, value(offset), 0).result(SECONDS).offset == offset
            assert [(r.offset, r.value) for r in read(reader, 1)] == [(offset, value(offset))]
    gc.collect()  # kafka-python does not close them either


def checks(kafka: MockKafka, home: Path, **changes: Any) -> dict[str, Check]:
    settings = KafkaSettings(partitions=2, bootstrap=kafka.bootstrap, properties=PROPERTIES, **changes)
    return {check.name: check for check in kafka_checks(Settings(home=home, kafka=settings))}


@pytest.mark.parametrize(("request_kind", "done"), [(Request.PRODUCE, "written"), (Request.FETCH, "read")])
def test_doctor_says_which_right_is_missing(kafka: MockKafka, tmp_path: Path, request_kind: Request, done: str) -> None:
    for topic in ("catalogue", "deadletter"):
        kafka.create(topic, partitions=1, replicas=3)
    found = checks(kafka, tmp_path)
    assert found["kafka"].ok
    assert found["kafka rights"].ok  # the cluster does not tell
    assert found["kafka round trip"].ok
    kafka.fail(request_kind, *[KafkaError.TOPIC_AUTHORIZATION_FAILED] * 20)
    trip = checks(kafka, tmp_path)["kafka round trip"]
    assert not trip.ok
    assert re.search(rf"'events' cannot be {done}: .*[Tt]opic ?[Aa]uthorization", trip.found)
    assert "Read and Write" in trip.remedy


def test_doctor_says_how_to_make_topics_that_are_not_made_here(kafka: MockKafka, tmp_path: Path) -> None:
    assert checks(kafka, tmp_path)["topics"] == ("topics", True, "not there yet: catalogue, deadletter", "")
    found = checks(kafka, tmp_path, create_topics=False)["topics"]
    assert not found.ok
    assert "kafka-topics.sh" in found.remedy
    assert "--topic catalogue " in found.remedy


def test_a_cluster_whose_topics_have_no_ids_is_refused(log: Log) -> None:
    with pytest.raises(LogMismatch, match="gives its topics no ids"):
        log.log_id()
