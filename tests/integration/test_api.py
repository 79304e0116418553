"""The HTTP API on real servers: what is answered, what the log then holds, what is never shown twice."""

import dataclasses
import itertools
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from feature_store.contracts.events import Decision, Erasure, Feedback, Merge, Profile
from feature_store.contracts.identity import Keyring
from feature_store.definitions import HistoryEvent
from infra.benchmarks.small_release import items
from online_serving.event_mapping import WebhookSettings
from streaming.catalogue_log import decode as decode_catalogue
from streaming.kafka import Reader
from tests.api_server import SECRET, Installation, events, running, wait_until
from tests.updaters import start_updater

CATALOGUE = items(60)


@pytest.fixture(scope="module")
def installation(broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(broker, redis_url, tmp_path_factory.mktemp("home"), "api") as made:
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(made.release(CATALOGUE))
        yield made


@pytest.fixture
def own_installation(
    broker: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Installation]:
    """An installation that no other test uses, with nothing in it."""
    with Installation(broker, redis_url, tmp_path, request.node.name[:30]) as made:
        yield made


@pytest.fixture(scope="module")
def api(installation: Installation) -> Iterator[httpx.Client]:
    with running(installation.config()) as client:
        yield client


def recommend(api: httpx.Client, user: str, **body: Any) -> dict[str, Any]:
    response = api.post("/v1/recommendations", json={"user_id": user, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def recommend_logged(api: httpx.Client, user: str, **body: Any) -> dict[str, Any]:
    """An answer whose decision the log has: on a busy machine some are late."""
    answers: list[dict[str, Any]] = []

    def logged() -> bool:
        answers.append(recommend(api, user, **body))
        return bool(answers[-1]["logged"])

    wait_until(logged)
    return answers[-1]


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["id"] for item in answer["items"]]


def test_an_answer_is_what_the_log_holds(api: httpx.Client, installation: Installation) -> None:
    answer = recommend_logged(api, "log", slate_size=4, surface="home", explain=True)
    assert answer["degraded"] == []
    assert [item["position"] for item in answer["items"]] == [1, 2, 3, 4]

    (decision,) = [e for e in events(installation) if isinstance(e, Decision) and e.id == answer["decision_id"]]
    assert decision.user == Keyring(SECRET).user_key("log")
    assert decision.surface == "home"
    assert decision.learns
    assert decision.items[: decision.shown] == ids(answer)
    assert decision.probabilities == [item["probability"] for item in answer["items"]]
    assert decision.mean[:4] == [item["score"] for item in answer["items"]]
    for k, item in enumerate(answer["items"]):
        connected = [str(c) for bit, c in enumerate(decision.clusters) if decision.edges[k] >> bit & 1]
        assert list(item["explanation"]["clusters"]) == connected
    assert "log" not in decision.user


def test_the_trace_of_a_request_is_in_the_answer_and_in_the_log(api: httpx.Client, installation: Installation) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    header = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    taken = api.post("/v1/recommendations", json={"user_id": "traced"}, headers=header)
    assert re.fullmatch(rf"00-{trace}-(?!b7ad6b7169203331)[0-9a-f]{{16}}-01", taken.headers["traceresponse"])
    own = api.post("/v1/recommendations", json={"user_id": "traced"}).headers["traceresponse"].split("-")[1]
    told = {"decision_id": taken.json()["decision_id"], "item_id": ids(taken.json())[0], "type": "click"}
    answer = api.post("/v1/feedback", json={"events": [{**told, "event_id": "1"}]}, headers=header)
    assert answer.headers["traceresponse"].startswith(f"00-{trace}-")
    user = Keyring(SECRET).user_key("traced")
    found = [e for e in events(installation) if isinstance(e, Decision | Feedback) and e.user == user]
    assert {e.trace for e in found if isinstance(e, Feedback)} == {trace}
    assert {e.trace for e in found if isinstance(e, Decision)} == {trace, own}

    refused = api.get("/nowhere", headers=header)
    assert (refused.status_code, refused.headers["traceresponse"][3:35]) == (404, trace)


def test_a_preview_is_what_is_best_and_leaves_no_trace(api: httpx.Client, installation: Installation) -> None:
    def preview(**more: Any) -> dict[str, Any]:
        found = api.post("/v1/recommendations:preview", json={"user_id": "previewed", "slate_size": 4, **more})
        assert found.status_code == 200, found.text
        answer: dict[str, Any] = found.json()
        return answer

    logged = len([e for e in events(installation) if isinstance(e, Decision)])
    first = preview()
    assert ids(preview()) == ids(first)
    scores = [item["score"] for item in first["items"]]
    assert scores == sorted(scores, reverse=True)
    for item in first["items"]:
        levels, clusters = item["explanation"]["levels"], item["explanation"]["clusters"]
        assert levels["edges"].keys() == clusters.keys()
        assert levels["deviation"] > 0
    assert len([e for e in events(installation) if isinstance(e, Decision)]) == logged
    assert api.get("/v1/users/previewed").status_code == 404

    shown = recommend_logged(api, "previewed", only=ids(first), slate_size=1)
    assert ids(shown)[0] not in ids(preview())
    assert ids(preview(repeat_shown=True)) == ids(first)
    nothing = preview(exclude=[item.id for item in CATALOGUE], repeat_shown=True)
    assert nothing["items"] == []
    assert nothing["rules"]["excluded"] >= len(CATALOGUE) - 1  # another test may have deleted the first
    assert "explanation" not in preview(explain=False)["items"][0]


def test_nothing_is_shown_twice_and_the_end_is_an_empty_slate(api: httpx.Client) -> None:
    seen: list[str] = []
    while slate := ids(recommend(api, "twice", slate_size=7)):
        seen += slate
    assert len(seen) == len(set(seen))
    assert set(seen) >= {item.id for item in CATALOGUE[1:]}  # another test may have deleted the first


def test_requests_at_once_for_one_user_share_no_item(api: httpx.Client) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: recommend(api, "crowd", slate_size=5), range(6)))
    shown = [item for answer in answers for item in ids(answer)]
    assert len(shown) == len(set(shown)) == 30


