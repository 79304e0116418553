"""matchloop-client without an API: what it sends again and what not, what it says of failures, and what it keeps to
itself. Both clients are asked the same."""

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from matchloop_client import (
    ApiError,
    AsyncClient,
    BrokenRule,
    Client,
    EventStatus,
    FeedbackEvent,
    NoAnswer,
    NotFound,
    RecommendationAnswer,
    UserEvent,
    operations,
)
from matchloop_client.answers import read
from matchloop_client.calls import Attempts

ADDRESS = "http://api.example"
KEY = "mlk-very-secret"
CLICK = FeedbackEvent("d1", "i1", "click")
TAKEN = httpx.Response(202, json={"events": [{"event_id": CLICK.event_id, "status": "accepted"}]})
BUSY = httpx.Response(503, headers={"Retry-After": "0"}, json={"error": "overloaded", "message": "Busy."})
SLATE = {
    "decision_id": "d1", "logged": True, "next": None, "variant": "", "release": "r", "path": "full", "degraded": [],
    "parameter_offsets": [3], "items": [
        {"id": "i1", "position": 1, "score": 0.5, "source": "index", "probability": 0.25, "explanation": {
            "predicted": 0.4, "mean": 0.5, "bonus": 0.0, "clusters": {"7": 1.0}, "levels": None}}],
}  # fmt: skip


class Api:
    """Answers requests with what it is given, the last for ever, and keeps them."""

    def __init__(self, *replies: httpx.Response | Exception) -> None:
        self._replies = list(replies)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, Exception):
            raise reply
        return httpx.Response(reply.status_code, headers=reply.headers, content=reply.content)

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests]


def blocking(api: Api, operation: str, *arguments: Any, **settings: Any) -> Any:
    with Client(ADDRESS, transport=httpx.MockTransport(api), **settings) as client:
        return getattr(client, operation)(*arguments)


