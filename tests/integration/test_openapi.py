"""The API keeps what its description promises."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from infra.benchmarks.small_release import items
from online_serving.auth import OPEN
from tests.api_server import Installation, running

JSON = "application/json"


@pytest.fixture(scope="module")
def installation(broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    catalogue = items(10)
    with Installation(broker, redis_url, tmp_path_factory.mktemp("home"), "openapi") as made:
        made.online.catalogue.add(catalogue)
        made.online.deployment.activate(made.release(catalogue))
        yield made


@pytest.fixture(scope="module")
def api(installation: Installation) -> Iterator[httpx.Client]:
    with running(installation.config(max_slate_size=7)) as client:
        yield client


@pytest.fixture(scope="module")
def described(api: httpx.Client) -> dict[str, Any]:
    schema: dict[str, Any] = api.get("/openapi.json").json()
    return schema


OF_ONE = ("/v1/items/{id}", "/v1/users/{id}")


def operations(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, found) for path, methods in schema["paths"].items() for method, found in methods.items()]


def test_bodies_are_described_with_examples(described: dict[str, Any]) -> None:
    body = described["paths"]["/v1/recommendations"]["post"]["requestBody"]["content"][JSON]["schema"]
    assert body == {"$ref": "#/components/schemas/RecommendationRequest"}
    assert described["components"]["schemas"]["RecommendationRequest"]["examples"][0]["user_id"] == "42"
    assert "FilterBody" in described["components"]["schemas"]


def test_operations_have_stable_names(described: dict[str, Any]) -> None:
    assert sorted(operation["operationId"] for _, _, operation in operations(described)) == [
        *("delete_item", "erase_user", "get_item", "get_user", "healthz", "list_decisions", "list_items"),
        *("list_popular", "list_similar", "list_users", "merge_user", "parameters", "preview", "prometheus"),
        *("put_item", "put_items", "put_user", "readyz", "recommend", "recommend_many", "send_events"),
        *("send_feedback", "take_segment"),
    ]


def test_limits_that_are_settings_are_described(described: dict[str, Any]) -> None:
    models = described["components"]["schemas"]
    for model in ("RecommendationRequest", "PreviewRequest"):
        assert models[model]["properties"]["slate_size"]["anyOf"][0]["maximum"] == 7
    declared = ["click", "dislike", "like", "purchase", "view", "watch"]
    assert models["FeedbackEvent"]["properties"]["type"]["enum"] == declared
    (identity,) = described["paths"]["/v1/items/{id}"]["put"]["parameters"]
    assert (identity["schema"]["minLength"], identity["schema"]["maxLength"]) == (1, 256)


def test_without_a_key_none_is_described(described: dict[str, Any]) -> None:
    assert "securitySchemes" not in described["components"]
    assert all("401" not in operation["responses"] for _, _, operation in operations(described))


def test_a_key_is_described_where_it_is_asked_for(broker: str, redis_url: str, tmp_path: Path) -> None:
    with (
        Installation(broker, redis_url, tmp_path, "openapi-key") as installation,
        running(installation.config(api_key="sesame"), ready=False) as client,
    ):
        schema = client.get("/openapi.json", headers={"Authorization": "Bearer sesame"}).json()
        for path, method, operation in operations(schema):
            refused = client.request(method, path.replace("{id}", "x")).status_code == 401
            assert refused == (path not in OPEN), path
            assert ("401" in operation["responses"]) == refused, path
            assert ("security" in operation) == refused, path
    assert "security" not in schema


def test_a_wrong_method_is_answered_with_all_methods_of_the_path(api: httpx.Client, described: dict[str, Any]) -> None:
    for path, methods in described["paths"].items():
        answer = api.patch(path.replace("{id}", "x"), json={})
        assert answer.status_code == 405
        # What looks like a part of an item, or of a user, may be the end of an id.
        found = next(
            (described["paths"][of] | methods for of in OF_ONE if path.startswith(of.removesuffix("{id}"))), methods
        )
        assert answer.headers["Allow"] == ", ".join(sorted(method.upper() for method in found))


def test_every_operation_describes_what_is_refused_before_it(described: dict[str, Any]) -> None:
    for _, _, operation in operations(described):
        assert "400" in operation["responses"]
        if "requestBody" in operation:
            assert {"408", "413", "422", "503"} <= operation["responses"].keys()


def _number(whole: int, as_float: bool) -> int | float:
    """5.0 is whole in JSON Schema."""
    return float(whole) if as_float and abs(whole) < 2**53 else whole


def _examples(schema: dict[str, Any]) -> list[Any]:
    """Of a field whose language JSON Schema cannot describe."""
    return [] if "properties" in schema else schema.get("examples", [])


def _texts(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True)
    letters = st.characters(codec="utf-8")
    return st.text(letters, min_size=schema.get("minLength", 0), max_size=schema.get("maxLength"))


def values(schema: dict[str, Any], models: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What fits a schema, as far as the schemas of our bodies go."""
    if "$ref" in schema:
        return values(models[schema["$ref"].rpartition("/")[2]], models)
    if chosen := schema.get("enum") or _examples(schema):
        return st.sampled_from(chosen)
    if "anyOf" in schema:
        return st.one_of(*(values(option, models) for option in schema["anyOf"]))
    match schema["type"]:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            below = {schema["exclusiveMaximum"] - 1} if "exclusiveMaximum" in schema else set()
            whole = st.integers(schema.get("minimum"), min(below | {schema.get("maximum", 2**63 - 1)}))
            return st.builds(_number, whole, st.booleans())
        case "number":
            least, most, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
            bounds = (least if above is None else above, most)
            return st.floats(*bounds, exclude_min=above is not None, allow_nan=False, allow_infinity=False)
        case "string":
            return _texts(schema)
        case "array":
            inner = values(schema["items"], models)
            return st.lists(inner, min_size=schema.get("minItems", 0), max_size=min(schema.get("maxItems", 3), 3))
        case "object" if "properties" in schema:
            fields = {name: values(field, models) for name, field in schema["properties"].items()}
            required = set(schema.get("required", ()))
            return st.fixed_dictionaries(
                {name: fields[name] for name in sorted(required)},
                optional={name: field for name, field in fields.items() if name not in required},
            )
        case "object":
            names = values({"type": "string", **schema.get("propertyNames", {})}, models)
            return st.dictionaries(names, values(schema["additionalProperties"], models), max_size=3)
    raise AssertionError(f"no values for {schema}")


def test_what_fits_the_description_is_answered_as_described(api: httpx.Client, described: dict[str, Any]) -> None:
    models = described["components"]["schemas"]
    identities = values(described["paths"]["/v1/items/{id}"]["get"]["parameters"][0]["schema"], models)

    for path, method, operation in operations(described):
        taken = operation.get("requestBody", {"content": {JSON: {"schema": {"type": "null"}}}})
        bodies = values(taken["content"][JSON]["schema"], models)

        check = partial(_answered_as_described, api, method, path, operation["responses"].keys())

        @profile(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.tuples(st.just(check), identities, bodies))
        def answered(drawn: tuple[Callable[[str, Any], None], str, Any]) -> None:
            check, identity, body = drawn
            check(identity, body)

        answered()


def _answered_as_described(
    api: httpx.Client, method: str, path: str, statuses: Collection[str], identity: str, body: Any
) -> None:
    answer = api.request(method, path.replace("{id}", quote(identity, safe="")), json=body)
    assert str(answer.status_code) in statuses, answer.text
    assert answer.status_code < 300 or answer.status_code == 404, answer.text
