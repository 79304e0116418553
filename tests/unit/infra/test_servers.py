"""Ports for servers."""

import socket

from infra.servers import LOOPBACK, free_port


def test_a_port_is_not_one_that_an_outgoing_connection_may_be_given_meanwhile() -> None:
    with socket.socket() as connection:
        connection.bind((LOOPBACK, 0))
        of_connections = connection.getsockname()[1]
    assert max(free_port() for _ in range(20)) < 32_768 <= of_connections


def test_the_preferred_port_is_chosen_unless_somebody_has_it() -> None:
    wanted = free_port()
    assert free_port(wanted) == wanted
    assert free_port(wanted, taken=frozenset({wanted})) != wanted
    with socket.socket() as other:
        other.bind((LOOPBACK, wanted))
        other.listen()
        assert free_port(wanted) not in (0, wanted)
