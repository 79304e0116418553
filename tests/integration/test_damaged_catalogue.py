"""Serving processes beside a catalogue with broken entries, and beside a stream of changes that lost some."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from feature_store.contracts.catalogue import Item
from feature_store.online.catalogue import UnreadableItem
from feature_store.online.changes import NO_CHANGES, ChangeGap
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from infra.benchmarks.small_release import items
from tests.api_server import Installation, running, wait_until

CATALOGUE = items(12)
BROKEN = {"not-json": b"{not json", "no-id": b"{}", "other-id": b'{"id": "another"}', "no-text": b'{"id": "\xff"}'}


@pytest.fixture
def made(broker: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    with Installation(broker, redis_url, tmp_path, request.node.name[5:30]) as made:
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(made.release(CATALOGUE))
        yield made


def keys(made: Installation) -> tuple[str, str]:
    return f"{made.redis_settings.prefix}:catalogue", f"{made.redis_settings.prefix}:changes"


def damage(made: Installation, entries: dict[str, bytes]) -> None:
    catalogue, changes = keys(made)
    for name, value in entries.items():
        made.client.hset(catalogue, name, value)
        made.client.xadd(changes, {"kind": "item", "id": name})


def served(api: httpx.Client, item: str) -> bool:
    answer = api.get(f"/v1/items/{item}")
    return answer.status_code == 200 and bool(answer.json()["servable"])


def unreadable(api: httpx.Client) -> float:
    name = "matchloop_catalogue_unreadable_items "
    (line,) = [line for line in api.get("/metrics").text.splitlines() if line.startswith(name)]
    return float(line.split()[-1])


def test_the_store_tells_broken_entries_from_items(made: Installation) -> None:
    damage(made, BROKEN)
    made.client.hset(keys(made)[0], b"\xff", b"{}")
    found = dict(made.online.catalogue.items())
    assert {name: item for name, item in found.items() if isinstance(item, Item)} == {i.id: i for i in CATALOGUE}
    assert len(found) == len(CATALOGUE) + len(BROKEN) + 1
    (good, nobody, *broken) = made.online.catalogue.get(["i1", "nobody", *BROKEN])
    assert (good, nobody) == (CATALOGUE[1], None)
    assert [error.item for error in broken if isinstance(error, UnreadableItem)] == list(BROKEN)


def test_broken_entries_hold_nothing_up(made: Installation) -> None:
    with running(made.config()) as api:
        damage(made, {**BROKEN, "i3": b"[]"})
        made.client.xadd(keys(made)[1], {b"\xff": b"\xff"})  # a change of nothing
        made.client.xadd(keys(made)[1], {b"kind": b"item", b"id": b"\xff"})
        assert api.put("/v1/items/later", json={"title": "Title 1"}).status_code == 201
        wait_until(lambda: served(api, "later"))
        assert unreadable(api) == len(BROKEN) + 1
        answer = api.get("/v1/items/not-json")
        assert answer.status_code == 500
        assert "'not-json' in the catalogue cannot be read: JSON is malformed" in answer.json()["message"]

    with running(made.config()) as api:  # ready, although the entries are there when it starts
        assert served(api, "later")
        assert served(api, "i1")
        assert unreadable(api) == len(BROKEN) + 1
        slate = {"user_id": "u", "slate_size": 50}
        shown = {item["id"] for item in api.post("/v1/recommendations", json=slate).json()["items"]}
        assert shown == {item.id for item in CATALOGUE if item.id != "i3"} | {"later"}

        assert api.put("/v1/items/i3", json={"title": "Title 3"}).status_code == 200
        for name in BROKEN:
            assert api.delete(f"/v1/items/{name}").status_code == 204
        wait_until(lambda: served(api, "i3") and unreadable(api) == 0)


def lose(made: Installation, then: Item, *, active: Active | None = None) -> None:
    """Changes of the catalogue, of which the stream keeps the last only before anybody can have read the others."""
    catalogue, changes = keys(made)
    pipe = made.client.pipeline(transaction=True)
    for item in (Item(id="lost", title="Title 2"), then):
        pipe.hset(catalogue, item.id, msgspec.json.encode(item))
        pipe.xadd(changes, {"kind": "item", "id": item.id})
    pipe.hdel(catalogue, "i5")
    pipe.xadd(changes, {"kind": "item", "id": "i5"})
    if active is not None:
        pipe.hset(f"{made.redis_settings.prefix}:active", mapping=active._asdict())
        pipe.xadd(changes, {"kind": "active", "id": ""})
    pipe.xadd(changes, {"kind": "item", "id": then.id})
    pipe.xtrim(changes, maxlen=1, approximate=False)
    pipe.execute()


def test_lost_changes_are_noticed_and_the_catalogue_is_read_anew(made: Installation) -> None:
    with running(made.config()) as api:
        assert served(api, "i5")
        lose(made, Item(id="seen", title="Title 4"))
        wait_until(lambda: served(api, "seen") and served(api, "lost"))
        assert api.get("/v1/items/i5").status_code == 404
        body = {"user_id": "u", "only": ["i5", "i6"], "slate_size": 2}
        wait_until(lambda: [i["id"] for i in api.post("/v1/recommendations", json=body).json()["items"]] == ["i6"])
        assert api.put("/v1/items/after", json={"title": "Title 1"}).status_code == 201
        wait_until(lambda: served(api, "after"))


def test_a_release_whose_activation_was_lost_is_served(made: Installation) -> None:
    other = made.release(CATALOGUE, seed=1)
    with running(made.config()) as api:
        lose(made, Item(id="seen", title="Title 4"), active=other)
        wait_until(lambda: api.get("/v1/parameters").json()["release"] == other.release)
        wait_until(lambda: served(api, "seen") and served(api, "lost"))


def test_a_gap_is_told_from_a_quiet_stream(made: Installation) -> None:
    online = OnlineStore(made.client, RedisSettings(prefix="gaps"))
    assert online.changes.position() == NO_CHANGES
    assert online.changes.after(NO_CHANGES, 1) == []
    online.catalogue.add(CATALOGUE[:2])
    with pytest.raises(ChangeGap):  # nothing says what the stream held before
        online.changes.after(NO_CHANGES, 1)
    position = online.changes.position()
    assert online.changes.after(position, 1) == []
    online.catalogue.add(CATALOGUE[2:5])
    assert [change.id for change in online.changes.after(position, 1)] == ["i2", "i3", "i4"]
    made.client.xtrim("gaps:changes", maxlen=4, approximate=False)  # the last that was read is there still
    assert [change.id for change in online.changes.after(position, 1)] == ["i2", "i3", "i4"]
    made.client.xtrim("gaps:changes", maxlen=3, approximate=False)
    with pytest.raises(ChangeGap):
        online.changes.after(position, 1)
