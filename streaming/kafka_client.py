"""How every client of Kafka connects."""

from collections.abc import Callable
from typing import Any

from kafka.errors import KafkaError
from kafka.net import KafkaNetClient

from feature_store.contracts.errors import Unavailable

CONNECT_TIMEOUT_MS = 5_000
_RECONNECT_MS = 1_000  # at most between two attempts; kafka-python's own limit is 30 s


def connected(make: Callable[..., Any], bootstrap: str, **settings: Any) -> Any:
    """A KafkaProducer, KafkaConsumer or KafkaAdminClient with these settings. Raises Unavailable, with nothing left
    open, if the cluster does not answer."""
    opened: list[KafkaNetClient] = []

    def client(**configuration: Any) -> KafkaNetClient:
        opened.append(KafkaNetClient(**configuration))
        return opened[-1]

    try:
        return make(
            bootstrap_servers=bootstrap,
            bootstrap_timeout_ms=CONNECT_TIMEOUT_MS,
            reconnect_backoff_max_ms=_RECONNECT_MS,
            kafka_client=client,
            **settings,
        )
    except KafkaError as error:
        found = str(error)
        while opened:
            opened.pop().close()
    # Outside and with nothing opened, so that it holds no sockets of refused connections: kafka-python does not close
    # them.
    raise Unavailable(f"Kafka does not answer at {bootstrap} ({found}). Start it, or set MATCHLOOP_KAFKA_BOOTSTRAP.")
