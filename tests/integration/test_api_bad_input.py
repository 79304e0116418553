"""Bad input gets an answer that names field, value and rule; never a stack trace, never status 500."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.benchmarks.small_release import items
from tests.api_server import Installation, running, wait_until

REQUEST, FEEDBACK, ITEM = "/v1/recommendations", "/v1/feedback", "/v1/items/i1"


@pytest.fixture(scope="module")
def api(broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    catalogue = items(10)
    with Installation(broker, redis_url, tmp_path_factory.mktemp("home"), "bad") as installation:
        installation.online.catalogue.add(catalogue)
        installation.online.deployment.activate(installation.release(catalogue))
        with running(installation.config()) as client:
            yield client


def event(**changes: Any) -> dict[str, Any]:
    return {"events": [{"decision_id": "d", "item_id": "i", "type": "click", "event_id": "e", **changes}]}


@pytest.mark.parametrize(
    ("method", "path", "body", "field", "value", "rule"),
    [
        ("POST", REQUEST, {}, "user_id", {}, "Field required"),
        ("POST", REQUEST, {"user_id": 7}, "user_id", 7, "valid string"),
        ("POST", REQUEST, {"user_id": ""}, "user_id", "", "at least 1 character"),
        ("POST", REQUEST, {"user_id": "u" * 257}, "user_id", "u" * 200 + "...", "at most 256 characters"),
        ("POST", REQUEST, {"user_id": "u", "slate_size": 0}, "slate_size", 0, "greater than or equal to 1"),
        ("POST", REQUEST, {"user_id": "u", "slate_size": "5"}, "slate_size", "5", "valid integer"),
        ("POST", REQUEST, {"user_id": "u", "slate_size": 101}, "slate_size", 101, "at most serving.max_slate_size"),
        ("POST", REQUEST, {"user_id": "u", "slatesize": 1}, "slatesize", 1, "Extra inputs are not permitted"),
        ("POST", REQUEST, {"user_id": "u", "only": ["i", 5]}, "only.items.1", 5, "valid string"),
        ("POST", REQUEST, {"user_id": "u", "explain": 1}, "explain", 1, "valid boolean"),
        ("POST", FEEDBACK, {"events": []}, "events", "[]", "at least 1 item"),
        ("POST", FEEDBACK, event(value="2"), "events.0.value", "2", "valid number"),
        ("POST", FEEDBACK, event(value=True), "events.0.value", True, "valid number"),
        ("POST", FEEDBACK, event(value=-1e13), "events.0.value", -1e13, "greater than or equal to -1"),
        ("POST", FEEDBACK, event(time=-1), "events.0.time", -1, "greater than or equal to 0"),
        ("PUT", ITEM, {"available": "yes"}, "available", "yes", "valid boolean"),
        ("PUT", ITEM, {"categories": ["x"] * 65}, "categories", None, "at most 64 items"),
        ("PUT", "/v1/items/" + "i" * 257, {}, "id", "i" * 200 + "...", "1 to 256 characters"),
        ("PUT", "/v1/users/u", {"attributes": {"deep": {}}}, None, None, None),
    ],
)  # fmt: skip
def test_a_broken_rule_is_named(
    api: httpx.Client, method: str, path: str, body: Any, field: str | None, value: Any, rule: str | None
) -> None:
    response = api.request(method, path, json=body)
    assert response.status_code == 422
    detail = response.json()["details"][0]
    assert field is None or detail["field"] == field
    assert value is None or detail["value"] in (value, repr(value))
    assert rule is None or rule in detail["rule"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe{}",
        b'{"user_id": "\xff"}',
        b'{"user_id": "\\ud800"}',
        b'{"user_id": "u", "slate_size": NaN}',
        b'{"user_id": "u", "slate_size": 1e400}',
        b'{"user_id": "u", "slate_size": ' + b"9" * 5000 + b"}",
        b'{"user_id": "u", "context": {"x": NaN}}',
        b'{"user_id": "u", "context": {"x": Infinity}}',
        b"[" * 100_000,
        b"null",
        b'"text"',
    ],
)
def test_what_is_no_good_json_is_refused(api: httpx.Client, body: bytes) -> None:
    response = api.post(REQUEST, content=body)
    assert response.status_code == 422
    assert response.json()["details"][0]["rule"]


@pytest.mark.parametrize("value", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_a_value_that_is_not_finite_is_refused(api: httpx.Client, value: bytes) -> None:
    body = b'{"events":[{"decision_id":"d","item_id":"i","type":"click","event_id":"e","value":' + value + b"}]}"
    response = api.post(FEEDBACK, content=body)
    assert response.status_code == 422
    assert response.json()["details"][0]["field"] == "events.0.value"


def test_a_body_over_a_megabyte_is_refused(api: httpx.Client) -> None:
    assert api.post(REQUEST, content=b" " * 1_000_001).status_code == 413
    chunked = api.post(REQUEST, content=(b" " * 100_000 for _ in range(11)))
    assert chunked.status_code == 413
    assert "1000000 bytes" in chunked.json()["message"]


def test_unknown_paths_and_methods_are_answered_in_json(api: httpx.Client) -> None:
    assert api.get("/v2/recommendations").json()["error"] == "not_found"
    wrong = api.get(REQUEST)
    assert wrong.status_code == 405
    assert "/docs" in wrong.json()["message"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_user = st.text(min_size=1, max_size=5).filter(lambda text: text.encode(errors="ignore").decode() == text)
_known = st.fixed_dictionaries(
    {"user_id": _json | _user},
    optional={"slate_size": _json, "context": _json, "only": _json, "exclude": _json, "surface": _json},
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_known | _json)
def test_no_json_makes_the_server_fail(api: httpx.Client, body: Any) -> None:
    for method, path in [("POST", REQUEST), ("POST", FEEDBACK), ("PUT", ITEM)]:
        response = api.request(method, path, content=json.dumps(body))  # NaN, Infinity and lone surrogates included
        assert response.status_code in (200, 201, 422)
        if response.status_code == 422:
            assert response.json()["details"]


def test_a_key_is_asked_for_when_there_is_one(broker: str, redis_url: str, tmp_path: Path) -> None:
    with (
        Installation(broker, redis_url, tmp_path, "key") as installation,
        running(installation.config(api_key="sesame"), ready=False) as client,
    ):
        assert client.get("/healthz").status_code == 200
        for given_key in (None, "Bearer wrong", "Basic sesame", "sesame"):
            refused = client.get("/v1/items/i1", headers={"Authorization": given_key} if given_key else {})
            assert refused.status_code == 401
            assert "Bearer KEY" in refused.json()["message"]
        assert client.get("/v1/items/i1", headers={"Authorization": "Bearer sesame"}).status_code == 404


def test_behind_a_key_probes_are_open_and_say_no_more_than_yes_or_no(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    with (
        Installation(broker, redis_url, tmp_path, "probes") as installation,
        running(installation.config(api_key="sesame"), ready=False) as client,
    ):
        assert client.get("/healthz").status_code == 200
        closed = client.get("/readyz")
        assert closed.status_code == 503
        assert closed.json() == {"ready": False}
        key = {"Authorization": "Bearer sesame"}
        wait_until(lambda: "No release has been activated" in client.get("/readyz", headers=key).text)
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers=key).status_code == 200


def test_behind_a_key_a_browser_reads_the_documentation_with_the_key_as_password(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    with (
        Installation(broker, redis_url, tmp_path, "browser") as installation,
        running(installation.config(api_key="sesame:1"), ready=False) as client,
    ):
        for path in ("/docs", "/openapi.json"):
            asked = client.get(path)
            assert asked.status_code == 401
            assert asked.headers["WWW-Authenticate"].startswith("Basic ")
            assert client.get(path, auth=("whoever", "wrong")).status_code == 401
            assert client.get(path, auth=("whoever", "sesame:1")).status_code == 200
            assert client.get(path, headers={"Authorization": "Bearer sesame:1"}).status_code == 200
        assert client.get("/v1/items/i1", auth=("whoever", "sesame:1")).status_code == 401, "other sites could use it"
        ours = {"x-matchloop-page": "1"}  # what other sites cannot have a browser send
        assert client.get("/v1/items/i1", auth=("whoever", "sesame:1"), headers=ours).status_code == 404
        assert client.get("/v1/items/i1", headers=ours).status_code == 401


def test_the_documentation_can_be_switched_off(broker: str, redis_url: str, tmp_path: Path) -> None:
    with (
        Installation(broker, redis_url, tmp_path, "undocumented") as installation,
        running(installation.config(docs=False), ready=False) as client,
    ):
        assert {client.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")} == {404}
