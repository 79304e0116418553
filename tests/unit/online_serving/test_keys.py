"""Keys at rest, as a process follows them, and what each may ask for."""

import hashlib
import json
from pathlib import Path

import pytest

from feature_store.contracts.clock import ManualClock
from feature_store.contracts.errors import InvalidInput
from online_serving.auth import Rates, scopes_for
from online_serving.keys import KeyFile, Keys, Scope


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "home" / "keys.json")


def accepted(file: KeyFile, single: str | None = None, required: bool = False, now: int = 1_000) -> Keys:
    return Keys(single, file.path, required, ManualClock(now), look_seconds=0.0)


def test_only_a_hash_of_a_key_is_kept(file: KeyFile) -> None:
    made, secret = file.create("shop", [Scope.RECOMMEND], 5)
    other, _ = file.create("job", [Scope.CATALOGUE, Scope.FEEDBACK], 6, expires=9, rate="10/minute")
    assert made.digest == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in file.path.read_text()
    assert file.read() == [made, other]
    assert len({made.id, other.id}) == 2
    assert file.revoke(made.id) == made
    assert file.read() == [other]
    with pytest.raises(InvalidInput, match=f"There is no key '{made.id}'"):
        file.revoke(made.id)


@pytest.mark.parametrize("content", ["", "{}", '{"keys": [{"id": "a"}]}', "[1]"])
def test_a_file_that_holds_no_keys_is_refused_and_left_alone(file: KeyFile, content: str) -> None:
    file.path.parent.mkdir()
    file.path.write_text(content)
    with pytest.raises(InvalidInput, match=r"keys\.json is not a file of keys"):
        file.create("shop", [Scope.ADMIN], 5)
    assert file.path.read_text() == content


def test_a_process_follows_the_file(file: KeyFile) -> None:
    known = accepted(file)
    before = known.required
    made, secret = file.create("shop", [Scope.RECOMMEND], 5)
    assert [before, known.required] == [False, True]
    assert known.of(secret.encode()) == made
    assert known.of(b"") is known.of(secret.encode()[:-1]) is known.of(made.digest.encode()) is None
    _, other = file.create("another", [Scope.ADMIN], 6)
    file.revoke(made.id)
    assert known.of(secret.encode()) is None
    assert known.of(other.encode()) is not None


def test_what_is_broken_changes_nothing_and_what_is_gone_opens_nothing(file: KeyFile) -> None:
    made, secret = file.create("shop", [Scope.RECOMMEND], 5)
    known = accepted(file)
    assert known.of(secret.encode()) == made
    file.path.write_text("half of a fi")
    assert known.of(secret.encode()) == made
    file.path.unlink()
    assert known.of(secret.encode()) is None
    assert known.required


def test_a_key_expires(file: KeyFile) -> None:
    _, secret = file.create("shop", [Scope.RECOMMEND], 5, expires=1_000)
    assert accepted(file, now=999).of(secret.encode()) is not None
    assert accepted(file, now=1_000).of(secret.encode()) is None


def test_the_key_of_the_settings_may_everything_without_a_file(file: KeyFile) -> None:
    known = accepted(file, single="sesame")
    assert known.required
    found = known.of(b"sesame")
    assert found is not None
    assert all(found.may(scope) for scope in Scope)
    _, secret = file.create("shop", [Scope.RECOMMEND], 5)
    assert known.of(secret.encode()) is not None
    assert known.of(b"sesame") == found


def test_a_file_that_the_settings_name_is_required_before_it_is_there(file: KeyFile) -> None:
    assert accepted(file, required=True).required
    assert accepted(file, required=True).of(b"") is None


@pytest.mark.parametrize(
    ("requests", "scopes"),
    [
        (["POST /v1/recommendations", "POST /v1/recommendations:batch", "GET /v1/popular"], {"recommend"}),
        (["GET /v1/items/5", "GET /v1/items/5/similar", "HEAD /v1/items/5"], {"recommend", "catalogue"}),
        (["PUT /v1/items/5", "DELETE /v1/items/a/b", "POST /v1/items:batch"], {"catalogue"}),
        (["POST /v1/feedback", "POST /v1/events", "POST /v1/webhooks/segment"], {"feedback"}),
        (["PUT /v1/users/5", "PUT /v1/users/5:merge"], {"feedback"}),
        (["POST /v1/users/5:merge", "POST /v1/users/a/b:merge"], {"merge"}),
        (["GET /v1/users/5", "DELETE /v1/users/5", "GET /v1/parameters", "GET /metrics", "GET /"], {"admin"}),
        (["POST /v1/feedbacks", "GET /v2/recommendations", "GET /v1/users", "GET /v1/decisions"], {"admin"}),
    ],
)
def test_what_no_scope_names_needs_an_admin(requests: list[str], scopes: set[str]) -> None:
    for request in requests:
        method, path = request.split()
        assert scopes_for(method, path) == scopes, request


def test_requests_are_counted_by_key(file: KeyFile) -> None:
    slow, _ = file.create("slow", [Scope.ADMIN], 5, rate="2/day")
    other, _ = file.create("other", [Scope.ADMIN], 5)
    rates = Rates("3/day")
    assert [rates.wait(slow) is None for _ in range(3)] == [True, True, False]
    assert [rates.wait(other) is None for _ in range(4)] == [True, True, True, False]
    assert 0 < (rates.wait(slow) or 0) <= 86_400
    assert Rates(None).wait(other) is None


def test_the_file_says_what_it_holds_in_words(file: KeyFile) -> None:
    made, _ = file.create("shop", [Scope.RECOMMEND], 5)
    assert json.loads(file.path.read_text())["keys"] == [
        {"id": made.id, "name": "shop", "scopes": ["recommend"], "digest": made.digest, "created": 5, "expires": None,
         "rate": None}
    ]  # fmt: skip
