"""Reads the Parquet training sets into arrays. Items are numbered by their row in `items/`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.arrays import Bool, Float32, Float64, Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import ITEM_FEATURES, POSITIVE, USER_TOKENS, gap_buckets, kind_id, token_ids
from offline_training.retrieval.sequences import Histories, Sequences

Kind = TypeVar("Kind", bound="np.generic[Any]")


@dataclass(frozen=True)
class Catalogue:
    """Items in release order: tokens (I, ITEM_TOKENS), features (I, len(ITEM_FEATURES))."""

    items: list[str]
    index: dict[str, int]
    tokens: Int64
    features: Float32


@dataclass(frozen=True)
class Impressions:
    """Items that were shown and what came of them, one row per decision, lists ragged over the slate: its items, their
    places in it from 0, whether there was feedback on them, and its reward; profile (n, USER_TOKENS)."""

    user: list[str]
    time: Int64
    profile: Int64
    histories: Histories
    items: list[Int64]
    places: list[Int64]
    clicked: list[Bool]
    rewards: list[Float64]

    def __len__(self) -> int:
        return len(self.user)

    @cached_property
    def flat(self) -> tuple[Int64, Int64]:
        """(decision (m,), item (m,)) of everything that was shown."""
        decision = np.repeat(np.arange(len(self)), [len(items) for items in self.items])
        return decision, np.concatenate([np.zeros(0, np.int64), *self.items])

    def before(self, moment: int) -> "Impressions":
        """Of decisions made before a moment (ms)."""
        rows = np.flatnonzero(self.time < moment)

        def of(column: list[NDArray[Kind]]) -> list[NDArray[Kind]]:
            return [column[row] for row in rows]

        return Impressions(
            user=[self.user[row] for row in rows],
            time=self.time[rows],
            profile=self.profile[rows],
            histories=self.histories.take(rows),
            items=of(self.items),
            places=of(self.places),
            clicked=of(self.clicked),
            rewards=of(self.rewards),
        )

    @classmethod
    def none(cls) -> "Impressions":
        """Nothing was shown to anybody."""
        return cls([], np.zeros(0, np.int64), profile_ids([]), Histories.none(), [], [], [], [])


def read_items(sets: Path) -> Catalogue:
    """Reads `items/`. Raises InvalidInput if there is no item."""
    table = _read(sets / "items").sort_by("item")
    if not len(table):
        raise InvalidInput(f"The training set {sets / 'items'} holds no item. Import items or interactions first.")
    items = table["item"].to_pylist()
    tokens = np.array(table["tokens"].to_pylist(), dtype=np.int64)
    return Catalogue(items, {item: row for row, item in enumerate(items)}, tokens, _features(table))


def read_features_at_validation(sets: Path, catalogue: Catalogue) -> Float32:
    """Item features (I, F) as of the validation start; an item unknown by then has the features' defaults."""
    table = _read(sets / "items_at_validation")
    features = np.tile(np.array([feature.default for feature in ITEM_FEATURES], np.float32), (len(catalogue.items), 1))
    rows = _numbers(table["item"], catalogue)
    features[rows[rows >= 0]] = _features(table)[rows >= 0]
    return features


def read_sequences(sets: Path, catalogue: Catalogue) -> Sequences:
    """Reads `users/`, sorted by user key; events with items that the catalogue does not hold are left out.

    Raises InvalidInput if fewer than two events are positive.
    """
    table = _read(sets / "users").sort_by("user")
    profiles = [profile or [] for profile in table["profile"].to_pylist()]
    events = _events(table, "items", "kinds", "times", catalogue)
    positive = pc.list_flatten(table["positives"]).to_numpy(zero_copy_only=False).astype(np.bool_)[events.kept]
    if positive.sum() < 2:
        raise InvalidInput(
            f"The training set {sets / 'users'} holds {positive.sum()} positive interactions, at least 2 are needed. "
            "Import more interactions, or check training.positive_value."
        )
    start = np.concatenate([[0], np.cumsum(np.bincount(events.row, minlength=len(table)))])
    begins = np.flatnonzero(np.diff(events.row, prepend=-1) | np.diff(events.time, prepend=-1))  # of one moment
    at = np.repeat(begins, np.diff(begins, append=len(events.row)))
    return Sequences(
        users=table["user"].to_pylist(),
        start=start,
        item=events.item,
        kind=events.kind,
        kinds=events.kinds,
        positive=positive,
        time=events.time,
        visible=at - start[events.row],
        profile=profile_ids(profiles),
        profile_tokens=profiles,
    )


