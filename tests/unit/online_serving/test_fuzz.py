"""Bytes from anywhere: bodies, calls of webhooks and releases are taken, or refused in words. The log:
streaming/test_hostile_log."""

import asyncio
import contextlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.requests import Request

from feature_store.contracts.errors import InvalidInput, ReleaseRefused
from feature_store.contracts.manifest import MANIFEST, read_manifest
from infra.benchmarks.small_release import build_release, items
from online_serving.bodies import read
from online_serving.errors import BodyTooLarge, BrokenRules, error_content
from online_serving.event_mapping import SHOP
from online_serving.schemas import FeedbackRequest, ItemBody, ItemsRequest, RecommendationRequest, UserBody
from online_serving.snapshot import Snapshot

BODIES: list[type[BaseModel]] = [RecommendationRequest, FeedbackRequest, ItemBody, ItemsRequest, UserBody]
WORDS = ["user_id", "slate_size", "only", "exclude", "items", "categories", "events", "attributes", "context", "title",
         "id", "type", "value", "time", "decision_id", "event_id", "item_id"]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(), inner, max_size=5),
    max_leaves=12,
)


def as_bytes(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # a number or a letter that JSON does not have
        return repr(value).encode(errors="surrogatepass")


@given(st.sampled_from(BODIES), st.binary(max_size=200) | JSON.map(as_bytes), st.integers(1, 64))
@example(RecommendationRequest, b'{"user_id": "\\ud800"}', 8)
@example(RecommendationRequest, b"[" * 100_000, 65_536)
@example(ItemsRequest, b'{"items": [' + b" " * 1_000_001, 65_536)
def test_a_body_is_read_or_refused_field_by_field(model: type[BaseModel], content: bytes, part: int) -> None:
    parts = [content[at : at + part] for at in range(0, len(content), part)] or [b""]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    try:
        found = asyncio.run(read(Request({"type": "http", "headers": []}, receive), model))
    except BodyTooLarge as error:
        assert "larger than" in str(error)  # noqa: PT017 - most bodies are refused otherwise
    except BrokenRules as error:
        details = orjson.loads(error_content("invalid_input", str(error), error.details))["details"]
        assert all(detail["field"] and detail["rule"] for detail in details)
    else:
        assert isinstance(found, model)


PART = JSON | st.sampled_from(["42", "Order Completed", "Product Viewed", "0001-01-01T00:00:00+14:00", 2**63])
CALL = st.fixed_dictionaries(
    {"type": PART, "event": PART, "userId": PART},
    optional={
        "properties": PART | st.fixed_dictionaries({"products": st.lists(st.fixed_dictionaries({"product_id": PART}))}),
        "timestamp": PART | st.datetimes(timezones=st.timezones()).map(str),
        "messageId": PART,
    },
)


@given(CALL)
def test_a_call_of_a_webhook_is_read_or_refused_in_words(call: dict[str, Any]) -> None:
    try:
        found = SHOP.events(call, "place")
    except InvalidInput as error:
        assert "from" in str(error)  # noqa: PT017 - most calls are passed over
    else:
        assert all(event.user_id and event.item_id and event.event_id for event in found)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("releases")
    return home / build_release(home, catalogue=items(12), list_length=3)


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """Cut off, made longer, or with other bytes in it."""
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    piece = data.draw(st.binary(min_size=1, max_size=8))
    match data.draw(st.sampled_from(["cut", "longer", "other"])):
        case "cut":
            return content[:at]
        case "longer":
            return content[:at] + piece + content[at:]
        case _:
            return content[:at] + piece + content[at + len(piece) :]


@given(data=st.data())
def test_a_release_that_was_changed_anywhere_is_refused(release: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(release.iterdir())))
    whole = path.read_bytes()
    changed = damaged(whole, data)
    if changed == whole:
        return
    try:
        path.write_bytes(changed)
        with pytest.raises(ReleaseRefused):
            Snapshot.load(release.parent, release.name, [])
    finally:
        path.write_bytes(whole)


@given(data=st.data())
def test_a_manifest_that_somebody_else_sealed_is_read_or_refused(
    release: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = damaged((release / MANIFEST).read_bytes(), data)
    folder = tmp_path_factory.getbasetemp() / sha256(content).hexdigest()[:16]
    folder.mkdir(exist_ok=True)
    (folder / MANIFEST).write_bytes(content)
    with contextlib.suppress(ReleaseRefused):
        read_manifest(folder)
