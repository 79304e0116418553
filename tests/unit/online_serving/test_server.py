"""Whose port it is: processes that start at the same time find out, and the later one says so."""

import re
import socket
from collections.abc import Iterator

import pytest

from feature_store.contracts.errors import Unavailable
from online_serving.server import Address, _bound, _listen


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    """As a process that has its port, and does not listen on it yet."""
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", 0))
        yield made


def taken(address: Address) -> str:
    return re.escape(f"{address[0]}:{address[1]} cannot be listened on (Address already in use). Set serving.port.")


def test_the_first_that_binds_a_port_has_it(bound: socket.socket) -> None:
    address = bound.getsockname()
    with _bound(address, False, "serving.port"):
        with pytest.raises(Unavailable, match=taken(address)):
            _bound(address, False, "serving.port")
        with pytest.raises(OSError, match="Address already in use"):
            bound.listen()


def test_several_share_a_port_and_do_not_listen_before_they_are_told_to() -> None:
    with _bound(("127.0.0.1", 0), True, "serving.port") as first:
        address = first.getsockname()
        with _bound(address, True, "serving.port") as second:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            _listen(first, "serving.port")
            _listen(second, "serving.port")
            socket.create_connection(address).close()


def test_one_of_several_says_that_somebody_else_has_come_to_listen_on_its_port() -> None:
    with _bound(("127.0.0.1", 0), True, "serving.port") as shared:
        address = shared.getsockname()
        with _bound(address, False, "serving.port"), pytest.raises(Unavailable, match=taken(address)):
            _listen(shared, "serving.port")
