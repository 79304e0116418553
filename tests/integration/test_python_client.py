"""matchloop-client at a running API: every operation, the examples people begin with, what the API says of itself."""

import asyncio
import contextlib
import dataclasses
import inspect
import io
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import httpx
import pytest

import matchloop_client
from feature_store.contracts.identity import Keyring
from infra.benchmarks.small_release import items
from matchloop_client import (
    ApiError,
    AsyncClient,
    Boosting,
    Client,
    FeedbackEvent,
    Filter,
    Item,
    NotFound,
    RecommendationRequest,
    UserEvent,
    operations,
)
from matchloop_client.calls import Call
from tests.api_server import SECRET, Installation, running, wait_until

ROOT = Path(__file__).parents[2]
KEY = "sesame"
CATALOGUE = items(30)
ODD_IDS = ["..", ".", "a/b similar?#%2F", "line\nbreak", "naïve/similar"]
# Operations of the API that are not for products.
NOT_FOR_CLIENTS = {"healthz", "parameters", "preview", "prometheus", "readyz", "take_segment"}
CALLED_OTHERWISE = {"Filter": "FilterBody", "Item": "ItemWithId"}


@pytest.fixture(scope="module")
def address(broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Installation(broker, redis_url, tmp_path_factory.mktemp("home"), "python-client") as installation:
        installation.online.catalogue.add(CATALOGUE)
        installation.online.deployment.activate(installation.release(CATALOGUE))
        with running(installation.config(api_key=KEY)) as api:
            yield str(api.base_url)


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, KEY, timeout=150) as made:
        yield made


def test_recommendations_with_rules_explanations_and_titles(client: Client) -> None:
    answer = client.recommend(
        "reader", slate_size=4, exclude=["i0"], only=Filter(categories=["drama"]), with_=["title"], explain=True
    )
    assert len(answer.items) == 4
    assert all(int(item.id[1:]) % 3 == 0 and item.id != "i0" for item in answer.items)
    first = answer.items[0]
    assert first.title == f"Title {first.id[1:]}"
    assert first.explanation is not None
    assert first.explanation.levels is not None
    assert answer.rules is not None
    assert answer.next is not None
    second = client.recommend("reader", slate_size=4, cursor=answer.next)
    assert not {item.id for item in answer.items} & {item.id for item in second.items}
    assert client.recommend("picky", filter='category == "space" and has(year)', boosts={"has(year)": 2.0}).items == []
    ended = client.recommend(
        "picky", boosts={"not has(year)": 2.0, "not has(price)": Boosting(3.0, until=1)}, explain=True
    )
    assert {one.explanation.levels.boost for one in ended.items if one.explanation and one.explanation.levels} == {2.0}


def test_many_requests_at_once(client: Client) -> None:
    requests = [RecommendationRequest(f"user {n}", slate_size=n, with_=["title"]) for n in (1, 2)]
    assert [len(answer.items) for answer in client.recommend_many(requests).answers] == [1, 2]


def test_feedback_and_events_have_a_status_each(client: Client) -> None:
    answer = client.recommend("clicker")
    click = FeedbackEvent(answer.decision_id, answer.items[0].id, "click")
    forged = FeedbackEvent("forged", "i1", "click")
    accepted, rejected = client.send_feedback(click, forged).events
    assert (accepted.event_id, accepted.status) == (click.event_id, "accepted")
    assert (rejected.status, rejected.offset) == ("rejected", None)
    with pytest.raises(NotFound) as refused:
        client.send_feedback(forged)
    assert refused.value.code == "unknown_decision"
    assert refused.value.events is not None
    (bought,) = client.send_events(UserEvent("clicker", "i2", "purchase", value=9.5, session_id="s")).events
    assert bought.status == "accepted"
    with client.batch() as batch:
        for event in (click, forged, UserEvent("clicker", "i3", "view")):
            batch.add(event)
    assert (batch.waiting, [one.event_id for one in batch.rejected]) == ([], [forged.event_id])


