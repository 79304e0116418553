"""Reads the Parquet training sets into padded arrays.

Items are numbered by their row in `items/`. Padded arrays of items hold that number plus one, 0 is padding; the towers'
id 0 means "unknown item", which is also what a history holds beyond its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import ITEM_FEATURES, POSITIVE, USER_TOKENS, token_ids
from offline_training.data.summary import TrainingSetSummary

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Catalogue:
    """Items in release order: tokens (I, ITEM_TOKENS), features (I, len(ITEM_FEATURES))."""

    items: list[str]
    index: dict[str, int]
    tokens: Int64
    features: Float32


@dataclass(frozen=True)
class Examples:
    """Positive interactions, oldest first. history (n, L) and item number plus one; profile (n, USER_TOKENS)."""

    user: Int64  # rows of `users`
    users: list[str]
    item: Int64  # item number, without the plus one
    time: Int64
    profile: Int64
    history: Int64
    validation: Bool


@dataclass(frozen=True)
class Users:
    """Everybody known at the end of the training time. profile_tokens: the texts behind profile; history (U, L) as in
    Examples; seen: ragged item numbers and the times (ms) they were met at, oldest first."""

    users: list[str]
    index: dict[str, int]
    profile_tokens: list[list[str]]
    profile: Int64
    history: Int64
    seen: list[Int64]
    seen_times: list[Int64]


@dataclass(frozen=True)
class Impressions:
    """Items that were shown and what came of them, one row per decision, lists ragged over the slate."""

    user: list[str]
    time: Int64
    profile: Int64
    history: Int64
    items: list[Int64]
    rewards: list[Float64]


def read_catalogue(sets: Path) -> Catalogue:
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


def read_examples(sets: Path, catalogue: Catalogue, history_length: int) -> Examples:
    """The positives in `users/`, oldest first. Raises InvalidInput if there are fewer than two."""
    table = _read(sets / "users").sort_by("user")
    user, item, time = _positives(table, catalogue)
    if len(item) < 2:
        raise InvalidInput(
            f"The training set {sets / 'users'} holds {len(item)} positive interactions, at least 2 are needed. "
            "Import more interactions, or check training.positive_value."
        )
    start = np.flatnonzero(np.diff(user, prepend=-1) | np.diff(time, prepend=-1))  # of what happened at one time
    before = np.repeat(start, np.diff(start, append=len(user)))
    history = _newest_before(before, user, user, item, history_length)
    order = np.lexsort((item, user, time))
    return Examples(
        user=user[order],
        users=table["user"].to_pylist(),
        item=item[order],
        time=time[order],
        profile=profile_ids(table["profile"].to_pylist())[user[order]],
        history=history[order],
        validation=time[order] >= TrainingSetSummary.load(sets).validation_time,
    )


def read_users(sets: Path, catalogue: Catalogue, history_length: int) -> Users:
    """Reads `users/`, sorted by user key."""
    table = _read(sets / "users").sort_by("user")
    users = table["user"].to_pylist()
    profiles = [profile or [] for profile in table["profile"].to_pylist()]
    seen = _ragged(table["items"], catalogue)
    times = [np.array(row, dtype=np.int64) for row in table["times"].to_pylist()]
    user, item, _ = _positives(table, catalogue)
    rows = np.arange(len(users))
    return Users(
        users=users,
        index={user: row for row, user in enumerate(users)},
        profile_tokens=profiles,
        profile=profile_ids(profiles),
        history=_newest_before(np.searchsorted(user, rows, side="right"), rows, user, item, history_length),
        seen=[row[row >= 0] for row in seen],
        seen_times=[time[row >= 0] for time, row in zip(times, seen, strict=True)],
    )


def read_impressions(sets: Path, catalogue: Catalogue, history_length: int) -> Impressions:
    """Reads `impressions/`, oldest first, of the histories what was liked. Shown items that the catalogue does not hold
    are dropped."""
    table = _read(sets / "impressions").sort_by([("time", "ascending"), ("decision", "ascending")])
    items = _ragged(table["items"], catalogue)
    rewards = [np.array(row, dtype=np.float64) for row in table["rewards"].to_pylist()]
    return Impressions(
        user=table["user"].to_pylist(),
        time=table["time"].to_numpy().astype(np.int64),
        profile=profile_ids(table["profile"].to_pylist()),
        history=_liked(table, catalogue, history_length),
        items=[row[row >= 0] for row in items],
        rewards=[reward[row >= 0] for reward, row in zip(rewards, items, strict=True)],
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


def _positives(table: pa.Table, catalogue: Catalogue) -> tuple[Int64, Int64, Int64]:
    """Row, item number and time (ms) of the positives in rows of `users/`, oldest first in each row."""
    items, times = _numbers(pc.list_flatten(table["items"]), catalogue), pc.list_flatten(table["times"]).to_numpy()
    keep = pc.list_flatten(table["positives"]).to_numpy().astype(np.bool_) & (items >= 0)
    row = np.repeat(np.arange(len(table)), pc.list_value_length(table["items"]).to_numpy())
    return row[keep], items[keep], times[keep].astype(np.int64)


def _newest_before(before: Int64, row: Int64, user: Int64, item: Int64, width: int) -> Int64:
    """Item numbers plus one, newest first, (n, width): what stands before position `before` (n,) of the lists user and
    item, of the user `row` (n,), the newest of each item."""
    order = np.lexsort((np.arange(len(item)), item, user))
    again = np.full(len(item), len(item))  # where the same user's same item stands next
    same = (np.diff(user[order]) == 0) & (np.diff(item[order]) == 0)
    again[order[:-1][same]] = order[1:][same]
    out = np.zeros((len(before), width), dtype=np.int64)
    place = np.zeros(len(before), dtype=np.int64)
    rows, at = np.arange(len(before)), before - 1
    while len(rows):
        ours = (at >= 0) & (place[rows] < width)
        ours[ours] = user[at[ours]] == row[rows[ours]]
        rows, at = rows[ours], at[ours]
        newest = again[at] >= before[rows]
        out[rows[newest], place[rows[newest]]] = item[at[newest]] + 1
        place[rows[newest]] += 1
        at = at - 1
    return out


def _liked(table: pa.Table, catalogue: Catalogue, width: int) -> Int64:
    """Logged histories' positive items, numbers plus one, (n, width)."""
    numbers = _numbers(pc.list_flatten(table["history"]), catalogue)
    lengths = pc.fill_null(pc.list_value_length(table["history"]), 0).to_numpy()
    keep = pc.ends_with(pc.list_flatten(table["history_kinds"]).cast(pa.string()), POSITIVE).to_numpy(
        zero_copy_only=False
    )
    keep = keep.astype(np.bool_) & (numbers >= 0)
    row, numbers = np.repeat(np.arange(len(lengths)), lengths)[keep], numbers[keep]
    position = np.arange(len(row)) - np.searchsorted(row, row)
    out = np.zeros((len(lengths), width), dtype=np.int64)
    keep = position < width
    out[row[keep], position[keep]] = numbers[keep] + 1
    return out
