"""The TypeScript client: its own tests in Node, its example at a running API, its types beside what the API says."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.benchmarks.small_release import items
from tests.api_server import Installation, running

CLIENT = Path(__file__).parents[2] / "clients" / "typescript"
NODE = shutil.which("node")
KEY = "sesame"
CATALOGUE = items(10)


def _node_is_new_enough() -> bool:
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout if NODE else "v0."
    return int(version.removeprefix("v").partition(".")[0]) >= 20


in_node = pytest.mark.skipif(not _node_is_new_enough(), reason="no Node 20 or newer")


def node(*arguments: str, **variables: str) -> str:
    """What Node writes to standard output, in the folder of the client."""
    assert NODE is not None
    done = subprocess.run(
        [NODE, *arguments],
        cwd=CLIENT, capture_output=True, text=True, env={**os.environ, **variables}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@in_node
def test_its_own_tests_pass() -> None:
    assert re.search(r"^# pass [1-9]", node("--test", "--test-reporter=tap", "client.test.js"), re.MULTILINE)


@pytest.fixture(scope="module")
def api(broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with Installation(broker, redis_url, tmp_path_factory.mktemp("home"), "typescript-client") as installation:
        installation.online.catalogue.add(CATALOGUE)
        installation.online.deployment.activate(installation.release(CATALOGUE))
        with running(installation.config(api_key=KEY)) as client:
            client.headers["Authorization"] = f"Bearer {KEY}"
            yield client


@in_node
def test_its_example_does_what_it_says(api: httpx.Client) -> None:
    (example,) = re.findall(r"```js\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)
    assert len(example.splitlines()) <= 20
    address = str(api.base_url).rstrip("/")
    said = node(
        "--input-type=module", "--eval", example.replace("http://localhost:8080", address), MATCHLOOP_API_KEY=KEY
    )
    assert [line.split()[:2] for line in said.splitlines()] == [[place, "Title"] for place in "123"]


def _kind(said: dict[str, Any]) -> str:
    """A schema as TypeScript writes it."""
    if "$ref" in said:
        return str(said["$ref"].rpartition("/")[2])
    if "anyOf" in said:
        return " | ".join(sorted({_kind(one) for one in said["anyOf"]}))
    match said.get("type"):
        case "array":
            return f"{_kind(said['items'])}[]"
        case "object":
            return f"Record<string, {_kind(said['additionalProperties'])}>"
        case "integer" | "number":
            return "number"
        case None:
            return "unknown"
        case other:
            return str(other)


def _without_null(kind: str) -> str:
    return " | ".join(sorted(set(kind.split(" | ")) - {"null"}))


def test_its_types_are_as_described(api: httpx.Client) -> None:
    models = api.get("/openapi.json").json()["components"]["schemas"]
    declared = (CLIENT / "client.d.ts").read_text()
    (value,) = re.findall(r"type Value = (.*);", declared)
    interfaces = dict(re.findall(r"interface (\w+) \{\n(.*?)\n\}", declared, re.DOTALL))
    del interfaces["Settings"]
    assert len(interfaces) == 12
    for name, body in interfaces.items():
        fields = re.findall(r"^  (\w+)(\??): (.*);$", body.replace("Value", value), re.MULTILINE)
        ours = {field: _sorted_inside(kind) for field, _, kind in fields}
        theirs = {field: _sorted_inside(_kind(said)) for field, said in models[name]["properties"].items()}
        assert ours == theirs, name
        made_by_the_client = {"event_id"} if name in ("FeedbackEvent", "UserEvent") else set()
        required = set(models[name].get("required", ())) - made_by_the_client
        assert {field for field, optional, _ in fields if not optional} == required, name


def _sorted_inside(kind: str) -> str:
    """With the parts of a union in one order, and without null, which stands for what is left out."""
    if found := re.fullmatch(r"Record<string, (.*)>(?: \| null)?", kind):
        return f"Record<string, {_sorted_inside(found[1])}>"
    return _without_null(kind)
