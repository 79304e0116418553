"""The bandit's state in Redis: rows of sums, open decisions, and the log position they belong to.

Rows are kept as a log is: a snapshot, and behind it what each commit changed. So a commit writes what it changed once,
however many rows there are, and a snapshot is rewritten only when the changes have outgrown it.

A partition's keys:

    <prefix>:{<partition>}:<namespace>:meta      hash: position (log, next offset to fold), position of the snapshot,
                                                 earlier logs, stream time, learning
    <prefix>:{<partition>}:<namespace>:snapshot  list: all rows as of an earlier position, in pieces
    <prefix>:{<partition>}:<namespace>:deltas    stream: by how much rows changed, since the snapshot and longer
    <prefix>:{<partition>}:<namespace>:open      hash: decision id -> its open state, opaque here

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

from feature_store.contracts.errors import Fenced, Unavailable
from feature_store.settings import RedisSettings
from feature_store.sums import COLUMNS, Rows

_Fields = dict[bytes, bytes]

_PIECE = 1 << 26  # bytes; Redis takes no value beyond 512 MB
_SMALL = 1 << 16  # rows of changes that are no reason to write a snapshot

_names_encoder = msgspec.msgpack.Encoder()
_names_decoder = msgspec.msgpack.Decoder(list[str])
_rows_encoder = msgspec.msgpack.Encoder()
_rows_decoder = msgspec.msgpack.Decoder(tuple[list[str], bytes, bytes, bytes])


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


class Tail(NamedTuple):
    """What lies behind the snapshot."""

    deltas: int = 0
    rows: int = 0


class RowsSnapshot(NamedTuple):
    """All rows as of a commit, to be written with it."""

    rows: Rows
    deltas: int  # since the snapshot before, this commit's among them


class Commit(NamedTuple):
    """What a batch changed."""

    position: Position
    logs: list[str]  # "log@end" of each log folded before the position's, oldest first
    stream_time: int
    learning: bool
    changes: Rows  # what the batch added
    opened: dict[str, bytes]  # open decisions, new or changed
    closed: list[str]
    snapshot: RowsSnapshot | None = None


class PartitionState(NamedTuple):
    """Everything stored of one partition of a namespace."""

    position: Position | None  # None: nothing was committed yet
    logs: list[str]
    stream_time: int
    learning: bool
    rows: Rows  # to be added up: some come several times
    open: dict[str, bytes]
    tail: Tail = Tail()


class DeltaGap(Exception):
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
        pipe.lrange(key("snapshot"), 0, -1)
        pipe.xrange(key("deltas"))
        pipe.hgetall(key("open"))
        meta, pieces, deltas, opened = pipe.execute()
        rows, tail = self._rows(namespace, partition, meta, pieces, deltas)
        return PartitionState(
            position=_position(meta),
            logs=_names_decoder.decode(meta[b"logs"]) if meta else [],
            stream_time=int(meta.get(b"time", 0)),
            learning=meta.get(b"learning", b"1") == b"1",
            rows=rows,
            tail=tail,
            open={name.decode(): state for name, state in opened.items()},
        )

    def load_rows(self, namespace: str, partition: int) -> tuple[Position | None, Rows, str]:
        """Position, rows to be added up (some come several times), and the id of the last delta they include: where to
        follow from. One transaction."""
        key = self._key(namespace, partition)
        pipe = self._redis.pipeline(transaction=True)
        pipe.hgetall(key("meta"))
        pipe.lrange(key("snapshot"), 0, -1)
        pipe.xrange(key("deltas"))
        meta, pieces, deltas = pipe.execute()
        rows, _ = self._rows(namespace, partition, meta, pieces, deltas)
        return _position(meta), rows, deltas[-1][0].decode() if deltas else "0-0"

    def wants_snapshot(self, tail: Tail, rows: int) -> bool:
        """Whether a commit that leads to this tail should write a snapshot of that many rows."""
        return tail.deltas >= self._settings.deltas_kept or tail.rows > max(rows, _SMALL)

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
            # Also without changes: readers see how far the log is folded.
            pipe.xadd(key("deltas"), _fields(expected, commit.position, commit.changes))
            if commit.snapshot is not None:
                pipe.delete(key("snapshot"))
                packed = _pack(commit.snapshot.rows)
                pipe.rpush(key("snapshot"), *(packed[i : i + _PIECE] for i in range(0, len(packed), _PIECE)))
                pipe.hset(key("meta"), "snapshot", str(commit.position))
                pipe.xtrim(key("deltas"), maxlen=commit.snapshot.deltas, approximate=False)  # for who is behind
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

        `position` is where the reader stands. Raises DeltaGap if the deltas do not continue from there (some were
        dropped, or the server went back to an older state): reload then.
        """
        key = self._key(namespace, partition)("deltas")
        answer = self._redis.xread({key: stream_id}, count=100, block=block_ms)
        deltas = [(name.decode(), _delta(fields)) for _, entries in answer or [] for name, fields in entries]
        for _, delta in deltas:
            if delta.previous != position:
                raise DeltaGap
            position = delta.position
        return deltas

    def opened(self, namespace: str, partition: int) -> dict[str, bytes]:
        """The open decisions, by id."""
        stored = self._redis.hgetall(self._key(namespace, partition)("open"))
        return {name.decode(): state for name, state in stored.items()}

    def size(self, namespace: str, partition: int) -> int:
        """Bytes that a partition of a namespace takes in the server's memory, as it estimates them."""
        pipe = self._redis.pipeline(transaction=False)
        for key in self._keys(namespace, partition):
            pipe.memory_usage(key)
        return sum(size or 0 for size in pipe.execute())

    def drop(self, namespace: str, partition: int) -> None:
        """Removes everything stored of a partition of a namespace."""
        self._redis.unlink(*self._keys(namespace, partition))

    def _keys(self, namespace: str, partition: int) -> list[str]:
        return [*map(self._key(namespace, partition), ("meta", "snapshot", "open", "deltas"))]

    def _rows(
        self, namespace: str, partition: int, meta: _Fields, pieces: list[bytes], deltas: list[tuple[bytes, _Fields]]
    ) -> tuple[Rows, Tail]:
        """The snapshot and what follows it."""
        at, end = meta.get(b"snapshot", b""), meta.get(b"position", b"")
        parts = [_unpack(b"".join(pieces))] if pieces else []
        tail = Tail()
        for _, fields in deltas:
            if fields[b"previous"] == at:
                at = fields[b"position"]
                parts.append(_unpack(fields[b"changes"]))
                tail = Tail(tail.deltas + 1, tail.rows + len(parts[-1].item))
        if at != end:
            raise Unavailable(
                f"The state of partition {partition} of {namespace} has a gap in Redis: its changes lead to "
                f"{at.decode() or 'nothing'}, it was at {end.decode()}. Was something evicted or deleted there? "
                "With its keys deleted, an updater folds the partition anew from the log."
            )
        return Rows.chain(parts), tail

    def _key(self, namespace: str, partition: int) -> Callable[[str], str]:
        return partial("{}:{{{}}}:{}:{}".format, self._settings.prefix, partition, namespace)


def _position(meta: _Fields) -> Position | None:
    return Position.parse(meta[b"position"].decode()) if meta else None


def _fields(previous: Position | None, position: Position, changes: Rows) -> dict[str, str | bytes]:
    return {"previous": str(previous or ""), "position": str(position), "changes": _pack(changes)}


def _delta(fields: _Fields) -> Delta:
    previous = fields[b"previous"].decode()
    position = Position.parse(fields[b"position"].decode())
    return Delta(Position.parse(previous) if previous else None, position, _unpack(fields[b"changes"]))


def _pack(rows: Rows) -> bytes:
    """MessagePack of the columns: items, then item, cluster and values as they lie in memory, little endian."""
    return _rows_encoder.encode((rows.items, rows.item.tobytes(), rows.cluster.tobytes(), rows.values.tobytes()))


def _unpack(packed: bytes) -> Rows:
    items, item, cluster, values = _rows_decoder.decode(packed)
    columns = np.frombuffer(item, np.int32).copy(), np.frombuffer(cluster, np.int32).copy()
    return Rows(items, *columns, np.frombuffer(values).reshape(-1, COLUMNS).copy())
