"""GET /v1/decisions: decisions as the lake has them, page by page. A page reads one file at most."""

import asyncio
import re
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from feature_store import lake_format
from feature_store.contracts.columns import EVENTS
from feature_store.contracts.identity import MASKED, Keyring
from feature_store.home import Home
from feature_store.rewriting import reading
from online_serving.errors import broken_rule
from online_serving.schemas import DecisionsQuery
from streaming.lake_files import files, partition_folders

_COLUMNS = [
    *("offset", "kind", "id", "user", "time", "surface", "release", "namespace", "variant", "learns", "path"),
    *("items", "shown", "predicted", "mean", "bonus", "probabilities", "pinned"),
]
_OF_SLATE = ("items", "predicted", "mean", "bonus")
_CURSOR = re.compile(r"(.+)/([0-9]{1,9})/([0-9]{1,19})")
_EVERYTHING = 2**63 - 1


class _Place(NamedTuple):
    """In a partition of a log, before an offset."""

    log: str
    partition: int
    before: int = _EVERYTHING

    def __str__(self) -> str:
        return f"{self.log}/{self.partition}/{self.before}"


class DecisionPages:
    """Decisions of the lake, partition by partition, the newest of each first."""

    def __init__(self, home: Home, keyring: Keyring) -> None:
        self._home = home
        self._keyring = keyring

    async def page(self, query: DecisionsQuery) -> dict[str, Any]:
        """The content of a answers.DecisionsPage. Raises BrokenRules for a cursor that is none."""
        user = None if query.user_id is None else self._keyring.user_key(query.user_id)
        decisions, behind = await asyncio.to_thread(_page, self._home, query.cursor, query.count, user)
        return {"decisions": decisions, "next": behind and str(behind)}


def _page(home: Home, cursor: str, count: int, user: str | None) -> tuple[list[dict[str, Any]], _Place | None]:
    with reading(home):
        folders = {(log, partition): folder for log, partition, folder in partition_folders(home.lake, "events")}
        if not folders:
            return [], None
        place = _read_cursor(cursor) if cursor else _Place(*min(folders))
        if (place.log, place.partition) not in folders:
            raise broken_rule("cursor", cursor, "must be `next` of an answer of this installation")
        held = [one for one in files(folders[place.log, place.partition]) if one.start < place.before]
        rows, begin = EVENTS.empty_table(), 0
        if held:
            wanted = pc.field("kind") == "decision"
            if user is not None:
                wanted &= pc.field("user") == user
            found = lake_format.read(held[-1].path, EVENTS, _COLUMNS, wanted)
            found = found.filter((pc.field("offset") < place.before) & ~pc.starts_with(pc.field("user"), MASKED))
            rows = found.sort_by([("offset", "descending")]).slice(0, count)
            begin = rows["offset"][-1].as_py() if len(found) > count else held[-1].start
        if held and begin > held[0].start:
            return _described(rows), place._replace(before=begin)
        later = [key for key in folders if key > (place.log, place.partition)]
        return _described(rows), _Place(*min(later)) if later else None


def _read_cursor(cursor: str) -> _Place:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise broken_rule("cursor", cursor, "must be `next` of an answer of this installation")
    return _Place(found[1], int(found[2]), int(found[3]))


def _described(rows: pa.Table) -> list[dict[str, Any]]:
    """What is told of decisions: of their items the slate alone."""
    return [
        {
            **{name: value for name, value in row.items() if name not in ("offset", "kind", "shown", "pinned")},
            **{name: row[name][: row["shown"]] for name in _OF_SLATE},
            "pinned": row["pinned"] or [],
        }
        for row in rows.to_pylist()
    ]
