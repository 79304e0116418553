"""Decisions of the lake, page by page."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from feature_store.contracts import columns
from feature_store.contracts.events import Event, Tick
from feature_store.home import Home
from online_serving.decision_pages import DecisionPages
from online_serving.errors import BrokenRules
from online_serving.schemas import DecisionsQuery
from streaming.lake_rows import row_of
from tests.events import KEYRING, decision, feedback
from tests.lakes import put

USERS = ("ada", "bob", "ada", "ada")
MADE = [decision(user, 1_000 + n, ["a", "b"], nonce=bytes([n] * 8)) for n, user in enumerate(USERS)]


def put_events(home: Path, log: str, partition: int, start: int, *events: Event) -> None:
    rows = [{"offset": offset, "position": 0, **row_of(event)} for offset, event in enumerate(events, start)]
    folder = home / "lake" / "events" / f"log={log}" / f"partition={partition}"
    put(folder / f"{start}-{start + len(rows)}.parquet", columns.EVENTS, rows)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    put_events(tmp_path, "x", 0, 0, MADE[0], feedback(MADE[0], "a"), MADE[1])
    put_events(tmp_path, "x", 0, 3, Tick(time=5_000), MADE[2])
    put_events(tmp_path, "x", 2, 0, Tick(time=5_000))
    put_events(tmp_path, "y", 0, 0, MADE[3])
    return tmp_path


def pages(home: Path, **query: Any) -> list[list[str]]:
    """Ids of decisions, page by page."""
    listing = DecisionPages(Home(home), KEYRING)

    def page(cursor: str) -> dict[str, Any]:
        return asyncio.run(listing.page(DecisionsQuery(cursor=cursor, **query)))

    found = [page("")]
    while found[-1]["next"]:
        found.append(page(found[-1]["next"]))
    return [[one["id"] for one in answer["decisions"]] for answer in found]


def test_each_decision_comes_once_the_newest_of_a_partition_first(home: Path) -> None:
    ids = [one.id for one in MADE]
    assert pages(home, count=100) == [[ids[2]], [ids[1], ids[0]], [], [ids[3]]]
    assert pages(home, count=1) == [[ids[2]], [ids[1]], [ids[0]], [], [ids[3]]]
    assert pages(home, user_id="bob") == [[], [ids[1]], [], []]
    assert pages(home / "elsewhere") == [[]]


def test_a_decision_tells_its_slate(home: Path) -> None:
    [one] = asyncio.run(DecisionPages(Home(home), KEYRING).page(DecisionsQuery(count=1)))["decisions"]
    assert (one["user"], one["time"], one["release"]) == (KEYRING.user_key("ada"), 1_002, "r")
    assert (one["items"], one["probabilities"], one["pinned"]) == (["a", "b"], [1.0, 1.0], [])
    assert "offset" not in one


@pytest.mark.parametrize("cursor", ["x", "x/0", "x/0/a", "z/0/5", "x/9/5"])
def test_a_cursor_is_one_of_an_answer(home: Path, cursor: str) -> None:
    with pytest.raises(BrokenRules, match="cursor: must be `next`"):
        asyncio.run(DecisionPages(Home(home), KEYRING).page(DecisionsQuery(cursor=cursor)))
