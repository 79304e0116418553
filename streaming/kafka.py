"""The log on kafka-python: topics, a reader, and the writer of streaming/writer.py.

Coded to the protocol; what the embedded broker does differently from Apache Kafka is worked around here and nowhere
else: it cannot tell the end of a partition reliably (so ends come from what was fetched, never from ListOffsets), and
it evicts silent members of a consumer group late or never (so partitions are assigned by hand, positions live with the
state, and who works on what is kept in Redis: feature_store/membership.py).
"""

import contextlib
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError, TopicAlreadyExistsError
from kafka.partitioner.default import murmur2

from feature_store.contracts.errors import LogMismatch, Unavailable
from streaming.kafka_client import connected, resolved
from streaming.settings import KafkaSettings
from streaming.topics import check_topic, create_command, partitions_wanted, topic_configs
from streaming.writer import Appended, Writer

__all__ = ["Appended", "Log", "PartitionsLost", "Reader", "Record", "Writer", "partition_of"]

_log = logging.getLogger(__name__)

_REQUEST_TIMEOUT_MS = 10_000
_FETCH_WAIT_MS = 50
_BACKLOG_POLL_MS = 100
_BACKLOG_POLLS = 50


class Record(NamedTuple):
    """One record as read."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes
    timestamp: int  # ms since the epoch


class PartitionsLost(Unavailable):
    """Partitions that do not hold the offset to read from: the log was shortened, or began anew."""

    def __init__(self, offsets: Mapping[int, int], error: Exception) -> None:
        places = ", ".join(f"offset {offset} of partition {partition}" for partition, offset in sorted(offsets.items()))
        super().__init__(
            f"The log does not hold {places} ({type(error).__name__}). Was it truncated, or is its retention shorter "
            "than this was behind?"
        )
        self.partitions = sorted(offsets)


def partition_of(key: str, partitions: int) -> int:
    """The partition of a record with the key, as Kafka's own partitioner chooses it."""
    return int(murmur2(key.encode()) & 0x7FFFFFFF) % partitions