def test_filters(api: httpx.Client) -> None:
    only = recommend(api, "filters", only=["i3", "i4", "i5", "nothing of this name"], exclude=["i4"], slate_size=10)
    assert set(ids(only)) == {"i3", "i5"}
    space = recommend(api, "filters", only={"categories": ["space"]}, slate_size=50, explain=True)
    assert {int(name[1:]) % 3 for name in ids(space)} == {2}
    assert space["rules"]["not_in_only"] > 0


def test_feedback_reaches_the_log_with_the_events_of_a_user_in_one_record(
    api: httpx.Client, installation: Installation
) -> None:
    answer = recommend(api, "feedback", slate_size=3)
    sent = [
        {"decision_id": answer["decision_id"], "item_id": item, "type": kind, "event_id": f"{item}-{kind}"}
        for item, kind in zip(ids(answer), ["view", "click", "like"], strict=True)
    ]
    response = api.post("/v1/feedback", json={"events": sent})
    assert response.status_code == 202
    statuses = response.json()["events"]
    assert [status["status"] for status in statuses] == ["accepted"] * 3
    assert len({(status["partition"], status["offset"]) for status in statuses}) == 1
    logged = [e for e in events(installation) if isinstance(e, Feedback) and e.decision == answer["decision_id"]]
    assert [(e.item, e.type, e.value) for e in logged] == [(s["item_id"], s["type"], 1.0) for s in sent]
    assert all(e.user == Keyring(SECRET).user_key("feedback") for e in logged)