def awaited(api: Api, operation: str, *arguments: Any, **settings: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(ADDRESS, transport=httpx.MockTransport(api), **settings) as client:
            return await getattr(client, operation)(*arguments)

    return asyncio.run(run())


Calling = Callable[..., Any]


@pytest.fixture(params=[blocking, awaited])
def call(request: pytest.FixtureRequest) -> Calling:
    calling: Calling = request.param
    return calling


@pytest.fixture(autouse=True)
def _no_key_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MATCHLOOP_API_KEY", raising=False)


@pytest.mark.parametrize("status", [429, 503])
def test_what_the_api_did_not_do_is_sent_again_as_it_was(call: Calling, status: int) -> None:
    api = Api(httpx.Response(status, headers={"Retry-After": "0"}, json={"error": "busy", "message": ""}), TAKEN)
    (taken,) = call(api, "send_feedback", CLICK).events
    first, second = api.bodies()
    assert first == second == {"events": [
        {"decision_id": "d1", "item_id": "i1", "type": "click", "value": 1.0, "time": CLICK.time,
         "event_id": CLICK.event_id}]}  # fmt: skip
    assert taken == EventStatus(CLICK.event_id, "accepted")


def test_a_lost_answer_is_asked_for_again_where_doing_it_twice_is_doing_it_once(call: Calling) -> None:
    lost = httpx.ReadTimeout("slow")
    feedback = Api(lost, TAKEN)
    call(feedback, "send_feedback", CLICK)
    assert len({body["events"][0]["event_id"] for body in feedback.bodies()}) == 1
    slates = Api(lost, httpx.Response(200, json=SLATE))
    with pytest.raises(NoAnswer, match="POST /v1/recommendations was not answered: ReadTimeout slow"):
        call(slates, "recommend", "u")
    assert len(slates.requests) == 1


def test_what_never_arrived_is_sent_again(call: Calling) -> None:
    api = Api(httpx.ConnectError("nobody there"), httpx.Response(200, json=SLATE))
    assert call(api, "recommend", "u").items[0].id == "i1"
    assert len(api.requests) == 2


@pytest.mark.parametrize(
    ("reply", "settings"),
    [
        (BUSY, {"retry_seconds": 0}),
        (httpx.Response(429, headers={"Retry-After": "3600"}, json={"error": "busy", "message": ""}), {}),
        (httpx.Response(422, json={"error": "invalid_input", "message": "No."}), {}),
        (httpx.Response(500, json={"error": "failed", "message": "No."}), {}),
    ],
    ids=["no repetitions wanted", "a pause longer than wanted", "a broken rule", "a bug"],
)
def test_what_is_sent_once(call: Calling, reply: httpx.Response, settings: dict[str, Any]) -> None:
    api = Api(reply)
    with pytest.raises(ApiError) as refused:
        call(api, "send_feedback", CLICK, **settings)
    assert refused.value.status == reply.status_code
    assert len(api.requests) == 1


def test_pauses_double_are_drawn_and_begin_with_what_the_api_asks_for() -> None:
    drawn = []
    for _ in range(50):
        attempts = Attempts(repeatable=True, seconds=1000)
        pauses = [attempts.pause(httpx.ReadTimeout("")) for _ in range(7)]
        for pause, longest in zip(pauses, [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0], strict=True):
            assert pause is not None
            assert 0 <= pause <= longest
            drawn.append(pause)
        asked = attempts.pause(httpx.Response(503, headers={"Retry-After": "7"}))
        assert asked is not None
        assert 7 <= asked <= 9
    assert len(set(drawn)) > 300


def test_an_error_says_status_code_message_and_each_broken_rule(call: Calling) -> None:
    rule = {"field": "slate_size", "value": 0, "rule": "must be at least 1"}
    content = {"error": "invalid_input", "message": "slate_size: must be at least 1", "details": [rule]}
    with pytest.raises(ApiError) as refused:
        call(Api(httpx.Response(422, json=content)), "recommend", "u")
    error = refused.value
    assert (error.status, error.code, error.message) == (422, "invalid_input", "slate_size: must be at least 1")
    assert error.details == [BrokenRule("slate_size", 0, "must be at least 1")]
    assert str(error) == (
        "POST /v1/recommendations was answered 422 invalid_input: slate_size: must be at least 1; "
        "slate_size is 0: must be at least 1"
    )


def test_nothing_of_this_id_is_an_error_of_its_own(call: Calling) -> None:
    with pytest.raises(NotFound) as refused:
        call(Api(httpx.Response(404, json={"error": "not_found", "message": "No item."})), "get_item", "x")
    assert refused.value.events is None


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, text="<html>Welcome"),
        httpx.Response(502, text="<html>Bad gateway"),
        httpx.Response(500, json=["no", "object"]),
        httpx.Response(200, json={**SLATE, "items": [{"id": "i1"}]}),
        httpx.Response(200, json={**SLATE, "items": None}),
    ],
    ids=["a page", "a proxy's page", "a list", "a field is missing", "no list"],
)
def test_answers_of_somebody_else_are_no_surprise(call: Calling, reply: httpx.Response) -> None:
    with pytest.raises(ApiError) as refused:
        call(Api(reply), "recommend", "u")
    assert (refused.value.status, refused.value.code) == (reply.status_code, "unreadable")
    assert repr(reply.text[:10])[1:-1] in str(refused.value)


def test_what_a_newer_api_adds_is_left_out() -> None:
    (item,) = read(RecommendationAnswer, {**SLATE, "new": 1}).items
    assert item.explanation is not None
    assert (item.explanation.clusters, item.explanation.levels) == ({"7": 1.0}, None)