class Log:
    """The topics of one cluster. bootstrap: host:port of its servers, with commas between. Raises InvalidInput if a
    file that kafka.properties names cannot be read."""

    def __init__(self, settings: KafkaSettings, bootstrap: str) -> None:
        self.settings = settings
        self.bootstrap = bootstrap
        self._client_properties = resolved(settings.properties)

    def writer(self, topics: Sequence[str] = ()) -> Writer:
        """Appends to it. topics, and what it raises: as Writer has it."""
        return Writer(self.bootstrap, topics, self._client_properties)

    def reader(self, topic: str, offsets: Mapping[int, int], wait_ms: int = _FETCH_WAIT_MS) -> "Reader":
        """Reads it. The arguments are Reader's."""
        return Reader(self.bootstrap, topic, offsets, wait_ms, self._client_properties)

    def create_topics(self) -> None:
        """Makes the topics that are missing, and logs what is amiss with those that are there. Raises Unavailable if
        the cluster does not answer, LogMismatch if one is missing and may not be made, would lose events, or has
        another number of partitions than the settings say."""
        with self._admin() as admin:
            missing = self._missing(admin)
            if missing and not self.settings.create_topics:
                raise LogMismatch(self.to_create(missing, "kafka.create_topics is false"))
            try:
                if missing:
                    admin.create_topics([self._new(topic) for topic in missing])
            except TopicAlreadyExistsError:
                pass  # somebody else was quicker
            except KafkaError as error:
                raise LogMismatch(self.to_create(missing, f"it does not let this client make them: {error}")) from None
        for warning in self.problems():
            _log.warning("%s", warning)
        if self.partitions() != self.settings.partitions:
            raise LogMismatch(
                f"Topic {self.settings.topics.events!r} has {self.partitions()} partitions, kafka.partitions says "
                f"{self.settings.partitions}. Set kafka.partitions to what the topic has, and retrain if that is new."
            )

    def missing(self) -> list[str]:
        """The topics that are not there, or that this client may not see. Raises Unavailable if the cluster does not
        answer."""
        with self._admin() as admin:
            return self._missing(admin)

    def to_create(self, missing: Sequence[str], why: str) -> str:
        """What to do about topics that are missing, and why they are not made here."""
        commands = [create_command(self.settings, self.bootstrap, topic) for topic in missing]
        names = ", ".join(map(repr, missing))
        return "\n".join(
            [f"Kafka at {self.bootstrap} has no topic {names}, and {why}. Create what is missing:", *commands]
        )

    def rights(self) -> dict[str, list[str]]:
        """By topic what this client may do there, in Kafka's words (READ, WRITE); nothing where the cluster does not
        tell."""
        with self._admin() as admin:
            try:
                described = admin.describe_topics(list(self.settings.topics))
            except KafkaError:
                return {}
        return {found["name"]: found.get("authorized_operations") or [] for found in described}

    def problems(self) -> list[str]:
        """What is amiss with the topics, as far as the cluster tells. Raises LogMismatch if one would lose events."""
        names = list(self.settings.topics)
        with self._admin() as admin:
            resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
            try:
                configs = admin.describe_configs(resources, config_filter="all").get("topic", {})
                brokers = len(admin.describe_cluster()["brokers"])
                described = {found["name"]: found for found in admin.describe_topics(names)}
            except (KafkaError, LookupError, TypeError) as error:
                return [f"Kafka does not tell how its topics are configured ({error})."]
        said = []
        for name in names:
            found = {key: str(entry["value"]) for key, entry in configs.get(name, {}).items()}
            partitions = described.get(name, {}).get("partitions") or [{}]
            replicas = len(partitions[0].get("replica_nodes", partitions[0].get("replicas", [])))
            said += check_topic(self.settings, name, found, replicas, brokers)
        return said

    def log_id(self, topic: str | None = None) -> str:
        """Identifies a log: the id Kafka gave the topic when it was created (KIP-516). A topic that was deleted and
        made anew, or that a memory-only broker lost, comes back with another id. Raises LogMismatch if the cluster
        gives its topics no ids: then one log could not be told from the next."""
        found = self._describe(topic)
        if not found.get("topic_id") or uuid.UUID(str(found["topic_id"])).int == 0:
            raise LogMismatch(
                f"Kafka at {self.bootstrap} gives its topics no ids: positions in a log that was made anew would be "
                "taken for positions in the one before. Use a cluster whose topics have ids, as Apache Kafka's have "
                "from 2.8 on."
            )
        return str(found["topic_id"])

    def partitions(self, topic: str | None = None) -> int:
        """Partitions of a topic, the events topic unless another is named."""
        return len(self._describe(topic)["partitions"])

    def append_everywhere(self, value: bytes) -> list[int]:
        """Appends a record to every partition of the events topic. Returns, by partition, the offset behind it. Raises
        Unavailable if a partition does not take it."""
        writer = self.writer()
        try:
            topic = self.settings.topics.events
            sent = [writer.send(topic, None, value, partition) for partition in range(self.partitions())]
            return [place.result().offset + 1 for place in sent]
        finally:
            writer.close()

    def _new(self, topic: str) -> NewTopic:
        count, configs = partitions_wanted(self.settings, topic), topic_configs(self.settings, topic)
        return NewTopic(topic, count, self.settings.replication, topic_configs=configs)

    def _missing(self, admin: Any) -> list[str]:
        try:
            present = admin.list_topics()
        except KafkaError as error:
            raise Unavailable(f"Kafka does not say which topics it has: {error}.") from None
        return [topic for topic in self.settings.topics if topic not in present]

    def _describe(self, topic: str | None) -> Any:
        name = topic or self.settings.topics.events
        with self._admin() as admin:
            found = admin.describe_topics([name])
        if not found or found[0]["error_code"]:
            raise LogMismatch(f"There is no topic {name!r} at {self.bootstrap}. Start the stack once, or create it.")
        return found[0]

    @contextlib.contextmanager
    def _admin(self) -> Iterator[Any]:
        client = connected(
            KafkaAdminClient, self.bootstrap, self._client_properties, request_timeout_ms=_REQUEST_TIMEOUT_MS
        )
        with contextlib.closing(client):
            yield client