def test_feedback_on_a_decision_not_made_here(api: httpx.Client) -> None:
    genuine = recommend(api, "forged", slate_size=1)
    forged = Keyring(b"another installation").decision_id(Keyring(SECRET).user_key("forged"), 0)
    event = {"decision_id": forged, "item_id": "i1", "type": "click", "event_id": "f"}
    response = api.post("/v1/feedback", json={"events": [event]})
    assert response.status_code == 404
    assert "not made by this installation" in response.json()["message"]

    good = {**event, "decision_id": genuine["decision_id"], "item_id": ids(genuine)[0]}
    response = api.post("/v1/feedback", json={"events": [event, good]})
    assert response.status_code == 202
    assert [status["status"] for status in response.json()["events"]] == ["rejected", "accepted"]


def test_events_that_belong_to_no_recommendation_are_in_the_log_once_each(
    api: httpx.Client, installation: Installation
) -> None:
    bought = {"user_id": "buyer", "item_id": "i1", "type": "purchase", "value": 2, "time": 5, "event_id": "order"}
    played = {"user_id": "another", "item_id": "elsewhere", "type": "watch", "event_id": "order", "session_id": "s"}
    for _ in range(2):
        response = api.post("/v1/events", json={"events": [bought, played]})
        assert response.status_code == 202
        assert [status["status"] for status in response.json()["events"]] == ["accepted", "accepted"]
    keys = [Keyring(SECRET).user_key(user) for user in ("buyer", "another")]
    told = [e for e in events(installation) if isinstance(e, Feedback) and e.user in keys]
    assert len({e.decision for e in told}) == 2  # sent again under the same id
    assert {(e.user, e.item, e.type, e.value, e.session) for e in told} == {
        (keys[0], "i1", "purchase", 2.0, None),
        (keys[1], "elsewhere", "watch", 1.0, "s"),
    }
    assert {e.time for e in told if e.item == "i1"} == {5}

    refused = api.post("/v1/events", json={"events": [{**bought, "type": "sneeze"}]})
    assert refused.status_code == 422
    assert refused.json()["details"][0]["field"] == "events.0.type"


def test_an_undeclared_event_type_is_refused_with_the_declared_ones(api: httpx.Client) -> None:
    event = {"decision_id": "d", "item_id": "i", "type": "sneeze", "event_id": "e"}
    response = api.post("/v1/feedback", json={"events": [event]})
    assert response.status_code == 422
    (detail,) = response.json()["details"]
    assert detail["field"] == "events.0.type"
    assert detail["value"] == "sneeze"
    assert "click, dislike, like, purchase, view, watch" in detail["rule"]


def test_a_new_item_is_recommended_and_a_deleted_one_is_not(api: httpx.Client, installation: Installation) -> None:
    path = "/v1/items/new%2Fone ü"
    body = {"title": "Title 2", "categories": ["space"], "attributes": {"year": 1999, "hd": True}}
    assert api.get(path).status_code == 404
    assert api.put(path, json=body).status_code == 201
    assert api.put(path, json=body).status_code == 200
    wait_until(lambda: api.get(path).json()["servable"])
    always = {"available_from": None, "available_until": None}
    assert api.get(path).json() == {"id": "new/one ü", "available": True, "servable": True, **always, **body}
    assert ids(recommend(api, "curious", only=["new/one ü"])) == ["new/one ü"]

    found = recommend(api, "whole catalogue", slate_size=61, explain=True)
    (new,) = [item for item in found["items"] if item["id"] == "new/one ü"]
    assert "fresh" in new["source"]
    assert new["explanation"]["clusters"] != {} or new["explanation"]["bonus"] > 0

    assert api.put(path, json={**body, "available": False}).status_code == 200
    wait_until(lambda: not ids(recommend(api, "after", only=["new/one ü"])))
    assert api.delete(path).status_code == 204
    assert api.delete(path).status_code == 404
    assert api.delete("/v1/items/i0").status_code == 204
    wait_until(lambda: not ids(recommend(api, "after", only=["i0"])))

    reader = Reader(installation.broker, installation.kafka.topics.catalogue, {0: 0})
    changes = [decode_catalogue(record.value) for record in reader.poll(2000)]
    reader.close()
    assert [(change.id, change.item is None) for change in changes][-2:] == [("new/one ü", True), ("i0", True)]


