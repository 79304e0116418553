"""The parts of the faults bench: a link that can be cut, and what counts as well."""

import contextlib
import gc
import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from infra.benchmarks.faults.asking import Asked, quantile_ms
from infra.benchmarks.faults.bench import _summary
from infra.benchmarks.faults.broker_link import BrokerLink, Partition
from infra.benchmarks.faults.cases import CASES
from infra.benchmarks.faults.link import Link
from infra.servers import LOOPBACK
from streaming.kafka import Appended, Log, Record
from streaming.settings import KafkaSettings
from tests.mock_kafka import PROPERTIES, mock_kafka


class Echo(socketserver.StreamRequestHandler):
    """Says what it hears."""

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := self.rfile.readline():
                self.wfile.write(line)


@pytest.fixture
def link() -> Iterator[Link]:
    with socketserver.ThreadingTCPServer((LOOPBACK, 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Link(0, server.server_address[1]) as made:
            yield made
        server.shutdown()
        thread.join()


def connect(port: int) -> socket.socket:
    return socket.create_connection((LOOPBACK, port), timeout=60)


def said(connection: socket.socket, text: bytes = b"hello\n") -> bytes:
    """What comes back; nothing if the connection is closed."""
    try:
        connection.sendall(text)
        return connection.recv(100)
    except ConnectionError:
        return b""


def test_a_link_passes_on_what_is_said_and_can_be_cut(link: Link) -> None:
    with connect(link.port) as before:
        assert said(before) == b"hello\n"
        with link.cut():
            assert said(before) == b""
            with connect(link.port) as meanwhile:
                assert said(meanwhile) == b""
        with connect(link.port) as after:
            assert said(after) == b"hello\n"


def test_a_frozen_link_keeps_connections_and_what_was_said_on_them(link: Link) -> None:
    with connect(link.port) as connection:
        assert said(connection) == b"hello\n"
        with link.frozen():
            connection.settimeout(0.05)
            with pytest.raises(TimeoutError):
                said(connection)
        connection.settimeout(60)
        assert connection.recv(100) == b"hello\n"


def test_a_slow_link_answers_late(link: Link) -> None:
    with connect(link.port) as connection, link.slow(0.2):
        assert said(connection) == b"hello\n"
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            said(connection)


def test_a_link_that_is_cut_while_it_is_being_cut_leaves_no_connection_open(link: Link) -> None:
    def cut(more: int) -> None:
        link._set(True, 0.0, True)
        if more:
            link._loop.call_soon(cut, more - 1)

    with connect(link.port) as connection:
        assert said(connection) == b"hello\n"
        link._loop.call_soon_threadsafe(cut, 5)
        assert connection.recv(100) == b""
    gc.collect()  # a warning about an open connection is an error


def test_nothing_is_written_to_a_partition_without_a_leader_until_it_has_one_again() -> None:
    with mock_kafka(brokers=1) as kafka, BrokerLink(0, int(kafka.bootstrap.rpartition(":")[2])) as link:
        kafka.create("events", partitions=2, replicas=1)
        kafka.advertise(1, link.port)
        log = Log(KafkaSettings(partitions=2, properties=PROPERTIES), f"{LOOPBACK}:{link.port}")
        with (
            contextlib.closing(log.writer(["events"])) as writer,
            contextlib.closing(log.reader("events", {0: 0, 1: 0})) as reader,
        ):
            with link.without_leader(Partition("events", "", 0)):
                waiting = writer.send("events", None, b"waits", 0)
                for number in range(3):
                    assert writer.send("events", None, b"goes", 1).result(60) == Appended(1, number)
                assert not waiting.done()
            assert waiting.result(60) == Appended(0, 0)
            found: list[Record] = []
            while len(found) < 4:
                found += reader.poll(100)
    assert sorted((one.partition, one.value) for one in found) == [(0, b"waits"), *3 * [(1, b"goes")]]


def test_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_summary_by_hand() -> None:
    asked = [
        Asked("anna", 200, "full", True, 0.1),
        Asked("ben", 200, "popular", False, 0.3),
        Asked("anna", 503, "", False, 9.0),
        Asked("ben", 0, "", False, 9.0),
    ]
    found = _summary(CASES[0]._replace(silent=0), asked, float("nan"), {"anna": 0, "ben": 1}.__getitem__)
    assert found == {
        "statuses": {"200": 2, "503": 1, "0": 1},
        "paths": {"full": 1, "popular": 1},
        "other_paths": 1,
        "logged": 0.5,
        "logged_by_partition": {0: 1.0, 1: 0.0},
        "unlogged_elsewhere": 1,
        "p50_ms": pytest.approx(200),
        "p99_ms": pytest.approx(298),
        "recovery_seconds": None,
    }
    assert quantile_ms([], 0.5) == 0.0
    assert asked[0].well
    assert not asked[1].well
