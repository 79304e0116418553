"""What is known of items and users, from the lake and the training sets into the online store."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from feature_store.contracts.catalogue import Item
from feature_store.definitions import HistoryEvent
from feature_store.online.store import OnlineStore
from feature_store.user_features import UserRecord
from offline_training.data.lake import interacted_items, read_catalogue


def publish_catalogue(lake: Path, exclude: frozenset[str], online: OnlineStore) -> None:
    """Puts imported items into the live catalogue that are not there yet, those that only interactions name included.
    What was put or deleted over HTTP is left as it is: it is newer than any import."""
    described = read_catalogue(lake, exclude)
    bare = sorted(interacted_items(lake) - described.keys() - exclude)
    found = [*(item for item in described.values() if item is not None), *(Item(id=name) for name in bare)]
    online.catalogue.add(found)


def user_records(sets: Path) -> Iterator[UserRecord]:
    """Users' features as the training sets have them: profile, history, everything interacted with."""
    for file in sorted((sets / "users").glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1_000):
            for row in batch.to_pylist():
                history = list(map(HistoryEvent, row["items"], row["kinds"], row["times"]))
                yield UserRecord(
                    row["user"], row["profile"], row["profile_time"], history, [(e.item, e.time) for e in history]
                )