class Reader:
    """Reads assigned partitions of one topic from given offsets."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        offsets: Mapping[int, int],
        wait_ms: int = _FETCH_WAIT_MS,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """offsets: by partition, the first offset to read. wait_ms: how long the broker holds a fetch that finds
        nothing: longer is cheaper, and later to notice a partition that the fetch did not cover. properties: resolved
        ones of the connection."""
        self._consumer = connected(
            KafkaConsumer,
            bootstrap,
            properties or {},
            group_id=None,
            enable_auto_commit=False,
            metrics_enabled=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=wait_ms,
            max_partition_fetch_bytes=16 << 20,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
        )
        self._topic = topic
        self.assign(offsets)

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Reads these partitions from these offsets from now on, and no others."""
        self._consumer.assign([TopicPartition(self._topic, partition) for partition in offsets])
        for partition, offset in offsets.items():
            self.seek(partition, offset)

    def poll(self, timeout_ms: int, max_records: int = 1000) -> list[Record]:
        """What has come, in order per partition; waits up to the timeout if there is nothing. Raises Unavailable if the
        log cannot be read, PartitionsLost if that is so of some partitions only."""
        try:
            polled = self._consumer.poll(timeout_ms=timeout_ms, max_records=max_records)
        except OffsetOutOfRangeError as error:
            lost = {place.partition: offset for place, offset in error.args[0].items()}
            raise PartitionsLost(lost, error) from None
        except LogTruncationError as error:
            lost = {place.partition: self._consumer.position(place) for place in error.divergent_offsets}
            raise PartitionsLost(lost, error) from None
        except KafkaError as error:
            raise Unavailable(f"The log cannot be read: {error}.") from None
        return [
            Record(r.partition, r.offset, r.key, r.value or b"", r.timestamp)
            for records in polled.values()
            for r in records
        ]

    def backlog(self) -> Iterator[Record]:
        """All that the partitions hold as of now, in order per partition, from their first record on. Raises
        Unavailable if the end does not come."""
        places = self._consumer.assignment()
        self._consumer.seek_to_beginning(*places)
        ends: dict[TopicPartition, int] = {}
        silent = 0
        while len(ends) < len(places) or any(self._consumer.position(place) < ends[place] for place in places):
            records = self.poll(_BACKLOG_POLL_MS)
            yield from records
            silent = 0 if records else silent + 1
            if silent > _BACKLOG_POLLS:
                raise Unavailable(f"Topic {self._topic!r} was not read to its end. Does the broker work? Try again.")
            for place in places - ends.keys():
                if (end := self._consumer.highwater(place)) is not None:
                    ends[place] = end

    def seek(self, partition: int, offset: int) -> None:
        """Reads the partition from the offset on."""
        self._consumer.seek(TopicPartition(self._topic, partition), offset)

    def begin(self, partition: int) -> int:
        """The first offset that the log still holds. Raises Unavailable if the cluster does not say."""
        place = TopicPartition(self._topic, partition)
        try:
            return int(self._consumer.beginning_offsets([place])[place])
        except KafkaError as error:
            raise Unavailable(f"Kafka does not say where partition {partition} begins: {error}.") from None

    def lag(self, partition: int) -> int:
        """Records not read yet, as of the last fetch; 0 before the first."""
        place = TopicPartition(self._topic, partition)
        end = self._consumer.highwater(place)
        return 0 if end is None else max(0, end - self._consumer.position(place))

    def close(self) -> None:
        """Disconnects."""
        self._consumer.close(autocommit=False)
