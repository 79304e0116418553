"""A link to a Kafka broker that speaks for it where a partition is to have no leader.

Frames are read and written with kafka-python's own classes of the protocol.
"""

import asyncio
import contextlib
import struct
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from kafka.errors import LeaderNotAvailableError, NotLeaderForPartitionError
from kafka.protocol.consumer import FetchResponse
from kafka.protocol.metadata import MetadataResponse
from kafka.protocol.producer import ProduceRequest, ProduceResponse

from infra.benchmarks.faults.link import Link, Streams

_NOBODY = -1  # leader, or offset
_Answered: Any = ProduceResponse.TopicProduceResponse
_RESPONSES = {0: ProduceResponse, 1: FetchResponse, 3: MetadataResponse}


class Partition(NamedTuple):
    """One of a topic, which newer requests name by its id."""

    topic: str
    topic_id: str
    number: int

    def of(self, topic: Any) -> bool:
        """Whether a part of a request or a response is of its topic."""
        name = getattr(topic, "name", None) or getattr(topic, "topic", None)
        return name == self.topic or str(topic.topic_id) == self.topic_id


class BrokerLink(Link):
    """Link to one broker, of whose partitions one may have no leader."""

    _leaderless: Partition | None = None

    @contextmanager
    def without_leader(self, partition: Partition) -> Iterator[None]:
        """Nothing is written to the partition or read from it meanwhile, and everybody is told why."""
        self._loop.call_soon_threadsafe(setattr, self, "_leaderless", partition)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(setattr, self, "_leaderless", None)

    def _ways(self, client: Streams, server: Streams) -> tuple[Coroutine[Any, Any, None], Coroutine[Any, Any, None]]:
        asked: dict[int, _Asked] = {}  # by the number of the request
        return self._requests(client, server[1], asked), self._responses(server[0], client[1], asked)

    async def _requests(self, client: Streams, to_server: asyncio.StreamWriter, asked: "dict[int, _Asked]") -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                frame = await _frame(client[0])
                key, version, number = struct.unpack_from(">hhi", frame, 4)
                asked[number] = _Asked(key, version, [])
                if self._leaderless is not None and key == ProduceRequest.API_KEY:
                    frame, refused = _parted(self._leaderless, frame, version)
                    asked[number] = _Asked(key, version, refused)
                    if not frame:
                        await self._pass(_refusal(asked.pop(number), number), client[1], late=True)
                        continue
                await self._pass(frame, to_server, late=False)

    async def _responses(
        self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter, asked: "dict[int, _Asked]"
    ) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                frame = await _frame(server)
                (number,) = struct.unpack_from(">i", frame, 4)
                of = asked.pop(number)
                if of.refused or (self._leaderless is not None and of.key in _RESPONSES):
                    frame = _amended(self._leaderless, frame, of)
                await self._pass(frame, to_client, late=True)


class _Asked(NamedTuple):
    """A request on its way."""

    key: int
    version: int
    refused: list[Any]  # what it is told of the parts that were kept from the broker


def _parted(leaderless: Partition, frame: bytes, version: int) -> tuple[bytes, list[Any]]:
    """What is left of a request to write, nothing perhaps, and the answers to what was taken out."""
    request = ProduceRequest.decode(frame, version=version, header=True, framed=True)
    refused = []
    for topic in filter(leaderless.of, request.topic_data):
        kept = [part for part in topic.partition_data if part.index != leaderless.number]
        if len(kept) < len(topic.partition_data):
            topic.partition_data = kept
            refused.append(_refused(topic, leaderless.number))
    if not refused:
        return frame, []
    request.topic_data = [topic for topic in request.topic_data if topic.partition_data]
    return request.encode(header=True, framed=True) if request.topic_data else b"", refused


def _refused(topic: Any, partition: int) -> Any:
    error = NotLeaderForPartitionError.errno
    answered = _Answered.PartitionProduceResponse(index=partition, error_code=error, base_offset=_NOBODY)
    return _Answered(name=topic.name, topic_id=topic.topic_id, partition_responses=[answered])


def _refusal(of: _Asked, number: int) -> bytes:
    """The answer to a request of which nothing is left."""
    response = ProduceResponse(version=of.version, responses=of.refused, throttle_time_ms=0)
    response.with_header(correlation_id=number)
    return bytes(response.encode(header=True, framed=True))


def _amended(leaderless: Partition | None, frame: bytes, of: _Asked) -> bytes:
    """What the broker says, and what it would say of a partition without a leader."""
    response = _RESPONSES[of.key].decode(frame, version=of.version, header=True, framed=True)
    if isinstance(response, ProduceResponse):
        response.responses += of.refused
    elif leaderless is not None:
        topics = response.topics if isinstance(response, MetadataResponse) else response.responses
        for part in (part for topic in filter(leaderless.of, topics) for part in topic.partitions):
            if part.partition_index != leaderless.number:
                continue
            if isinstance(response, MetadataResponse):
                part.error_code, part.leader_id = LeaderNotAvailableError.errno, _NOBODY
            else:
                part.error_code, part.records = NotLeaderForPartitionError.errno, None
    return bytes(response.encode(header=True, framed=True))


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    return head + await reader.readexactly(int.from_bytes(head, "big"))
