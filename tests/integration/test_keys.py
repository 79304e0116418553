"""Keys over HTTP: what each may do, how often, and who changed what; followed while the API runs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from feature_store.contracts.events import Merge
from feature_store.contracts.identity import Keyring
from infra.benchmarks.small_release import items
from online_serving.event_mapping import WebhookSettings
from online_serving.keys import KeyFile, Scope
from tests.api_server import SECRET, Installation, events, running, wait_until
from tests.command_line import matchloop

CATALOGUE = items(10)
ASKED = {"user_id": "u"}
BOUGHT = {"events": [{"user_id": "u", "item_id": "i1", "type": "purchase", "event_id": "1"}]}


@pytest.fixture
def installation(broker: str, redis_url: str, tmp_path: Path) -> Iterator[Installation]:
    with Installation(broker, redis_url, tmp_path, "keys") as made:
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(made.release(CATALOGUE))
        yield made


def sending(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def noted(home: Path) -> list[dict[str, object]]:
    return [json.loads(line) for file in sorted((home / "audit").iterdir()) for line in file.read_text().splitlines()]


def test_a_key_may_do_what_its_scopes_say_and_is_followed(installation: Installation) -> None:
    home = {"MATCHLOOP_HOME": str(installation.home)}
    with running(installation.config()) as api:
        assert api.post("/v1/recommendations", json=ASKED).status_code == 200  # nobody has made a key yet
        shop = sending(
            matchloop("keys", "create", "shop", "--scope", "recommend", "--scope", "feedback", **home).strip()
        )
        wait_until(lambda: api.post("/v1/recommendations", json=ASKED).status_code == 401)
        assert api.post("/v1/recommendations", json=ASKED, headers=shop).status_code == 200
        assert api.post("/v1/events", json=BOUGHT, headers=shop).status_code == 202
        secret = shop["Authorization"].removeprefix("Bearer ")
        for sent, status in ({"auth": (secret, "")}, 202), ({"headers": shop}, 202), ({"auth": ("", secret)}, 401):
            assert api.post("/v1/webhooks/segment", json={}, **sent).status_code == status
        assert api.post("/v1/events", json=BOUGHT, auth=(secret, "")).status_code == 401
        refused = api.put("/v1/items/i1", json={"title": "Stolen"}, headers=shop)
        assert refused.status_code == 403
        assert "has the scopes recommend, feedback; this needs catalogue" in refused.json()["message"]
        assert api.delete("/v1/users/u", headers=shop).status_code == 403
        assert "offsets" not in api.get("/readyz", headers=shop).json()
        assert api.get("/openapi.json", headers=shop).status_code == 200

        made = json.loads(matchloop("keys", "create", "boss", "--scope", "admin", "--json", **home))
        boss = sending(made["key"])
        wait_until(lambda: api.get("/metrics", headers=boss).status_code == 200)
        assert "offsets" in api.get("/readyz", headers=boss).json()
        assert api.put("/v1/items/i1", json={"title": "Ours"}, headers=boss).status_code == 200
        assert api.delete("/v1/users/u", headers=boss).status_code == 204
        assert made["id"] in matchloop("keys", "list", **home)
        matchloop("keys", "revoke", made["id"], **home)
        wait_until(lambda: api.get("/metrics", headers=boss).status_code == 401)

    entries = [(entry["what"], entry["status"]) for entry in noted(installation.home)]
    user = Keyring(SECRET).user_key("u")
    assert [entry for entry in entries if entry[1] is not None] == [
        ("PUT /v1/items/i1", 403), (f"DELETE /v1/users/{user}", 403),
        ("PUT /v1/items/i1", 200), (f"DELETE /v1/users/{user}", 204),
    ]  # fmt: skip
    assert [str(what).split(" ")[:2] for what, status in entries if status is None] == [
        ["keys", "create"], ["keys", "create"], ["keys", "revoke"],
    ]  # fmt: skip


def test_the_key_of_a_page_merges_nobody(installation: Installation) -> None:
    file = KeyFile(installation.home / "keys.json")
    _, page = file.create("page", [Scope.RECOMMEND, Scope.FEEDBACK], 0)
    _, server = file.create("server", [Scope.FEEDBACK, Scope.MERGE], 0)
    identify = {"type": "identify", "userId": "anna", "anonymousId": "cookie", "traits": {"age": 31}}
    alias = {"type": "alias", "userId": "anna", "previousId": "cookie"}
    calls = {"batch": [identify, alias, {**identify, "anonymousId": None}]}
    config = replace(installation.config(), webhooks=WebhookSettings(traits=("age",)))
    with running(config) as api:

        def told(secret: str) -> tuple[list[object], int]:
            merged = api.post("/v1/users/anna:merge", json={"visitor_id": "cookie"}, headers=sending(secret))
            by_header = api.post("/v1/webhooks/segment", json=calls, headers=sending(secret)).json()
            by_write_key = api.post("/v1/webhooks/segment", json=calls, auth=(secret, "")).json()
            assert by_header == by_write_key
            return list(by_header.values()), merged.status_code

        refused = "The call merges a visitor with a user: this needs a key with the scope merge as well."
        assert told(page) == ([1, 0, 2, [refused]], 403)
        assert not [event for event in events(installation) if isinstance(event, Merge)]
        assert told(server) == ([3, 0, 0, []], 204)
    keyring = Keyring(SECRET)
    merges = [event for event in events(installation) if isinstance(event, Merge)]
    assert {(merge.user, merge.account) for merge in merges} == {(keyring.user_key("cookie"), keyring.user_key("anna"))}


def test_calls_are_signed_where_there_is_a_shared_secret(installation: Installation) -> None:
    config = replace(installation.config(), webhooks=WebhookSettings(secret=SecretStr("sesame")))
    body = b"{}"
    with running(config) as api:

        def status(*signature: bytes) -> int:
            headers = [(b"X-Signature", one) for one in signature]
            return api.post("/v1/webhooks/segment", content=body, headers=headers).status_code

        # printf '{}' | openssl dgst -sha1 -hmac sesame
        assert status(b"8d3e3efcf66c87529309426731d7635136905bdc") == 202
        assert status(b"0" * 40) == status(b"\xe9") == status() == 401


def test_pages_of_named_origins_may_call_the_api(installation: Installation) -> None:
    _, secret = KeyFile(installation.home / "keys.json").create("page", [Scope.RECOMMEND], 0)
    with running(installation.config(cors_origins=("https://shop.example",))) as api:
        asking = {"Access-Control-Request-Method": "POST"}

        def preflight(origin: str, header: str) -> httpx.Response:
            headers = {**asking, "Origin": origin, "Access-Control-Request-Headers": header}
            return api.options("/v1/recommendations", headers=headers)

        allowed = preflight("https://shop.example", "authorization")
        assert (allowed.status_code, allowed.headers["Access-Control-Allow-Origin"]) == (200, "https://shop.example")
        assert preflight("https://shop.example", "x-matchloop-page").status_code == 400
        assert "Access-Control-Allow-Origin" not in preflight("https://elsewhere.example", "authorization").headers
        for key, status in ((secret, 200), ("wrong", 401)):
            headers = {**sending(key), "Origin": "https://shop.example"}
            answer = api.post("/v1/recommendations", json=ASKED, headers=headers)
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"


def test_too_many_requests_are_refused_until_they_are_fewer(installation: Installation) -> None:
    file = KeyFile(installation.home / "apart.json")
    _, slow = file.create("slow", [Scope.RECOMMEND], 0, rate="2/day")
    _, free = file.create("free", [Scope.RECOMMEND], 0)
    with running(installation.config(keys_file=file.path, rate_limit="1000/second")) as api:
        answers: list[httpx.Response] = []
        for _ in range(3):
            answers.append(api.get("/v1/popular", headers=sending(slow)))
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert int(answers[2].headers["Retry-After"]) > 0
        assert "more than 2/day" in answers[2].json()["message"]
        assert api.get("/v1/popular", headers=sending(free)).status_code == 200
