"""What training puts into the live catalogue."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import redis

from feature_store.contracts import columns
from feature_store.contracts.catalogue import Item
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from offline_training.promotion.publishing import publish_catalogue


def put(path: Path, schema: pa.Schema, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)


def test_items_are_served_described_or_not_but_not_deleted_or_excluded_ones(tmp_path: Path, redis_url: str) -> None:
    clicks = [
        {"user": "u", "item": item, "type": "click", "value": 1.0, "time": 1}
        for item in ("bare", "described", "deleted", "excluded")
    ]
    described = {"item": "described", "title": "T", "categories": ["c"], "attributes": "{}"}
    deleted = {"offset": 0, "time": 1, "item": "deleted", "deleted": True}
    put(tmp_path / "interactions" / "a.parquet", columns.INTERACTIONS, *clicks)
    put(tmp_path / "items" / "items.parquet", columns.ITEMS, described)
    put(tmp_path / "catalogue" / "log=x" / "partition=0" / "0-1.parquet", columns.CATALOGUE, deleted)
    with redis.Redis.from_url(redis_url) as client:
        online = OnlineStore(client, RedisSettings())
        publish_catalogue(tmp_path, frozenset({"excluded"}), online)
        published = dict(online.catalogue.items())
    assert published == {"described": Item(id="described", title="T", categories=["c"]), "bare": Item(id="bare")}
