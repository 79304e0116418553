"""The parts of the faults bench: a link that can be cut, and what counts as well."""

import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest

from infra.benchmarks.faults.asking import Asked, quantile_ms
from infra.benchmarks.faults.bench import _summary
from infra.benchmarks.faults.cases import CASES
from infra.benchmarks.faults.link import Link
from infra.servers import LOOPBACK, free_port


class Echo(socketserver.StreamRequestHandler):
    """Says what it hears."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            self.wfile.write(line)


@pytest.fixture
def link() -> Iterator[tuple[Link, int]]:
    with socketserver.ThreadingTCPServer((LOOPBACK, 0), Echo) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = free_port()
        with Link(port, server.server_address[1]) as made:
            yield made, port
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


def test_a_link_passes_on_what_is_said_and_can_be_cut(link: tuple[Link, int]) -> None:
    made, port = link
    with connect(port) as before:
        assert said(before) == b"hello\n"
        with made.cut():
            assert said(before) == b""
            with connect(port) as meanwhile:
                assert said(meanwhile) == b""
        with connect(port) as after:
            assert said(after) == b"hello\n"


def test_a_frozen_link_keeps_connections_and_what_was_said_on_them(link: tuple[Link, int]) -> None:
    made, port = link
    with connect(port) as connection:
        assert said(connection) == b"hello\n"
        with made.frozen():
            connection.settimeout(0.05)
            with pytest.raises(TimeoutError):
                said(connection)
        connection.settimeout(60)
        assert connection.recv(100) == b"hello\n"


def test_a_slow_link_answers_late(link: tuple[Link, int]) -> None:
    made, port = link
    with connect(port) as connection, made.slow(0.2):
        assert said(connection) == b"hello\n"
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            said(connection)


def test_cases_have_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_summary_by_hand() -> None:
    asked = [
        Asked(200, "full", True, 0.1),
        Asked(200, "popular", False, 0.3),
        Asked(503, "", False, 9.0),
        Asked(0, "", False, 9.0),
    ]
    found = _summary(CASES[0], asked, float("nan"))
    assert found == {
        "statuses": {"200": 2, "503": 1, "0": 1},
        "paths": {"full": 1, "popular": 1},
        "other_paths": 1,
        "logged": 0.5,
        "p50_ms": pytest.approx(200),
        "p99_ms": pytest.approx(298),
        "recovery_seconds": None,
    }
    assert quantile_ms([], 0.5) == 0.0
    assert asked[0].well
    assert not asked[1].well
