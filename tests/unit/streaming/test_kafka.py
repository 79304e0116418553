"""What needs no broker: which partition a key belongs to, and topics without ids."""

from typing import Any

import pytest

from feature_store.contracts.errors import LogMismatch
from streaming.kafka import Log, partition_of
from streaming.settings import KafkaSettings


@pytest.mark.parametrize(
    ("key", "hashed"), [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)]
)
def test_a_key_belongs_to_the_partition_that_kafka_itself_chooses(key: str, hashed: int) -> None:
    """The hashes are those of Kafka's own test of its murmur2 (UtilsTest)."""
    for partitions in (1, 2, 7, 256):
        assert partition_of(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


@pytest.mark.parametrize("nil", ["00000000-0000-0000-0000-000000000000", None, ""])
def test_a_cluster_whose_topics_have_no_ids_is_refused(nil: str | None) -> None:
    class OfOldTopics(Log):
        def _describe(self, topic: str | None) -> Any:
            return {"name": topic, "topic_id": nil, "partitions": [0, 1]}

    with pytest.raises(LogMismatch, match="gives its topics no ids"):
        OfOldTopics(KafkaSettings(), "kafka:9092").log_id()
