"""A second Kafka beside the embedded one: librdkafka's mock cluster, several brokers in this process, whose faults are
asked for. It comes with confluent-kafka, whose Python has no names for it.

It knows what producers and consumers ask, and no more: topics have neither configurations nor ids, and nobody has to
say who they are. What it can it says as Kafka 3 did: clients begin with `broker.version.fallback`.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from confluent_kafka import cimpl

_PRODUCER = 0
_TEXT_BYTES = 512


PROPERTIES = {"broker.version.fallback": "1.0"}


class Request(IntEnum):
    """Kinds of requests, as the protocol numbers them."""

    PRODUCE = 0
    FETCH = 1
    METADATA = 3


class MockKafka:
    """Brokers with the ids 1, 2, ..."""

    def __init__(self, library: ctypes.CDLL, cluster: int) -> None:
        self._library, self._cluster = library, ctypes.c_void_p(cluster)
        library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        self.bootstrap: str = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create(self, topic: str, partitions: int, replicas: int) -> None:
        """Makes a topic."""
        self._done(self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, replicas))

    def advertise(self, broker: int, port: int) -> None:
        """Has clients told another port of a broker: of what stands in front of it."""
        host = ctypes.c_char_p(b"127.0.0.1")
        self._done(self._library.rd_kafka_mock_broker_set_host_port(self._cluster, broker, host, port))

    def lead(self, topic: str, partition: int, broker: int) -> None:
        """Makes a broker the leader of a partition."""
        self._done(self._library.rd_kafka_mock_partition_set_leader(self._cluster, topic.encode(), partition, broker))

    def delay(self, broker: int, milliseconds: int) -> None:
        """Has a broker answer so much later."""
        self._done(self._library.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds))

    def fail(self, request: Request, *errors: int) -> None:
        """Has the next requests of the kind fail, with these errors of Kafka's."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(request), ctypes.c_size_t(len(errors)), codes
        )

    @contextmanager
    def down(self, broker: int) -> Iterator[None]:
        """A broker is away meanwhile."""
        self._done(self._library.rd_kafka_mock_broker_set_down(self._cluster, broker))
        try:
            yield
        finally:
            self._done(self._library.rd_kafka_mock_broker_set_up(self._cluster, broker))

    def _done(self, error: int) -> None:
        assert error == 0, f"librdkafka's error {error}"


@contextmanager
def mock_kafka(brokers: int) -> Iterator[MockKafka]:
    """A mock cluster of so many brokers."""
    library = ctypes.CDLL(cimpl.__file__)  # what it links is found through it
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    said = ctypes.create_string_buffer(_TEXT_BYTES)
    size, conf = ctypes.c_size_t(_TEXT_BYTES), ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(conf, b"log_level", b"0", said, size)
    handle = ctypes.c_void_p(library.rd_kafka_new(_PRODUCER, conf, said, size))
    assert handle.value, said.value
    cluster = library.rd_kafka_mock_cluster_new(handle, brokers)
    try:
        yield MockKafka(library, cluster)
    finally:
        library.rd_kafka_mock_cluster_destroy(ctypes.c_void_p(cluster))
        library.rd_kafka_destroy(handle)
