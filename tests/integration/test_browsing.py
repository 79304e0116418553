"""Titles with items, pages, batches, similar and popular items, over HTTP."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from feature_store.contracts.catalogue import Item
from infra.benchmarks.small_release import items
from online_serving.settings import Surface
from tests.api_server import Installation, running, wait_until

CATALOGUE = items(60)
CATALOGUE[5] = Item(id="i5", title="Title 5", categories=["space"], attributes={"year": 1999, "hd": True})
CATALOGUE[6] = Item(id="i6", title="Title 6", categories=["drama"], available=False)


@pytest.fixture(scope="module")
def api(broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with Installation(broker, redis_url, tmp_path_factory.mktemp("home"), "browsing") as installation:
        installation.online.catalogue.add(CATALOGUE)
        installation.online.deployment.activate(installation.release(CATALOGUE, list_length=4))
        mail = Surface.model_validate({"slate_size": 3, "filter": 'category == "drama"', "boosts": {"has(year)": 9.0}})
        top = Surface(slate_size=4, caps={"category": 2}, pins={"i9": 1, "i4": 2}, diversity=0.5)
        surfaces = {"mail": mail, "top": top}
        config = installation.config(excluded_categories=("comedy",), repeat_days=0, surfaces=surfaces)
        with running(config) as client:
            yield client


def ids(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["id"] for item in response.json()["items"]]


def test_answers_say_what_is_wanted_of_their_items(api: httpx.Client) -> None:
    asked = {"user_id": "reader", "only": ["i5", "i8"], "with": ["title", "categories", "year", "nothing"]}
    answer = api.post("/v1/recommendations", json=asked).json()
    said = {item["id"]: item for item in answer["items"]}
    assert said["i5"].items() >= {"title": "Title 5", "categories": ["space"], "attributes": {"year": 1999}}.items()
    assert said["i8"].items() >= {"title": "Title 8", "categories": ["space"]}.items()
    assert "attributes" not in said["i8"]
    assert answer["degraded"] == []
    (bare,) = api.post("/v1/recommendations", json={**asked, "only": ["i5"], "with": []}).json()["items"]
    assert "title" not in bare


def test_pages_repeat_nothing_and_end(api: httpx.Client) -> None:
    """... although items may be shown again here."""
    asked = {"user_id": "leafing", "slate_size": 12, "explain": True}
    seen: list[str] = []
    rules: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = api.post("/v1/recommendations", json={**asked, "cursor": cursor}).json()
        seen += [item["id"] for item in answer["items"]]
        rules.append(answer["rules"].get("earlier_pages", 0))
        cursor = answer["next"]
    assert len(seen) == len(set(seen)) == 39  # of 60 a third is comedy, and one is not available
    assert rules == [0, 12, 24, 36]
    assert api.post("/v1/recommendations", json={**asked, "cursor": "0"}).status_code == 422


def test_a_batch_is_as_many_requests(api: httpx.Client) -> None:
    requests = [{"user_id": f"user {n}", "slate_size": 1 + n % 3, "with": ["title"]} for n in range(40)]
    answers = api.post("/v1/recommendations:batch", json={"requests": requests}).json()["answers"]
    assert [len(answer["items"]) for answer in answers] == [1 + n % 3 for n in range(40)]
    assert len({answer["decision_id"] for answer in answers}) == 40
    assert all(item["title"].startswith("Title") for answer in answers for item in answer["items"])
    refused = api.post(
        "/v1/recommendations:batch", json={"requests": [requests[0], {"user_id": "u", "slate_size": 101}]}
    )
    assert refused.status_code == 422
    assert refused.json()["details"][0]["field"] == "requests.1.slate_size"


def test_similar_items_are_those_that_people_went_to_and_then_the_nearest(api: httpx.Client) -> None:
    """The list of an item names the four behind it; comedy (i4, i7) and what is not available (i6) is left out."""
    found = ids(api.get("/v1/items/i3/similar", params={"count": 10}))
    assert found[0] == "i5"
    assert len(found) == len(set(found)) == 10
    assert not {"i3", "i4", "i6", "i7"} & set(found)
    assert ids(api.get("/v1/items/i3/similar", params={"count": 2, "exclude": ["i5"]}))[0] != "i5"
    drama = ids(api.get("/v1/items/i3/similar", params={"count": 50, "category": "drama"}))
    assert {int(name[1:]) % 3 for name in drama} == {0}
    assert len(drama) == 20 - 2  # without itself and what is not available
    (first,) = api.get("/v1/items/i3/similar", params={"count": 1, "with": ["title", "hd"]}).json()["items"]
    assert first == {"id": "i5", "title": "Title 5", "attributes": {"hd": True}}


def test_similar_items_of_something_new_or_sold_out_or_unknown(api: httpx.Client) -> None:
    assert api.put("/v1/items/new%2Fsimilar", json={"title": "Title 3"}).status_code == 201
    wait_until(lambda: api.get("/v1/items/new%2Fsimilar").json()["servable"])  # its id ends like the route
    assert len(ids(api.get("/v1/items/new%2Fsimilar/similar", params={"count": 3}))) == 3
    assert len(ids(api.get("/v1/items/i6/similar"))) == 5
    assert api.get("/v1/items/nothing/similar").status_code == 404
    api.delete("/v1/items/new%2Fsimilar")


def test_popular_items_come_in_their_order(api: httpx.Client) -> None:
    """Earlier items of the release are more popular."""
    assert ids(api.get("/v1/popular", params={"count": 4})) == ["i0", "i2", "i3", "i5"]
    assert ids(api.get("/v1/popular", params={"count": 3, "category": "drama"})) == ["i0", "i3", "i9"]
    several = api.get("/v1/popular", params={"category": ["drama", "space"], "exclude": ["i0"], "with": "title"})
    assert several.json()["items"][0] == {"id": "i2", "title": "Title 2"}
    assert ids(api.get("/v1/popular", params={"category": "comedy"})) == []
    assert ids(api.get("/v1/popular", params={"category": "of nothing"})) == []


def test_filters_over_attributes(api: httpx.Client) -> None:
    described = 'hd and 1990 <= year < 2000 or category == "drama"'
    asked = {"user_id": "picky", "filter": described, "slate_size": 50, "explain": True}
    answer = api.post("/v1/recommendations", json=asked).json()
    assert {item["id"] for item in answer["items"]} == {f"i{n}" for n in range(0, 60, 3) if n != 6} | {"i5"}
    assert answer["rules"]["filtered"] == 19  # of 39 that may be shown, a year or a category says so of 20
    assert ids(api.get("/v1/popular", params={"filter": described, "count": 3})) == ["i0", "i3", "i5"]
    assert set(ids(api.get("/v1/items/i0/similar", params={"filter": "has(year)"}))) == {"i5"}

    batch = {"requests": [asked, {**asked, "filter": "year <"}]}
    for refused, field in (
        (api.post("/v1/recommendations", json={**asked, "filter": "year <"}), "filter"),
        (api.post("/v1/recommendations:batch", json=batch), "requests.1.filter"),
        (api.get("/v1/popular", params={"filter": "year <"}), "filter"),
    ):
        assert refused.status_code == 422
        (detail,) = refused.json()["details"]
        assert detail == {"field": field, "value": "year <", "rule": "line 1, column 7: invalid syntax"}


def test_items_outside_their_window_are_in_no_answer(api: httpx.Client) -> None:
    now = int(time.time() * 1000)
    item = {"title": "Title 3", "categories": ["season"]}
    for name, window in (("over", {"available_until": now}), ("coming", {"available_from": now + 3_600_000})):
        assert api.put(f"/v1/items/{name}", json={**item, **window}).json().items() >= window.items()
    assert api.put("/v1/items/on", json={**item, "available_until": now + 3_600_000}).status_code == 201
    wait_until(lambda: api.get("/v1/items/on").json()["servable"])
    assert [api.get(f"/v1/items/{name}").json()["servable"] for name in ("over", "coming")] == [False, False]
    asked = {"user_id": "u", "only": {"categories": ["season"]}, "explain": True}
    answer = api.post("/v1/recommendations", json=asked).json()
    assert [item["id"] for item in answer["items"]] == ["on"]
    assert answer["rules"]["outside_window"] == 2
    assert ids(api.get("/v1/popular", params={"category": "season"})) == ["on"]
    assert ids(api.get("/v1/items/i0/similar", params={"category": "season"})) == ["on"]
    refused = api.put("/v1/items/never", json={**item, "available_from": 9, "available_until": 9})
    assert refused.status_code == 422
    assert "available_from 9 is not before available_until 9" in refused.json()["message"]
    for name in ("over", "coming", "on"):
        api.delete(f"/v1/items/{name}")


def test_a_surface_stands_for_what_requests_do_not_say(api: httpx.Client) -> None:
    def asking(**said: object) -> dict[str, Any]:
        found: dict[str, Any] = api.post("/v1/recommendations", json={"user_id": "s", "explain": True, **said}).json()
        return found

    mail = asking(surface="mail")
    assert [int(item["id"][1:]) % 3 for item in mail["items"]] == [0, 0, 0]
    assert [item["id"] for item in asking(surface="mail", slate_size=50, filter="has(year)")["items"]] == []
    alone = {"only": ["i5", "i8"], "slate_size": 2}
    plain, boosted = (
        {item["id"]: item["score"] for item in asking(**alone, **said)["items"]}
        for said in ({}, {"boosts": {"has(year)": 0.01}})
    )
    assert boosted["i5"] == pytest.approx(plain["i5"] * 0.01)
    assert boosted["i8"] == pytest.approx(plain["i8"])
    items = asking(surface="top")["items"]
    pinned = items[0]
    assert (pinned["id"], pinned["source"], pinned["probability"]) == ("i9", "pinned", 1)
    assert pinned["explanation"]["levels"] is None
    assert [item["position"] for item in items] == [1, 2, 3, 4]
    assert len({int(item["id"][1:]) % 3 for item in items[:3]}) == 2, "two of each category, and no comedy"
    assert asking(surface="top", pins={"i3": 1}, caps={"category": 1})["items"][0]["id"] == "i3"
    assert len(asking(surface="top", caps={"category": 1})["items"]) == 2
    clash = api.post("/v1/recommendations", json={"user_id": "s", "pins": {"i3": 1, "i5": 1}})
    assert clash.json()["details"][0]["rule"] == "place 1 is that of 'i3' and of 'i5': give each its own"
    refused = api.post("/v1/recommendations", json={"user_id": "s", "boosts": {"year <": 2}})
    assert refused.json()["details"] == [
        {"field": "boosts", "value": "year <", "rule": "line 1, column 7: invalid syntax"}
    ]


def test_the_catalogue_is_listed_page_by_page(broker: str, redis_url: str, tmp_path: Path) -> None:
    catalogue = items(700)  # more than Redis keeps in one piece
    with Installation(broker, redis_url, tmp_path, "listed") as installation:
        installation.online.catalogue.add(catalogue)
        with running(installation.config(), ready=False) as api:
            found: list[dict[str, Any]] = []
            pages = 0
            cursor: str | None = "0"
            while cursor is not None:
                page = api.get("/v1/items", params={"cursor": cursor, "count": 100}).json()
                found, cursor, pages = [*found, *page["items"]], page["next"], pages + 1
            assert {item["id"]: item["title"] for item in found} == {item.id: item.title for item in catalogue}
            assert pages > 3
            assert api.get("/v1/items", params={"cursor": "-1"}).status_code == 422


@pytest.mark.parametrize(
    ("query", "field"), [({"count": 0}, "count"), ({"count": 101}, "count"), ({"size": 3}, "size")]
)
def test_a_query_that_breaks_a_rule_is_refused_as_a_body_is(
    api: httpx.Client, query: dict[str, int], field: str
) -> None:
    refused = api.get("/v1/popular", params=query)
    assert refused.status_code == 422
    assert refused.json()["details"][0]["field"] == field
