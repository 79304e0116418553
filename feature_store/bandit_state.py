"""The bandit's state in Redis: rows of sums, open decisions, and the log position they belong to.

Keys share one hash slot per partition, so that a commit is one transaction on Redis Cluster too:

    <prefix>:{<partition>}:<namespace>:meta    hash: position (log, next offset to fold), earlier logs, stream time,
                                               learning
    <prefix>:{<partition>}:<namespace>:rows    hash: item id -> all rows of the item, packed
    <prefix>:{<partition>}:<namespace>:open    hash: decision id -> its open state, opaque here
    <prefix>:{<partition>}:<namespace>:deltas  stream: by how much rows changed, capped

A commit first compares the stored position with what the writer believes: a writer that was paused or replaced fails,
and nothing of its batch is written.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np
import redis
from redis.exceptions import WatchError

from feature_store.contracts.errors import Fenced
from feature_store.packed_rows import pack, unpack
from feature_store.settings import RedisSettings
from feature_store.sums import COLUMNS, Rows

_names_encoder = msgspec.msgpack.Encoder()
_names_decoder = msgspec.msgpack.Decoder(list[str])


class Position(NamedTuple):
    """A place in one partition of one log: the next offset to fold."""

    log: str
    offset: int

    def __str__(self) -> str:
        return f"{self.log}@{self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Reads what str() wrote."""
        log, _, offset = text.rpartition("@")
        return cls(log, int(offset))


class Delta(NamedTuple):
    """One commit as readers see it: by how much rows of the partition changed between two positions."""

    previous: Position | None  # where the partition stood before: deltas form a chain
    position: Position
    changes: Rows


class Commit(NamedTuple):
    """What a batch changed."""

    position: Position
    logs: list[str]  # "log@end" of each log folded before the position's, oldest first
    stream_time: int
    learning: bool
    changes: Rows  # what the batch added
    rows: Rows  # all rows of the items it added to, item after item, clusters ascending within an item
    opened: dict[str, bytes]  # open decisions, new or changed
    closed: list[str]


class PartitionState(NamedTuple):
    """Everything stored of one partition of a namespace."""

    position: Position | None  # None: nothing was committed yet
    logs: list[str]
    stream_time: int
    learning: bool
    rows: Rows
    open: dict[str, bytes]


class Trimmed(Exception):
    """The deltas do not continue from where the reader stands: it must reload."""


