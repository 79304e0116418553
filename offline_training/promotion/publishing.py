"""What is known of items and users, from the lake and the training sets into the online store."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.contracts.catalogue import Item
from feature_store.definitions import HistoryEvent
from feature_store.lake_path import LakePath
from feature_store.online.store import OnlineStore
from feature_store.user_features import UserRecord
from offline_training.data.lake import interacted_items, read_catalogue
from offline_training.runs.runs import SETS, run_of_release

_COLUMNS = ["user", "profile", "profile_time", "items", "kinds", "times"]
_NOBODY = np.zeros(0, np.uint64)


def publish_catalogue(lake: LakePath, exclude: frozenset[str], online: OnlineStore) -> None:
    """Puts imported items into the live catalogue that are not there yet, those that only interactions name included.
    What was put or deleted over HTTP is left as it is: it is newer than any import."""
    described = read_catalogue(lake, exclude)
    bare = sorted(interacted_items(lake) - described.keys() - exclude)
    found = [*(item for item in described.values() if item is not None), *(Item(id=name) for name in bare)]
    online.catalogue.add(found)


def publish_users(sets: Path, release: str, runs: Path, online: OnlineStore) -> int:
    """Publishes the users of a release's training sets: those of whom something else is known than when users were last
    published, everybody if the store does not say when, or those sets are gone. Returns how many."""
    before, count = online.users.published(), 0
    run = None if before is None else run_of_release(runs, before)
    known = _NOBODY if run is None else np.sort(np.concatenate([_NOBODY, *_digests(run.folder / SETS)]))

    def changed() -> Iterator[UserRecord]:
        nonlocal count
        for rows in _batches(sets):
            new = ~np.isin(_digests_of(rows), known)
            count += int(new.sum())
            yield from map(_record, rows.filter(new).to_pylist())

    online.users.put(changed())
    online.users.note_published(release)
    return count


def user_records(sets: Path) -> Iterator[UserRecord]:
    """Users' features as the training sets have them: profile, history, everything interacted with."""
    for rows in _batches(sets):
        yield from map(_record, rows.to_pylist())


def _batches(sets: Path) -> Iterator[pa.RecordBatch]:
    for file in sorted((sets / "users").glob("*.parquet")):
        yield from pq.ParquetFile(file).iter_batches(batch_size=1_000, columns=_COLUMNS)


def _record(row: dict[str, Any]) -> UserRecord:
    history = list(map(HistoryEvent, row["items"], row["kinds"], row["times"]))
    return UserRecord(row["user"], row["profile"], row["profile_time"], history, [(e.item, e.time) for e in history])


def _digests(sets: Path) -> Iterator[NDArray[np.uint64]]:
    return map(_digests_of, _batches(sets))


def _digests_of(rows: pa.RecordBatch) -> NDArray[np.uint64]:
    """One number per row that another user, or another past, does not have: 8 bytes each, for millions of users."""
    encoded = (msgspec.msgpack.encode(row, order="deterministic") for row in rows.to_pylist())
    found = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in encoded)
    return np.frombuffer(found, np.uint64)
