"""Training-serving skew: are the features that decisions were made with those that the lake gives for their moments?

A history must be the published one plus what the log told, folded up to some point that its process can have seen: at
least what had been folded for certain before it was read, at most what stands before the decision in the log. Context
and predictions must be what the release that the decision names computes from the logged user features.
"""

import bisect
import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow.parquet as pq

from feature_store.contracts.errors import InvalidInput, ReleaseRefused
from feature_store.contracts.events import Decision, Feedback, Merge
from feature_store.contracts.identity import MASKED
from feature_store.definitions import HistoryEvent
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.lake_path import LakePath
from feature_store.namespace import Namespace, Start
from feature_store.sums import NO_ROWS
from feature_store.user_features import UserFeatures
from offline_training.data.lake import parquet_files
from offline_training.progress import Progress
from offline_training.runs.runs import published_sets
from online_serving.pipeline.features import candidate_features, encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot
from streaming.fold import Fold
from streaming.lake_events import first_held, log_order, read_events
from streaming.lake_files import partition_folders
from streaming.settings import RewardSettings

TOLERANCE = 1e-5  # between one candidate at a time and many at once, in single precision
_READ_MS = (
    1_000  # a history is read at most so long before the decision is made, and before its parameters are looked at
)
_SETTLED_MS = 60_000  # what was received so long before and has been folded was folded before the history was read
_EXAMPLES = 3

EQUAL, IN_FLIGHT, FORGOTTEN, UNKNOWN, DIFFERENT = "equal", "in flight", "forgotten", "unknown", "different"
OUTCOMES = {
    EQUAL: "as recomputed",
    IN_FLIGHT: "as recomputed, with feedback that was being folded at that moment",
    FORGOTTEN: "a part of what was told last, and nothing from before: after an erasure, or Redis did not answer",
    UNKNOWN: "not recomputed: the release is gone, a live item is in the history, other histories were published, or a "
    "visitor was merged with the user",
    DIFFERENT: "something else",
}


@dataclass
class Agreement:
    """How often a feature's logged values agree with recomputed ones. examples: decisions where they do not."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    examples: list[str] = field(default_factory=list)

    def add(self, outcome: str, decision: Decision) -> None:
        """Counts one decision."""
        self.counts[outcome] += 1
        if outcome == DIFFERENT and len(self.examples) < _EXAMPLES:
            self.examples.append(decision.id)


class _LogPlace(NamedTuple):
    """Of a record: logs in the order in which they were written, offsets of one partition."""

    log: int
    offset: int


_NOWHERE = _LogPlace(0, 0)


class _Told(NamedTuple):
    place: _LogPlace
    event: HistoryEvent


class _Made(NamedTuple):
    place: _LogPlace
    partition: int
    decision: Decision


class _Folded:
    """What had been folded by a time: at least what a decision made by then held in its parameters."""

    def __init__(self, made: Iterable[_Made]) -> None:
        self._times: dict[int, list[int]] = {}
        self._places: dict[int, list[_LogPlace]] = {}
        for one in made:  # oldest first
            places = self._places.setdefault(one.partition, [_NOWHERE])
            places.append(max(places[-1], _held(one)))
            self._times.setdefault(one.partition, []).append(one.decision.time)

    def by(self, partition: int, time: int) -> _LogPlace:
        """The first place of the partition that may not have been folded by then."""
        return self._places[partition][bisect.bisect_right(self._times[partition], time)]


def check_features(
    home: Home, rewards: RewardSettings, history_kept: int, limit: int, progress: Progress
) -> dict[str, Agreement]:
    """Recomputes history, context and predictions of the newest `limit` decisions in the lake.

    Raises InvalidInput if no training sets' users were published, or if there is no decision.
    """
    sets, serves = published_sets(home.runs)
    progress(0.0, "reading the log")
    told, made, merged = _read_log(home.lake, rewards, limit)
    if not made:
        raise InvalidInput(f"The lake {home.lake} holds no decision. Ask for recommendations while the sink runs.")
    progress(0.4, "reading the published histories")
    published = _published(sets, {one.decision.user for one in made}, told, history_kept)
    folded = _Folded(made)
    found = {"history": Agreement(), "context": Agreement(), "predicted": Agreement()}
    snapshots: dict[str, Snapshot | None] = {}
    for number, one in enumerate(made):
        if number % 200 == 0:
            progress(0.5 + 0.5 * number / len(made), "recomputing")
        decision = one.decision
        if decision.release not in snapshots:
            snapshots[decision.release] = _load(home.releases, decision.release)
        snapshot = snapshots[decision.release]
        user = decision.user
        history = (
            UNKNOWN
            if snapshot is None or decision.time >= merged.get(user, decision.time + 1)
            else _history(
                one,
                told.get(user, []),
                published.get(user, []),
                folded.by(one.partition, decision.time - _READ_MS),
                history_kept,
                snapshot.manifest.history_length,
            )
        )
        if history in (FORGOTTEN, DIFFERENT) and decision.release != serves:
            history = UNKNOWN  # when it was made, other histories may have been published
        found["history"].add(history, decision)
        context, predicted = (UNKNOWN, UNKNOWN) if snapshot is None else _computed(snapshot, decision)
        found["context"].add(context, decision)
        found["predicted"].add(predicted, decision)
    progress(1.0, "recomputed")
    return found


def _read_log(
    lake: LakePath, rewards: RewardSettings, limit: int
) -> tuple[dict[str, list[_Told]], list[_Made], dict[str, int]]:
    """What the log adds to histories, by user in log order; the newest decisions, oldest first; and since when (ms)
    users' histories hold what visitors did, whose place among their own is not known."""
    told: dict[str, list[_Told]] = {}
    merged: dict[str, int] = {}
    newest: list[tuple[int, int, _Made]] = []
    folds: dict[int, Fold] = {}
    read = 0
    for number, (log, partition) in enumerate(_partitions(lake)):
        fold = folds.setdefault(partition, _history_fold(rewards))
        for offset, event in read_events(lake, log, partition, first_held(lake, log, partition)):
            if getattr(event, "user", "").startswith(MASKED):
                continue  # what it was made with is gone
            place = _LogPlace(number, offset)
            read += 1
            if isinstance(event, Decision):
                heapq.heappush(newest, (event.time, read, _Made(place, partition, event)))
                if len(newest) > limit:
                    heapq.heappop(newest)
                fold.apply([msgspec.structs.replace(event, learns=False)])  # only histories are of interest
            else:
                fold.apply([event])
            if isinstance(event, Merge):
                merged[event.account] = min(event.time, merged.get(event.account, event.time))
            elif isinstance(event, Feedback):
                for user, new in fold.take().history:
                    told.setdefault(user, []).append(_Told(place, new))
    return told, [made for *_, made in sorted(newest)], merged