class BanditStore:
    """Reads and writes the state. One writer per namespace and partition commits; anybody reads."""

    def __init__(self, client: redis.Redis, settings: RedisSettings) -> None:
        self._redis = client
        self._settings = settings

    def load(self, namespace: str, partition: int) -> PartitionState:
        """Everything the writer needs to go on, read in one transaction."""
        key = self._key(namespace, partition)
        pipe = self._redis.pipeline(transaction=True)
        pipe.hgetall(key("meta"))
        pipe.hgetall(key("rows"))
        pipe.hgetall(key("open"))
        meta, rows, opened = pipe.execute()
        position = _position(meta)
        return PartitionState(
            position=position,
            logs=_names_decoder.decode(meta[b"logs"]) if meta else [],
            stream_time=int(meta.get(b"time", 0)),
            learning=meta.get(b"learning", b"1") == b"1",
            rows=unpack(rows),
            open={name.decode(): state for name, state in opened.items()},
        )

    def load_rows(self, namespace: str, partition: int) -> tuple[Position | None, Rows, str]:
        """Position, rows, and the id of the last delta they include: where to follow from. One transaction."""
        key = self._key(namespace, partition)
        pipe = self._redis.pipeline(transaction=True)
        pipe.hgetall(key("meta"))
        pipe.hgetall(key("rows"))
        pipe.xrevrange(key("deltas"), count=1)
        meta, rows, last = pipe.execute()
        return _position(meta), unpack(rows), last[0][0].decode() if last else "0-0"

    def position(self, namespace: str, partition: int) -> Position | None:
        """Where a partition stands, None before its first commit."""
        return self.progress(namespace, partition)[0]

    def progress(self, namespace: str, partition: int) -> tuple[Position | None, list[str]]:
        """Where a partition stands, None before its first commit, and "log@end" of each log folded before that one."""
        position, logs = self._redis.hmget(self._key(namespace, partition)("meta"), "position", "logs")
        return (Position.parse(position.decode()), _names_decoder.decode(logs)) if position else (None, [])

    def commit(self, namespace: str, partition: int, expected: Position | None, commit: Commit) -> None:
        """Writes a batch if the stored position is still the expected one.

        Raises Fenced, with nothing written, if another writer has moved it.
        """
        key = self._key(namespace, partition)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.watch(key("meta"))
            stored = _position(pipe.hgetall(key("meta")))  # immediate while watching
            if stored != expected:
                raise Fenced(
                    f"Partition {partition} of {namespace} stands at {stored}, this writer expected {expected}."
                )
            pipe.multi()
            if commit.rows.items:
                pipe.hset(key("rows"), mapping=pack(commit.rows))
            pipe.xadd(  # also without changes: readers see how far the log is folded
                key("deltas"),
                _fields(expected, commit.position, commit.changes),
                maxlen=self._settings.deltas_kept,
                approximate=True,
            )
            if commit.opened:
                pipe.hset(key("open"), mapping=commit.opened)
            if commit.closed:
                pipe.hdel(key("open"), *commit.closed)
            pipe.hset(
                key("meta"),
                mapping={
                    "position": str(commit.position),
                    "logs": _names_encoder.encode(commit.logs),
                    "time": commit.stream_time,
                    "learning": int(commit.learning),
                },
            )
            try:
                pipe.execute()
            except WatchError:
                raise Fenced(
                    f"Partition {partition} of {namespace} was committed by another writer just now."
                ) from None

    def follow(
        self, namespace: str, partition: int, stream_id: str, position: Position | None, block_ms: int
    ) -> list[tuple[str, Delta]]:
        """Deltas after the stream id, waiting up to block_ms for the first one.

        `position` is where the reader stands. Raises Trimmed if the deltas do not continue from there (some were
        dropped, or the server went back to an older state): reload then.
        """
        key = self._key(namespace, partition)("deltas")
        answer = self._redis.xread({key: stream_id}, count=100, block=block_ms)
        deltas = [(name.decode(), _delta(fields)) for _, entries in answer or [] for name, fields in entries]
        for _, delta in deltas:
            if delta.previous != position:
                raise Trimmed
            position = delta.position
        return deltas

    def drop(self, namespace: str, partition: int) -> None:
        """Removes everything stored of a partition of a namespace."""
        key = self._key(namespace, partition)
        self._redis.delete(key("meta"), key("rows"), key("open"), key("deltas"))

    def _key(self, namespace: str, partition: int) -> Callable[[str], str]:
        return partial("{}:{{{}}}:{}:{}".format, self._settings.prefix, partition, namespace)


def _position(meta: dict[bytes, bytes]) -> Position | None:
    return Position.parse(meta[b"position"].decode()) if meta else None


def _fields(previous: Position | None, position: Position, changes: Rows) -> dict[str, str | bytes]:
    return {
        "previous": str(previous) if previous else "",
        "position": str(position),
        "items": _names_encoder.encode(changes.items),
        "item": changes.item.tobytes(),
        "cluster": changes.cluster.tobytes(),
        "values": changes.values.tobytes(),
    }


def _delta(fields: dict[bytes, bytes]) -> Delta:
    previous = fields[b"previous"].decode()
    changes = Rows(
        _names_decoder.decode(fields[b"items"]),
        np.frombuffer(fields[b"item"], np.int32),
        np.frombuffer(fields[b"cluster"], np.int32),
        np.frombuffer(fields[b"values"]).reshape(-1, COLUMNS),
    )
    return Delta(Position.parse(previous) if previous else None, Position.parse(fields[b"position"].decode()), changes)