def test_a_batch_of_items(api: httpx.Client) -> None:
    batch = [{"id": "b1", "title": "One"}, {"id": "b2", "available": False}]
    assert api.post("/v1/items:batch", json={"items": batch}).json() == {"created": 2, "replaced": 0}
    assert api.post("/v1/items:batch", json={"items": batch}).json() == {"created": 0, "replaced": 2}
    twice = [{"id": "b3", "title": "One"}, batch[0], {"id": "b3", "title": "Two"}]
    assert api.post("/v1/items:batch", json={"items": twice}).json() == {"created": 1, "replaced": 1}
    assert api.get("/v1/items/b3").json()["title"] == "Two"
    assert api.delete("/v1/items/b3").status_code == 204
    assert api.delete("/v1/items/b1").status_code == 204


@pytest.mark.parametrize("identity", ["tail\n", "two\nlines", "\n", "a/b?c#d&e=%20", 'ü "quoted", 中'])
def test_an_id_in_a_path_is_taken_whole(api: httpx.Client, identity: str) -> None:
    path = f"/v1/items/{quote(identity, safe='')}"
    assert api.put("/v1/items/tail", json={"title": "another one"}).status_code == 201
    assert api.put(path, json={"title": "this one"}).json()["id"] == identity
    assert api.get(path).json()["title"] == "this one"
    assert api.delete(path).status_code == 204
    assert api.get("/v1/items/tail").json()["title"] == "another one"
    assert api.delete("/v1/items/tail").status_code == 204


def test_a_user_can_be_described_and_forgotten(api: httpx.Client, installation: Installation) -> None:
    assert api.put("/v1/users/someone", json={"attributes": {"age": 31}}).status_code == 204
    answer = recommend_logged(api, "someone", context={"country": "NZ"}, slate_size=3)
    (decision,) = [e for e in events(installation) if isinstance(e, Decision) and e.id == answer["decision_id"]]
    assert decision.profile == ["age=5.1", "country=nz"]
    assert api.delete("/v1/users/someone%0A").status_code == 204  # another user, whose id ends with a line break
    unchanged = recommend(api, "someone", only=ids(answer))
    assert ids(unchanged) == []
    assert api.delete("/v1/users/someone").status_code == 204
    again = recommend(api, "someone", only=ids(answer))
    assert set(ids(again)) == set(ids(answer))  # what was shown to them is forgotten too


def test_what_is_stored_of_a_user_can_be_read_until_they_are_erased(
    api: httpx.Client, installation: Installation
) -> None:
    assert api.get("/v1/users/reader").status_code == 404
    api.put("/v1/users/reader", json={"attributes": {"age": 31}})
    stored = api.get("/v1/users/reader").json()
    assert {**stored, "profile_time": 0} == {
        "id": "reader", "profile": ["age=5.1"], "profile_time": 0, "history": 0, "history_time": None, "shown": 0,
    }  # fmt: skip
    shown = ids(recommend(api, "reader", slate_size=3))
    wait_until(lambda: api.get("/v1/users/reader").json()["shown"] == len(shown))
    assert api.delete("/v1/users/reader").status_code == 204
    assert api.get("/v1/users/reader").status_code == 404
    assert api.delete("/v1/users/reader").status_code == 204
    key = Keyring(SECRET).user_key("reader")
    (described,) = [e for e in events(installation) if isinstance(e, Profile) and e.user == key]
    assert (described.attributes, described.time) == ({"age": 31}, stored["profile_time"])
    assert len([e for e in events(installation) if isinstance(e, Erasure) and e.user == key]) == 2
    assert installation.online.users.erased()[key] >= described.time