def test_the_key_is_sent_and_shown_to_nobody(call: Calling, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(TAKEN)
    call(api, "send_feedback", CLICK, api_key=f"{KEY}\n")
    call(api, "send_feedback", CLICK)
    monkeypatch.setenv("MATCHLOOP_API_KEY", KEY)
    call(api, "send_feedback", CLICK)
    call(api, "send_feedback", CLICK, api_key="")
    assert [request.headers.get("Authorization") for request in api.requests] == [
        f"Bearer {KEY}", None, f"Bearer {KEY}", None,
    ]  # fmt: skip
    client = Client("https://user:password@api.example", KEY)
    assert repr(client) == "Client(URL('https://user:[secure]@api.example'))"
    assert KEY not in repr(vars(client)) + repr(client._http.headers)


@pytest.mark.parametrize("key", ["a\nb", "schlüssel", "\x00"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_said(key: str) -> None:
    with pytest.raises(ValueError, match="MATCHLOOP_API_KEY") as refused:
        Client(ADDRESS, key)
    assert key not in str(refused.value)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://api.example", "http://", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="begins with http"):
        AsyncClient(url)


def test_an_address_may_have_a_path() -> None:
    api = Api(TAKEN)
    with Client("http://shop.example/recommend/", transport=httpx.MockTransport(api)) as client:
        client.send_feedback(CLICK)
    assert api.requests[0].url == "http://shop.example/recommend/v1/feedback"


def test_both_clients_have_the_same_operations() -> None:
    for name, operation in inspect.getmembers(operations, inspect.isfunction):
        if operation.__module__ == operations.__name__ and not name.startswith("_"):
            for client in (Client, AsyncClient):
                assert inspect.signature(getattr(client, name)) == inspect.signature(operation)


def accepting(request: httpx.Request) -> httpx.Response:
    """As the API, of decisions `d...`."""
    events = json.loads(request.content)["events"]
    statuses = [
        {"event_id": one["event_id"], "status": "accepted" if one.get("decision_id", "d")[0] == "d" else "rejected"}
        for one in events
    ]
    if all(one["status"] == "rejected" for one in statuses):
        return httpx.Response(404, json={"error": "unknown_decision", "message": "No.", "events": statuses})
    return httpx.Response(202, json={"events": statuses})


EVENTS: list[FeedbackEvent | UserEvent] = [
    *(FeedbackEvent("d1", "i1", "view") for _ in range(5)),
    FeedbackEvent("forged", "i1", "view"),
    *(UserEvent("u", "i1", "purchase") for _ in range(2)),
    FeedbackEvent("forged", "i1", "view"),
]
SENT = [("/v1/feedback", 4), ("/v1/feedback", 2), ("/v1/events", 2), ("/v1/feedback", 1)]


def test_a_batch_sends_when_it_is_full_and_at_its_end() -> None:
    sent: list[tuple[str, int]] = []

    def api(request: httpx.Request) -> httpx.Response:
        sent.append((request.url.path, len(json.loads(request.content)["events"])))
        return accepting(request)

    with Client(ADDRESS, transport=httpx.MockTransport(api)) as client, client.batch(size=4) as batch:
        for event in EVENTS:
            batch.add(event)
        assert sent == SENT[:3]
        batch.flush()
        assert (sent, batch.waiting) == (SENT, [])
        batch.add(EVENTS[0])
    assert sent == [*SENT, ("/v1/feedback", 1)]
    assert [one.event_id for one in batch.rejected] == [EVENTS[5].event_id, EVENTS[8].event_id]


def test_a_batch_of_asyncio_does_the_same() -> None:
    sent: list[tuple[str, int]] = []

    def api(request: httpx.Request) -> httpx.Response:
        sent.append((request.url.path, len(json.loads(request.content)["events"])))
        return accepting(request)

    async def run() -> list[str]:
        client = AsyncClient(ADDRESS, transport=httpx.MockTransport(api))
        async with client, client.batch(size=4) as batch:
            for event in EVENTS:
                await batch.add(event)
        return [one.event_id for one in batch.rejected]

    assert asyncio.run(run()) == [EVENTS[5].event_id, EVENTS[8].event_id]
    assert sent == SENT


def test_what_a_batch_could_not_send_goes_with_the_next() -> None:
    api = Api(BUSY, httpx.ReadTimeout("slow"), TAKEN)
    with Client(ADDRESS, transport=httpx.MockTransport(api), retry_seconds=0) as client:
        batch = client.batch()
        batch.add(CLICK)
        for kind in (ApiError, NoAnswer):
            with pytest.raises(kind):
                batch.flush()
            assert batch.waiting == [CLICK]
        batch.close()
    assert batch.waiting == []
    assert len(api.bodies()) == 3
    assert len({body["events"][0]["event_id"] for body in api.bodies()}) == 1


@pytest.mark.parametrize("size", [0, 1001])
def test_batches_that_the_api_would_refuse_cannot_be(size: int) -> None:
    with Client(ADDRESS) as client, pytest.raises(ValueError, match="1 to 1,000"):
        client.batch(size)