def _partitions(lake: LakePath) -> Iterator[tuple[str, int]]:
    """Logs in the order in which they began, each with its partitions."""
    found = [(log, partition) for log, partition, _ in partition_folders(lake, "events")]
    for log in log_order(lake):
        yield from sorted(place for place in found if place[0] == log)


def _history_fold(rewards: RewardSettings) -> Fold:
    namespace = Namespace(id="", release="", log="", offsets=[], created=0, graph=Graph(1), base=NO_ROWS, starts=[])
    return Fold(namespace, rewards, Start())


def _published(
    sets: Path, users: set[str], told: Mapping[str, list[_Told]], kept: int
) -> dict[str, list[HistoryEvent]]:
    """What was published of the users' histories and is not from the log."""
    found = {}
    for file in parquet_files(sets / "users"):
        with pq.ParquetFile(file) as source:
            for batch in source.iter_batches(batch_size=1_000, columns=["user", "items", "kinds", "times"]):
                for row in batch.to_pylist():
                    if row["user"] in users:
                        logged = {event for _, event in told.get(row["user"], [])}
                        events = map(HistoryEvent, row["items"], row["kinds"], row["times"])
                        found[row["user"]] = _newest((event for event in events if event not in logged), kept)
    return found


def _newest(events: Iterable[HistoryEvent], kept: int) -> list[HistoryEvent]:
    """A history, newest first, as the online store keeps it."""
    return sorted(set(events), key=lambda event: (event.time, event.item, event.kind), reverse=True)[:kept]


def _held(made: _Made) -> _LogPlace:
    """Up to where the parameters of a decision were folded."""
    offset = made.decision.offsets[made.partition]
    return _LogPlace(made.place.log, offset if offset <= made.place.offset else 0)  # else it is of an earlier log


def _history(
    made: _Made, told: list[_Told], published: list[HistoryEvent], folded: _LogPlace, kept: int, length: int
) -> str:
    decision, held = made.decision, _held(made)
    logged = history_of(decision)
    possible = [event for place, event in told if place < made.place]
    certain = 0
    for place, event in told[: len(possible)]:
        if place >= folded and (place >= held or event.time + _SETTLED_MS > decision.time):
            break
        certain += 1

    def is_logged(events: Iterable[HistoryEvent]) -> bool:
        return _newest(events, kept)[:length] == logged

    for end in range(certain, len(possible) + 1):
        if is_logged([*published, *possible[:end]]):
            return EQUAL if end == certain else IN_FLIGHT
    for start in range(len(possible) + 1):
        if any(is_logged(possible[start:end]) for end in range(max(start, certain), len(possible) + 1)):
            return FORGOTTEN
    return DIFFERENT


def history_of(decision: Decision) -> list[HistoryEvent]:
    """The history that the decision was made with, newest first."""
    return list(map(HistoryEvent, decision.history, decision.history_kinds, decision.history_times))


def _computed(snapshot: Snapshot, decision: Decision) -> tuple[str, str]:
    """Outcomes of the context and of the predictions for items of the release."""
    history = history_of(decision)
    if any(snapshot.position(event.item) is None for event in history):
        return UNKNOWN, UNKNOWN  # a live item, whose content was that of its time
    user = encode_user(
        snapshot, UserFeatures(decision.profile, history, frozenset()), Request(slate_size=1, time=decision.time)
    )
    same_clusters = user.clusters.tolist() == decision.clusters
    context = EQUAL if same_clusters and _close(user.weights.tolist(), decision.weights) else DIFFERENT
    places = [(snapshot.position(item), p) for item, p in zip(decision.items, decision.predicted, strict=True)]
    known = [(place, p) for place, p in places if place is not None]
    if not known:
        return context, UNKNOWN
    positions = np.array([place for place, _ in known], dtype=np.int64)
    predicted = snapshot.towers.predict(candidate_features(snapshot, user, positions))
    return context, EQUAL if _close(predicted.tolist(), [p for _, p in known]) else DIFFERENT


def _close(found: list[float], expected: list[float]) -> bool:
    return bool(np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE))


def _load(releases: Path, release: str) -> Snapshot | None:
    try:
        return Snapshot.load(releases, release)
    except ReleaseRefused:
        return None