def test_a_visitor_is_merged_with_a_user_once(api: httpx.Client, installation: Installation) -> None:
    keyring, online = Keyring(SECRET), installation.online.users
    visitor, user = keyring.user_key("visit/81"), keyring.user_key("logs in")
    shown = ids(recommend(api, "visit/81", slate_size=3))
    wait_until(lambda: api.get("/v1/users/visit%2F81").status_code == 200)
    online.add_history([(visitor, HistoryEvent("i1", "click+", 5))])  # by an updater
    for _ in range(2):
        assert api.post("/v1/users/logs in:merge", json={"visitor_id": "visit/81"}).status_code == 204
        held = api.get("/v1/users/logs in").json()
        assert (held["history"], held["history_time"], held["shown"]) == (1, 5, len(shown))
        assert api.get("/v1/users/visit%2F81").status_code == 404
    assert not set(shown) & set(ids(recommend(api, "logs in", slate_size=3)))
    assert api.post("/v1/users/logs in:merge", json={"visitor_id": "logs in"}).status_code == 204
    merges = [event for event in events(installation) if isinstance(event, Merge)]
    assert [(merge.user, merge.account) for merge in merges] == [(visitor, user)] * 2


def test_calls_in_segments_form_are_events_merges_and_attributes(
    own_installation: Installation,
) -> None:
    made, keyring = own_installation, Keyring(SECRET)
    made.online.deployment.activate(made.release(CATALOGUE))
    track = {"type": "track", "anonymousId": "cookie", "timestamp": "2026-01-31T12:00:00Z"}
    ordered = {"order_id": "7", "products": [{"product_id": "i1"}, {"product_id": 2}, {"sku": "no id"}]}
    calls = [
        {**track, "event": "Product Viewed", "messageId": "m1", "properties": {"product_id": "i5", "price": 7}},
        {**track, "event": "Order Completed", "messageId": "m2", "properties": ordered},
        {**track, "event": "Song Played", "messageId": "m3"},
        {"type": "page", "anonymousId": "cookie", "messageId": "m4", "name": "Home"},
        {"type": "identify", "userId": "anna", "anonymousId": "cookie", "traits": {"age": 31, "email": "a@b.c"}},
        {"type": "identify", "anonymousId": "cookie", "traits": {"age": 31}},
        {"type": "alias", "userId": "anna", "previousId": "old anna"},
        {**track, "event": "Product Viewed", "messageId": "m5", "properties": {}},
        {"type": "alias", "userId": "anna"},
        {"type": "identify", "userId": "ben", "traits": {"age": []}},
        7,
    ]
    config = dataclasses.replace(made.config(), webhooks=WebhookSettings(traits=("age",)))
    counted = 'matchloop_webhook_calls_total{outcome="rejected"}'  # by all tests of this process
    with running(config) as api:

        def rejected() -> float:
            return next(
                (float(line.split()[1]) for line in api.get("/metrics").text.splitlines() if line.startswith(counted)),
                0.0,
            )

        before = rejected()
        for _ in range(2):  # sent again: the events come with the same ids
            answer = api.post("/v1/webhooks/segment", json={"batch": calls})
            assert answer.status_code == 202
            assert {**answer.json(), "reasons": []} == {"accepted": 4, "passed_over": 3, "rejected": 4, "reasons": []}
        assert len(answer.json()["reasons"]) == 4
        single = api.post("/v1/webhooks/segment", json=calls[0]).json()
        assert (single["accepted"], single["rejected"]) == (1, 0)
        for body in (b"{", b"", b"[]", b"\xff"):
            assert api.post("/v1/webhooks/segment", content=body).json()["rejected"] == 1
        assert rejected() == before + 12
        assert api.get("/v1/users/anna").json()["profile"] == ["age=5.1"]
        assert api.get("/v1/users/ben").status_code == 404
    told = [event for event in events(made) if isinstance(event, Feedback)]
    assert {(event.user, event.type, event.item, event.id, event.time) for event in told} == {
        (keyring.user_key("cookie"), *rest, 1_769_860_800_000)
        for rest in (("click", "i5", "m1"), ("purchase", "i1", "m2/0"), ("purchase", "2", "m2/1"))
    }
    merges = {(event.user, event.account) for event in events(made) if isinstance(event, Merge)}
    assert merges == {(keyring.user_key(name), keyring.user_key("anna")) for name in ("cookie", "old anna")}


