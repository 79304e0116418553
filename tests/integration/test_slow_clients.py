"""Clients that are slow, idle or gone: they cost nobody else anything, and are no failures of the server."""

import contextlib
import logging
import re
import socket
from collections.abc import Iterator

import httpx
import pytest

from infra.benchmarks.small_release import items
from tests.api_server import Installation, running, wait_until

POST = b"POST /v1/recommendations HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def installation(broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    catalogue = items(10)
    with Installation(broker, redis_url, tmp_path_factory.mktemp("home"), "slow") as made:
        made.online.catalogue.add(catalogue)
        made.online.deployment.activate(made.release(catalogue))
        yield made


@pytest.fixture(scope="module")
def api(installation: Installation) -> Iterator[httpx.Client]:
    with running(installation.config(request_seconds=2.0, keep_alive_seconds=2)) as client:
        yield client


def connect(api: httpx.Client) -> socket.socket:
    connection = socket.create_connection((api.base_url.host, api.base_url.port or 80))
    connection.settimeout(60)
    return connection


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while block := connection.recv(65536):
            received += block
    return received


def count(api: httpx.Client, status: int, route: str = "/v1/recommendations") -> float:
    pattern = rf'matchloop_http_requests_total{{route="{route}",status="{status}"}} (\S+)'
    found = re.search(pattern, api.get("/metrics").text)
    return float(found[1]) if found else 0.0


def test_a_request_that_does_not_come_is_given_up(api: httpx.Client) -> None:
    with_body = POST + b"Content-Length: 20\r\n\r\n"
    begun = [b"", b"\r\n", b"GET /healthz HT", POST, with_body, with_body + b"{"]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(api)) for _ in begun]
        for connection, data in zip(connections, begun, strict=True):
            connection.sendall(data)
        answers = [rest(connection) for connection in connections]
    assert answers[:2] == [b"", b""]
    assert all(answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n") for answer in answers[2:])
    assert all(b'"error":"too_slow"' in answer for answer in answers[2:])


def test_idle_connections_are_closed(api: httpx.Client) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(api)) for _ in range(200)]
        for connection in connections[100:]:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: api\r\n\r\n")
        answers = [rest(connection) for connection in connections]
    assert all(b'{"status":"ok"}' in answer for answer in answers[100:])
    assert all(answer == b"" for answer in answers[:100])


def test_bytes_that_trickle_in_keep_no_connection_open(api: httpx.Client) -> None:
    for head, byte in [(b"GET /healthz HTTP/1.1\r\nX: ", b"x"), (POST + b"Content-Length: 9999\r\n\r\n", b" ")]:
        with connect(api) as connection:
            connection.sendall(head)
            connection.settimeout(0.1)
            answer = b""
            while not answer:
                connection.sendall(byte)
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 408")


def test_a_body_that_takes_its_time_is_taken(api: httpx.Client) -> None:
    with connect(api) as connection:
        body = b'{"user_id": "slow"}'
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body))
        connection.sendall(body[:5])
        connection.sendall(body[5:])
        assert rest(connection).startswith(b"HTTP/1.1 200")


def test_a_client_that_reads_nothing_is_cut_off(api: httpx.Client) -> None:
    with connect(api) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.1)
        ended = False
        while not ended:  # requests whose answers pile up
            try:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: api\r\n\r\n" * 20)
            except TimeoutError:
                continue
            except ConnectionError:
                ended = True


def test_a_client_that_goes_away_is_no_failure(api: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    failures, gone = count(api, 500), count(api, 499)
    with caplog.at_level(logging.ERROR):
        for _ in range(30):
            with connect(api) as connection:
                connection.sendall(POST + b"Content-Length: 20\r\n\r\n{")
        with connect(api) as connection:
            connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\nno length\r\n")
            answer = rest(connection)
        wait_until(lambda: count(api, 499) == gone + 31)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b'"error":"bad_request"' in answer
    assert count(api, 500) == failures
    assert caplog.records == []


def test_a_head_without_end_is_refused(api: httpx.Client) -> None:
    with connect(api) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 70_000)
        assert rest(connection).startswith(b"HTTP/1.1 431 ")


def answers_to(connection: socket.socket, request: bytes) -> bytes:
    """One answer, on a connection that stays open."""
    connection.sendall(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert length is not None
    while len(body) < int(length[1]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def test_whoever_is_turned_away_may_stay_on_the_line(installation: Installation) -> None:
    body = b'{"user_id": "in time"}'
    whole = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    large = POST + b"Content-Length: 100000\r\n\r\n" + b" " * 100_000
    pieces = POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{    \r\n0\r\n\r\n"
    with running(installation.config(max_in_flight=1)) as api, connect(api) as first, connect(api) as second:
        first.sendall(whole[:-1])  # in flight until its last byte comes
        wait_until(lambda: api.get("/metrics").text.find("\nmatchloop_http_in_flight 1.0") >= 0)
        refused = count(api, 503, "none")
        for request in (whole, large, pieces, whole):
            answer = answers_to(second, request)
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nretry-after: 1\r\n" in answer
            assert b'"error":"overloaded"' in answer
            assert answers_to(second, b"GET /healthz HTTP/1.1\r\nHost: api\r\n\r\n").startswith(b"HTTP/1.1 200")
        assert count(api, 503, "none") == refused + 4
        first.sendall(whole[-1:])
        assert answers_to(first, b"").startswith(b"HTTP/1.1 200")
        assert answers_to(second, whole).startswith(b"HTTP/1.1 200")
        first.sendall(whole[:-1])
        wait_until(lambda: api.get("/metrics").text.find("\nmatchloop_http_in_flight 1.0") >= 0)
        second.sendall(whole.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert b"\r\nconnection: close\r\n" in rest(second)
