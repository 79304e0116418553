"""The law, made executable: state == base + fold of the log from the namespace's offsets.

The log is read from the lake as far as the lake goes, and from the broker from there on.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feature_store.bandit_state import BanditStore, Position
from feature_store.contracts.errors import InvalidInput, Unavailable
from feature_store.contracts.events import Event
from feature_store.namespace import Namespace, Start
from feature_store.sums import ITEM, Float64, Rows, Sums
from streaming.admission import events_of
from streaming.fold import Fold
from streaming.kafka import Reader
from streaming.settings import RewardSettings
from streaming.sink import coverage, read_events

_SILENCE_POLLS = 50
_POLL_MS = 200


class Comparison(NamedTuple):
    """How a stored partition compares with its replay."""

    partition: int
    position: Position
    rows: int
    largest_difference: float  # relative to the sum of absolute contributions; 0 if the states are equal bit by bit
    differing: list[str]  # rows that differ by more than the tolerance, worst first

    @property
    def equal(self) -> bool:
        """Whether the law holds."""
        return not self.differing


def replay(
    namespace: Namespace, lake: Path, rewards: RewardSettings, ends: Sequence[Sequence[Position]]
) -> tuple[Rows, list[Start]]:
    """State of a namespace from the lake alone: base + fold, and per partition what a fold that goes on from there
    begins with. ends: per partition, as for events_from."""
    folds = [
        replay_partition(namespace, partition, lake, rewards, stops, None, "") for partition, stops in enumerate(ends)
    ]
    state = Sums.of(namespace.base, *(fold.sums.rows() for fold in folds))
    return state.rows(), [fold.start() for fold in folds]


def replay_partition(
    namespace: Namespace,
    partition: int,
    lake: Path,
    rewards: RewardSettings,
    ends: Sequence[Position],
    bootstrap: str | None,
    topic: str,
) -> Fold:
    """The fold of one partition from the namespace's offsets on, base not included.

    Raises Unavailable as events_from does.
    """
    fold = Fold(namespace, rewards, namespace.starts[partition], audit=True)
    fold.apply(events_from(namespace, partition, lake, ends, bootstrap, topic))
    return fold


def events_from(
    namespace: Namespace,
    partition: int,
    lake: Path,
    ends: Sequence[Position],
    bootstrap: str | None = None,
    topic: str = "",
) -> Iterator[Event]:
    """The events of one partition from the namespace's offsets on.

    ends: up to where (exclusive), log after log if the log began anew; the first is the namespace's log, the last the
    one that the broker has now. bootstrap, topic: where to read of the last what the lake does not hold yet; None: only
    the lake. Raises Unavailable if events are in neither.
    """
    start = namespace.offsets[partition]
    for end in ends:
        broker = bootstrap if end is ends[-1] else None
        yield from _events(lake, Position(end.log, start), partition, end.offset, broker, topic)
        start = 0


def lake_ends(namespace: Namespace, partition: int, store: BanditStore, lake: Path, log: str) -> list[Position]:
    """How far the lake goes in each log that the namespace folds in turn, the last being the one that the broker has
    now."""
    position, earlier = store.progress(namespace.id, partition)
    logs = [*(Position.parse(end).log for end in earlier), position.log if position else namespace.log]
    if logs[-1] != log:  # it began anew, and no updater has noticed yet
        logs.append(log)
    ends = [Position(log, coverage(lake, log, partition)) for log in logs]
    # The lake may be behind what the base holds: then there is nothing to replay yet.
    ends[0] = Position(ends[0].log, max(ends[0].offset, namespace.offsets[partition]))
    return ends


def compare(
    namespace: Namespace,
    store: BanditStore,
    lake: Path,
    rewards: RewardSettings,
    bootstrap: str | None,
    topic: str,
    tolerance: float = 1e-9,
) -> list[Comparison]:
    """Holds every stored partition of a namespace against its replay, row by row."""
    comparisons = []
    for partition in range(len(namespace.offsets)):
        stored = store.load(namespace.id, partition)
        if stored.position is None:
            continue
        ends = [*map(Position.parse, stored.logs), stored.position]
        fold = replay_partition(namespace, partition, lake, rewards, ends, bootstrap, topic)
        keys, gaps = gaps_between(Sums.of(stored.rows), fold.sums, fold.absolute)
        comparisons.append(
            Comparison(
                partition,
                stored.position,
                len(keys.item),
                float(gaps.max(initial=0.0)),
                [_name(keys, i) for i in np.argsort(-gaps) if gaps[i] > tolerance],
            )
        )
    return comparisons


def gaps_between(found: Sums, expected: Sums, scale: Sums) -> tuple[Rows, Float64]:
    """Every row of either, and how far they are apart there, (n,), relative to the row's scale: the sums of absolute
    contributions, say."""
    keys = Sums.of(found.rows(), expected.rows()).rows()
    gaps = np.abs(found.select(keys) - expected.select(keys)).max(axis=1, initial=0.0)
    return keys, gaps / (np.abs(scale.select(keys)).sum(axis=1) + 1e-300)


def _name(rows: Rows, i: int) -> str:
    item, cluster = rows.items[rows.item[i]], rows.cluster[i]
    return item if cluster == ITEM else f"{item} in cluster {cluster}"


def _events(
    lake: Path, start: Position, partition: int, end: int, bootstrap: str | None, topic: str
) -> Iterator[Event]:
    covered = coverage(lake, start.log, partition)
    for offset, event in read_events(lake, start.log, partition, start.offset):
        if offset >= end:
            return
        yield event
    at = max(start.offset, covered)
    if at >= end:
        return
    if bootstrap is None:
        raise Unavailable(
            f"The lake holds partition {partition} of log {start.log} up to offset {covered}, the state was folded up "
            f"to {end}. If that log is gone (a broker that keeps it in memory was killed), the rest cannot be "
            "replayed: retrain, and the next namespace begins with what the lake holds."
        )
    yield from _tail(bootstrap, topic, partition, at, end)


def _tail(bootstrap: str, topic: str, partition: int, at: int, end: int) -> Iterator[Event]:
    reader = Reader(bootstrap, topic, {partition: at})
    try:
        silent = 0
        while at < end:
            records = reader.poll(_POLL_MS)
            silent = 0 if records else silent + 1
            if silent > _SILENCE_POLLS:
                raise Unavailable(
                    f"Partition {partition} ends before offset {end}: the broker has lost part of its log."
                )
            for record in records:
                at = record.offset + 1
                if record.offset < end:
                    try:
                        yield from events_of(record)
                    except InvalidInput:
                        continue  # a dead letter: it changed nothing
    finally:
        reader.close()