def test_probes_and_metrics(api: httpx.Client) -> None:
    recommend(api, "metrics")
    assert api.get("/healthz").json() == {"status": "ok"}
    ready = api.get("/readyz").json()
    assert ready["ready"] is True
    assert len(ready["offsets"]) == 2
    made_with = {k: ready[k] for k in ("release", "namespace", "offsets")}
    assert api.get("/v1/parameters").json() == {**made_with, "created": 0}
    text = api.get("/metrics").text
    assert 'matchloop_http_requests_total{route="/v1/recommendations",status="200"}' in text
    assert 'matchloop_stage_seconds_count{stage="rank"}' in text


def test_feedback_changes_what_is_served_within_a_second_or_so(installation: Installation) -> None:
    stop = threading.Event()
    with running(installation.config()) as api:
        learning = start_updater(
            installation.kafka,
            installation.broker,
            installation.client,
            installation.redis_settings,
            installation.home,
            stop,
        )
        try:
            answer = recommend(api, "learner", slate_size=1, only=["i9"], explain=True)
            before = answer["items"][0]["explanation"]
            sent = {"decision_id": answer["decision_id"], "item_id": "i9", "type": "click", "event_id": "e"}
            (status,) = api.post("/v1/feedback", json={"events": [sent]}).json()["events"]
            bought = {"user_id": "learner", "item_id": "i8", "type": "purchase", "event_id": "e"}
            (status,) = api.post("/v1/events", json={"events": [bought]}).json()["events"]
            wait_until(lambda: api.get("/readyz").json()["offsets"][status["partition"]] > status["offset"])
            known = api.get("/v1/users/learner").json()["history"]
            (item,) = recommend(api, "another", slate_size=1, only=["i9"], explain=True)["items"]
            after = item["explanation"]
        finally:
            stop.set()
            learning.join()
    assert known == 2  # what was clicked, and what was bought
    assert after["predicted"] == before["predicted"]  # both users are unknown: the offline model sees no difference
    assert after["mean"] > before["mean"]
    assert after["bonus"] != before["bonus"]


def test_a_release_is_swapped_under_traffic_without_failures(own_installation: Installation) -> None:
    installation = own_installation
    installation.online.catalogue.add(CATALOGUE)
    first, second = installation.release(CATALOGUE, seed=1), installation.release(items(80), seed=2)
    installation.online.deployment.activate(first)
    with running(installation.config()) as api, ThreadPoolExecutor(3) as pool:
        done = threading.Event()

        def visit(number: int) -> list[str]:
            served: list[str] = []
            while not done.is_set():
                served.append(recommend(api, f"visitor {number}-{len(served)}")["release"])
            return served

        visits = [pool.submit(visit, number) for number in range(3)]
        try:
            wait_until(lambda: recommend(api, "watcher")["release"] == first.release)
            installation.online.deployment.activate(second)
            wait_until(lambda: recommend(api, "watcher")["release"] == second.release)
            assert api.get("/readyz").json()["items"] == len(CATALOGUE)  # 20 more in the release, none in the catalogue
            installation.online.deployment.activate(first)  # rollback
            wait_until(lambda: recommend(api, "watcher")["release"] == first.release)
        finally:
            done.set()
        for visited in visits:
            releases = visited.result()
            swaps = sum(a != b for a, b in itertools.pairwise(releases))
            assert swaps <= 2
            assert set(releases) <= {first.release, second.release}


def test_without_a_release_it_says_so(own_installation: Installation) -> None:
    with running(own_installation.config(), ready=False) as api:
        assert api.get("/healthz").status_code == 200
        ready = api.get("/readyz")
        assert ready.status_code == 503
        assert "matchloop train" in ready.json()["message"]
        response = api.post("/v1/recommendations", json={"user_id": "early"})
        assert response.status_code == 503
        assert "matchloop train" in response.json()["message"]
