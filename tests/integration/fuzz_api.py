"""The whole API under thousands of cases made from its own description: nothing fails, and nothing is answered that is
not described. `make fuzz` runs it, `make test` only the smaller test_openapi.py and test_api_bad_input.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from infra.benchmarks.small_release import items
from online_serving.keys import KeyFile, Scope
from tests.api_server import Installation, running, wait_until

CASES, AT_ONCE = 5_000, 25
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Scope, str]]:
    """A home with a key of each of two scopes."""
    home = tmp_path_factory.mktemp("home")
    file = KeyFile(home / "keys.json")
    return home, {scope: file.create(scope, [scope], now=0)[1] for scope in (Scope.ADMIN, Scope.RECOMMEND)}


@pytest.fixture(scope="module")
def api(broker: str, redis_url: str, keys: tuple[Path, dict[Scope, str]]) -> Iterator[httpx.Client]:
    home, secrets = keys
    catalogue = items(10)
    with Installation(broker, redis_url, home, "fuzz") as made:
        made.online.catalogue.add(catalogue)
        made.online.deployment.activate(made.release(catalogue, list_length=3))
        with running(made.config(), ready=False) as client:
            client.headers["Authorization"] = f"Bearer {secrets[Scope.ADMIN]}"
            wait_until(lambda: client.get("/readyz").status_code == 200)
            yield client


@pytest.mark.timeout(7_200)
@pytest.mark.parametrize(("scope", "cases"), [(Scope.ADMIN, CASES), (Scope.RECOMMEND, CASES // 10)])
def test_every_operation_answers_as_described(
    api: httpx.Client, keys: tuple[Path, dict[Scope, str]], scope: Scope, cases: int
) -> None:
    """Half of the cases fit the description, the others break it where it can be broken."""
    headers = {"Authorization": f"Bearer {keys[1][scope]}"}
    schema = schemathesis.openapi.from_dict(api.get("/openapi.json").json())
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    drawn = [(one.label, one.as_strategy(generation_mode=mode)) for one in operations for mode in GenerationMode]
    problems, sent = {}, 0
    while sent < cases:
        for label, strategy in drawn:

            @settings(max_examples=AT_ONCE, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=strategy)
            def answered(case: Any) -> None:
                nonlocal sent
                sent += 1
                case.call_and_validate(base_url=str(api.base_url), headers=headers, checks=CHECKS)

            try:
                answered()
            except Unsatisfiable:
                continue  # nothing of it can be broken
            except FailureGroup as failures:
                problems[label] = failures.exceptions
    assert not problems, problems
