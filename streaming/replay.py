"""The law, made executable: state == base + fold of the log from the namespace's offsets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from feature_store.arrays import Float64
from feature_store.bandit_state import BanditStore, Position
from feature_store.lake_path import LakePath
from feature_store.namespace import Namespace, Start
from feature_store.sums import ITEM, Rows, Sums
from streaming.fold import Fold
from streaming.lake_events import coverage
from streaming.log_reader import LogReader
from streaming.settings import RewardSettings


class ReplayCheck(NamedTuple):
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
    namespace: Namespace, reader: LogReader, rewards: RewardSettings, ends: Sequence[Sequence[Position]]
) -> tuple[Rows, list[Start]]:
    """State of a namespace: base + fold, and per partition what a fold that goes on from there begins with. ends: per
    partition, as for LogReader.events."""
    folds = [replay_partition(namespace, partition, reader, rewards, stops) for partition, stops in enumerate(ends)]
    state = Sums.of(namespace.base, *(fold.sums.rows() for fold in folds))
    return state.rows(), [fold.start() for fold in folds]


def replay_partition(
    namespace: Namespace, partition: int, reader: LogReader, rewards: RewardSettings, ends: Sequence[Position]
) -> Fold:
    """The fold of one partition from the namespace's offsets on, base not included.

    Raises Unavailable as LogReader.events does.
    """
    fold = Fold(namespace, rewards, namespace.starts[partition], audit=True)
    fold.apply(reader.events(partition, namespace.offsets[partition], ends))
    return fold


def lake_ends(namespace: Namespace, partition: int, state: BanditStore, lake: LakePath, log: str) -> list[Position]:
    """How far the lake goes in each log that the namespace folds in turn, the last being the one that the broker has
    now."""
    position, earlier = state.progress(namespace.id, partition)
    logs = [*(Position.parse(end).log for end in earlier), position.log if position else namespace.log]
    if logs[-1] != log:  # it began anew, and no updater has noticed yet
        logs.append(log)
    ends = [Position(log, coverage(lake, log, partition)) for log in logs]
    # The lake may be behind what the base holds: then there is nothing to replay yet.
    ends[0] = Position(ends[0].log, max(ends[0].offset, namespace.offsets[partition]))
    return ends


def compare(
    namespace: Namespace, state: BanditStore, reader: LogReader, rewards: RewardSettings, tolerance: float = 1e-9
) -> list[ReplayCheck]:
    """Holds every stored partition of a namespace against its replay, row by row."""
    checks = []
    for partition in range(len(namespace.offsets)):
        stored = state.load(namespace.id, partition)
        if stored.position is None:
            continue
        ends = [*map(Position.parse, stored.logs), stored.position]
        fold = replay_partition(namespace, partition, reader, rewards, ends)
        keys, gaps = gaps_between(Sums.of(stored.rows), fold.sums, fold.absolute)
        checks.append(
            ReplayCheck(
                partition,
                stored.position,
                len(keys.item),
                float(gaps.max(initial=0.0)),
                [_name(keys, i) for i in np.argsort(-gaps) if gaps[i] > tolerance],
            )
        )
    return checks


def gaps_between(found: Sums, expected: Sums, scale: Sums) -> tuple[Rows, Float64]:
    """Every row of either, and how far they are apart there, (n,), relative to the row's scale: the sums of absolute
    contributions, say."""
    keys = Sums.of(found.rows(), expected.rows()).rows()
    gaps = np.abs(found.select(keys) - expected.select(keys)).max(axis=1, initial=0.0)
    return keys, gaps / (np.abs(scale.select(keys)).sum(axis=1) + 1e-300)


def _name(rows: Rows, i: int) -> str:
    item, cluster = rows.items[rows.item[i]], rows.cluster[i]
    return item if cluster == ITEM else f"{item} in cluster {cluster}"
