"""What the lake says, read without Spark: for processes that hold the catalogue anyway."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.catalogue import Item
from feature_store.contracts.columns import CATALOGUE, INTERACTIONS, ITEMS
from feature_store.contracts.errors import InvalidInput
from feature_store.lake_format import rows_in
from feature_store.lake_path import AnyPath, LakePath
from streaming.lake_files import files, partition_folders, read

_attributes = msgspec.json.Decoder(dict[str, str | int | float | bool])


def time_at_share(lake: LakePath, share: float = 0.8) -> int:
    """The time (ms) that splits the imported interactions: the given share of their time span lies before it.

    Raises InvalidInput if the lake holds no interactions.
    """
    low = high = None
    for file in parquet_files(lake / "interactions"):
        times = read(file, INTERACTIONS, ["time"])["time"]
        if len(times):
            found = pc.min_max(times).as_py()
            low = found["min"] if low is None else min(low, found["min"])
            high = found["max"] if high is None else max(high, found["max"])
    if low is None or high is None:
        raise no_interactions(lake)
    return int(low + share * (high - low))


def positives_from(lake: LakePath, split_ms: int, positive_value: Mapping[str, float]) -> dict[str, frozenset[str]]:
    """What each user (by key) liked among the imported interactions from split_ms (ms since the epoch) on.

    positive_value: from which value on an interaction of a type is positive; types not named are at any value above 0.
    Of several interactions of one type with an item the newest counts. Users who liked nothing are left out.
    """
    files = parquet_files(lake / "interactions")
    parts = [read(file, INTERACTIONS, since=split_ms).filter(pc.field("time") >= split_ms) for file in files]
    late = pa.concat_tables([INTERACTIONS.empty_table(), *parts]).sort_by("time")
    columns = (late[name].to_pylist() for name in ("user", "item", "type", "value"))
    newest = {(user, item, kind): value for user, item, kind, value in zip(*columns, strict=True)}
    likes: dict[str, set[str]] = {}
    for (user, item, kind), value in newest.items():
        if value >= positive_value[kind] if kind in positive_value else value > 0:
            likes.setdefault(user, set()).add(item)
    return {user: frozenset(liked) for user, liked in likes.items()}


def no_interactions(lake: LakePath, until_ms: int | None = None) -> InvalidInput:
    """What to tell when there is nothing to train on."""
    until = "" if until_ms is None else f" before {until_ms} ms"
    return InvalidInput(f"The lake {lake} holds no interactions{until}. Import some with `matchloop import DIR`.")


def parquet_files(directory: AnyPath) -> list[AnyPath]:
    """The Parquet files below a directory of the lake, without those still being written (named with a leading dot)."""
    found = cast(Iterable[AnyPath], directory.rglob("*.parquet"))
    return sorted((path for path in found if not path.name.startswith((".", "_"))), key=lambda path: path.parts)


class CatalogueChange(NamedTuple):
    """An item as it was put, None: deleted, and when (ms)."""

    time: int
    id: str
    item: Item | None


def read_catalogue(lake: LakePath, exclude: frozenset[str] = frozenset()) -> dict[str, Item | None]:
    """All items ever described, by id; None for the deleted ones.

    A change in the catalogue log counts more than an import, a later change more than an earlier one. What was imported
    about the excluded items is passed over.
    """
    imported, changes = catalogue_changes(lake)
    items: dict[str, Item | None] = {item.id: item for item in imported if item.id not in exclude}
    items.update((change.id, change.item) for change in changes)
    return items


def catalogue_changes(lake: LakePath) -> tuple[list[Item], list[CatalogueChange]]:
    """The items as they were imported, and what was changed of the catalogue since, in order."""
    imported = [_item(row) for file in parquet_files(lake / "items") for row in read(file, ITEMS).to_pylist()]
    held = (stretch for *_, folder in partition_folders(lake, "catalogue") for stretch in files(folder))
    rows = [row for stretch in held for row in read(stretch.path, CATALOGUE).to_pylist()]
    rows.sort(key=lambda row: (row["time"], row["offset"]))
    return imported, [CatalogueChange(row["time"], row["item"], None if row["deleted"] else _item(row)) for row in rows]


def catalogue_items(lake: LakePath) -> set[str]:
    """Ids of the items that there are now, those that only interactions name included."""
    described = read_catalogue(lake)
    there = {name for name, item in described.items() if item is not None}
    return there | (interacted_items(lake) - described.keys())


def items_since(lake: LakePath, time: int) -> set[str]:
    """Ids of the items that the catalogue's log first names at a time (ms) or later: not those that were imported."""
    first: dict[str, int] = {}
    for stretch in (one for *_, folder in partition_folders(lake, "catalogue") for one in files(folder)):
        table = read(stretch.path, CATALOGUE, ["item", "time"]).group_by("item").aggregate([("time", "min")])
        for item, earliest in zip(table["item"].to_pylist(), table["time_min"].to_pylist(), strict=True):
            first[item] = min(earliest, first.get(item, earliest))
    return {item for item, earliest in first.items() if earliest >= time}


def imported_rows(lake: LakePath) -> int:
    """How many interactions were imported, by the files' footers."""
    return sum(rows_in(file) for file in parquet_files(lake / "interactions"))


def interacted_items(lake: LakePath) -> set[str]:
    """Ids of all items that the imported interactions name; many have no other description."""
    found: set[str] = set()
    for file in parquet_files(lake / "interactions"):
        found.update(pc.unique(read(file, INTERACTIONS, ["item"])["item"]).to_pylist())
    return found


def _item(row: dict[str, Any]) -> Item:
    return Item(
        id=row["item"],
        title=row["title"] or "",
        categories=row["categories"] or [],
        attributes=_attributes.decode(row["attributes"] or "{}"),
        available=row.get("available") is not False,  # imported items have no such column
        available_from=row.get("available_from"),
        available_until=row.get("available_until"),
    )