def test_what_breaks_a_rule_is_refused_by_field(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        client.recommend("u", slate_size=0)
    assert (refused.value.status, refused.value.code) == (422, "invalid_input")
    assert [rule.field for rule in refused.value.details] == ["slate_size"]
    with pytest.raises(ApiError) as refused:
        client.list_popular(filter="year <")
    assert refused.value.details[0].rule == "line 1, column 7: invalid syntax"


def test_without_the_key_nothing_is_answered(address: str) -> None:
    with Client(address, "wrong") as client, pytest.raises(ApiError) as refused:
        client.list_items()
    assert (refused.value.status, refused.value.code) == (401, "unauthorised")


def test_popular_and_similar_items(client: Client) -> None:
    assert [item.id for item in client.list_popular(count=2, category=["drama"], exclude=["i0"]).items] == ["i3", "i6"]
    (near,) = client.list_similar("i1", count=1, with_=["title", "categories"]).items
    assert near.title == f"Title {near.id[1:]}"
    with pytest.raises(NotFound):
        client.list_similar("nothing")


@pytest.mark.parametrize("name", ODD_IDS)
def test_items_come_and_go_under_any_id(client: Client, name: str) -> None:
    stored = client.put_item(
        name, title="Odd", categories=["drama"], attributes={"year": 1999, "hd": True}, available_from=1
    )
    assert (stored.id, stored.attributes, stored.available) == (name, {"year": 1999, "hd": True}, True)
    assert (stored.available_from, stored.available_until) == (1, None)
    wait_until(lambda: client.get_item(name).servable)
    assert len(client.list_similar(name, count=2).items) == 2
    client.delete_item(name)
    for gone in (client.get_item, client.delete_item):
        with pytest.raises(NotFound):
            gone(name)


def test_items_in_batches_and_pages(client: Client) -> None:
    batch = [Item("b1", title="One"), Item("b2", available=False), Item("i1", title="Title 1", categories=["comedy"])]
    answer = client.put_items(batch)
    assert (answer.created, answer.replaced) == (2, 1)
    found, page = [], client.list_items(count=10)
    while page.next is not None:
        found += page.items
        page = client.list_items(count=10, cursor=page.next)
    assert {item.id for item in [*found, *page.items]} >= {"b1", "b2", *(item.id for item in CATALOGUE)}
    for name in ("b1", "b2"):
        client.delete_item(name)


@pytest.mark.parametrize("name", ODD_IDS)
def test_users_come_and_go_under_any_id(client: Client, name: str) -> None:
    client.put_user(name, attributes={"country": "NZ"})
    stored = client.get_user(name)
    assert (stored.id, stored.profile) == (name, ["country=nz"])
    client.merge_user(name, visitor_id=f"visitor {name}")
    page = client.list_users(count=10)
    found = page.users
    while page.next is not None:
        page = client.list_users(count=10, cursor=page.next)
        found += page.users
    assert Keyring(SECRET).user_key(name) in {user.key for user in found}
    client.erase_user(name)
    with pytest.raises(NotFound):
        client.get_user(name)


def test_the_same_in_asyncio(address: str) -> None:
    async def use() -> None:
        async with AsyncClient(address, KEY, timeout=150) as client:
            answers = await asyncio.gather(*(client.recommend(f"task {n}", slate_size=3) for n in range(20)))
            assert len({answer.decision_id for answer in answers}) == 20
            async with client.batch(size=7) as batch:
                for answer in answers:
                    await batch.add(FeedbackEvent(answer.decision_id, answer.items[0].id, "like"))
            assert (batch.waiting, batch.rejected) == ([], [])
            with pytest.raises(NotFound):
                await client.get_item("nothing")

    asyncio.run(use())


@pytest.mark.parametrize("document", ["README.md", "clients/python/README.md"])
def test_examples_do_what_they_say(address: str, document: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCHLOOP_API_KEY", KEY)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    assert "http://localhost:8080" in example
    assert len(example.splitlines()) <= 20
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(example.replace("http://localhost:8080", address), document, "exec"), {})
    assert len(said.getvalue().splitlines()) == 3


# The API's description and the classes, in one form.

JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


def of_schema(schema: Mapping[str, Any]) -> object:
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "anyOf" in schema:
        return frozenset(map(of_schema, schema["anyOf"]))
    if schema.get("type") == "array":
        return ("array", of_schema(schema["items"]))
    if schema.get("type") == "object":
        return ("object", of_schema(schema["additionalProperties"]))
    return schema.get("type", "anything")


def of_hint(hint: Any) -> object:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return frozenset(map(of_hint, inner))
    if origin in (list, Sequence):
        return ("array", of_hint(inner[0]))
    if origin in (dict, Mapping):
        return ("object", of_hint(inner[1]))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return CALLED_OTHERWISE.get(hint.__name__, hint.__name__)
    return "anything" if hint is Any else JSON_TYPES[hint]


def without_null(kind: object) -> object:
    """What a field that may be left out is when it is not."""
    if isinstance(kind, frozenset):
        left = kind - {"null"}
        return next(iter(left)) if len(left) == 1 else left
    return kind


@pytest.fixture(scope="module")
def described(address: str) -> dict[str, Any]:
    schema: dict[str, Any] = httpx.get(f"{address}/openapi.json", headers={"Authorization": f"Bearer {KEY}"}).json()
    return schema


CLASSES = [one for one in vars(matchloop_client).values() if dataclasses.is_dataclass(one)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_classes_are_as_described(described: dict[str, Any], kind: type) -> None:
    schema = described["components"]["schemas"][CALLED_OTHERWISE.get(kind.__name__, kind.__name__)]
    hints = get_type_hints(kind)
    ours = {name.rstrip("_"): without_null(of_hint(hint)) for name, hint in hints.items()}
    assert ours == {name: without_null(of_schema(said)) for name, said in schema["properties"].items()}
    assert dataclasses.is_dataclass(kind)
    for field in dataclasses.fields(kind):
        left_out = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        made_here = field.name == "event_id" and kind in (FeedbackEvent, UserEvent)
        assert left_out == (made_here or field.name.rstrip("_") not in schema.get("required", ())), field.name


def test_operations_are_as_described(described: dict[str, Any]) -> None:
    models = described["components"]["schemas"]
    ours = dict(
        inspect.getmembers(operations, lambda one: inspect.isfunction(one) and one.__module__ == operations.__name__)
    )
    ours = {name: operation for name, operation in ours.items() if not name.startswith("_")}
    theirs = {
        operation["operationId"]: (method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    assert ours.keys() == theirs.keys() - NOT_FOR_CLIENTS
    for name, operation in ours.items():
        method, path, said = theirs[name]
        call = called(operation)
        assert (call.method.lower(), call.path) == (method, path.replace("{id}", "x"))
        taken = [parameter["name"] for parameter in said.get("parameters", ())]
        if "requestBody" in said:
            body = said["requestBody"]["content"]["application/json"]["schema"]
            taken += models[of_schema(body)]["properties"]
        _, *arguments = inspect.signature(operation).parameters
        assert sorted(argument.rstrip("_") for argument in arguments) == sorted(taken)
        (good,) = {status for status in said["responses"] if status.startswith("2")} - {"201"}
        answers = said["responses"][good].get("content")
        assert of_hint(call.answer) == (of_schema(answers["application/json"]["schema"]) if answers else "null")


def called(operation: Callable[..., Call[Any]]) -> Call[Any]:
    """With an id or a user x, and nothing else that can be left out."""
    given = {"id": "x", "user_id": "x", "visitor_id": "y", "requests": (), "items": (), "attributes": {}}
    _, *parameters = inspect.signature(operation).parameters.values()
    required = [one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_POSITIONAL]
    return operation(None, **{name: given[name] for name in required})