def read_impressions(sets: Path, catalogue: Catalogue, history_length: int) -> Impressions:
    """Reads `impressions/`, oldest first. Shown items that the catalogue does not hold are dropped, and so are such
    items of a history."""
    table = _read(sets / "impressions").sort_by([("time", "ascending"), ("decision", "ascending")])
    items = _ragged(table["items"], catalogue)

    def known(name: str, dtype: type) -> list[NDArray[Any]]:
        rows = zip(table[name].to_pylist(), items, strict=True)
        return [np.array(values, dtype=dtype)[item >= 0] for values, item in rows]

    return Impressions(
        user=table["user"].to_pylist(),
        time=table["time"].to_numpy().astype(np.int64),
        profile=profile_ids(table["profile"].to_pylist()),
        histories=_logged_histories(table, catalogue, history_length),
        items=[row[row >= 0] for row in items],
        places=known("places", np.int64),
        clicked=known("clicked", np.bool_),
        rewards=known("rewards", np.float64),
    )


def profile_ids(profiles: Sequence[Sequence[str] | None]) -> Int64:
    """Hashed profile tokens (n, USER_TOKENS). Equal profiles are hashed once."""
    seen: dict[tuple[str, ...], Int64] = {}
    out = np.zeros((len(profiles), USER_TOKENS), dtype=np.int64)
    for row, profile in enumerate(profiles):
        key = tuple(profile or ())
        if key not in seen:
            seen[key] = token_ids(key, USER_TOKENS)
        out[row] = seen[key]
    return out


def _read(directory: Path) -> pa.Table:
    files = sorted(directory.glob("*.parquet"))
    if not files:
        raise InvalidInput(f"There is no training set at {directory}. Run the training job from its Spark step.")
    return pa.concat_tables([pq.read_table(file) for file in files], promote_options="permissive")


def _features(table: pa.Table) -> Float32:
    return np.stack([table[feature.name].to_numpy() for feature in ITEM_FEATURES], axis=1).astype(np.float32)


def _numbers(column: Any, catalogue: Catalogue) -> Int64:
    """Item numbers of a string column, -1 for items that the catalogue does not hold."""
    found = pc.index_in(pc.cast(column, pa.string()), value_set=pa.array(catalogue.items, pa.string()))
    array: Int64 = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    return array


def _ragged(column: pa.ChunkedArray, catalogue: Catalogue) -> list[Int64]:
    numbers = _numbers(pc.list_flatten(column), catalogue)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    return np.split(numbers, np.cumsum(lengths)[:-1]) if len(lengths) else []


class _Events(NamedTuple):
    """Events of the table's rows: row, item number, row of kinds, time (ms); kept: which of all of them these are."""

    row: Int64
    item: Int64
    kind: Int64
    kinds: list[str]
    time: Int64
    kept: Bool


def _events(table: pa.Table, items: str, kinds: str, times: str, catalogue: Catalogue) -> _Events:
    number = _numbers(pc.list_flatten(table[items]), catalogue)
    row = np.repeat(np.arange(len(table)), pc.fill_null(pc.list_value_length(table[items]), 0).to_numpy())
    kind = pc.list_flatten(table[kinds]).cast(pa.string()).combine_chunks().dictionary_encode()
    time = pc.list_flatten(table[times]).to_numpy().astype(np.int64)
    kept = number >= 0
    of_kind = kind.indices.to_numpy().astype(np.int64)
    return _Events(row[kept], number[kept], of_kind[kept], kind.dictionary.to_pylist(), time[kept], kept)


def _logged_histories(table: pa.Table, catalogue: Catalogue, width: int) -> Histories:
    """Logged histories, which are newest first, as the tower reads them."""
    events = _events(table, "history", "history_kinds", "history_times", catalogue)
    count = np.minimum(np.bincount(events.row, minlength=len(table)), width)
    place = count[events.row] - 1 - (np.arange(len(events.row)) - np.searchsorted(events.row, events.row))
    read = place >= 0
    at = (events.row[read], place[read])
    shape = (len(table), width)
    item, kind, time = (np.zeros(shape, np.int64) for _ in range(3))
    liked = np.zeros(shape, np.bool_)
    item[at], time[at] = events.item[read] + 1, events.time[read]
    kind[at] = np.array([kind_id(name) for name in events.kinds], np.int64)[events.kind[read]]
    liked[at] = np.array([name.endswith(POSITIVE) for name in events.kinds], np.bool_)[events.kind[read]]
    return Histories(item, kind, np.where(item > 0, gap_buckets(time), 0), count, liked)
