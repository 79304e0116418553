"""Erasures and profiles on real servers: from the API through the log to everything that learns, and to the files."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from feature_store.contracts import columns
from feature_store.contracts.clock import SystemClock
from feature_store.contracts.identity import Keyring
from feature_store.home import Home
from feature_store.namespace import Namespace
from infra.benchmarks.small_release import items
from offline_training.jobs.forget import forget
from offline_training.promotion.publishing import user_records
from streaming import sink
from streaming.log_reader import LogReader
from streaming.replay import compare
from streaming.settings import LakeSettings, RewardSettings
from tests.api_server import SECRET, Installation, running, wait_until
from tests.lakes import put
from tests.training_sets import build, read
from tests.updaters import start_updater

PATIENCE = 120.0  # seconds


@pytest.fixture
def installation(broker: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    """All that runs beside the API, an updater and a sink among it."""
    with Installation(broker, redis_url, tmp_path / "home", request.node.name[:30]) as made:
        made.online.catalogue.add(items(20))
        made.online.deployment.activate(made.release(items(20)))
        stop = threading.Event()
        lake = LakeSettings(flush_seconds=0.05)
        sinking = (made.kafka, broker, Home(made.home), made.online, lake, SystemClock(), stop)
        sinks = threading.Thread(target=sink.run, args=sinking)
        sinks.start()
        updating = start_updater(made.kafka, broker, made.client, made.redis_settings, made.home, stop)
        try:
            yield made
        finally:
            stop.set()
            sinks.join()
            updating.join()


def everything_on_disk(home: Path) -> str:
    """What all files hold, as bytes and as rows; a draft of the sink that got its name meanwhile is looked for anew."""
    while True:
        found = []
        try:
            for path in sorted(path for path in home.rglob("*") if path.is_file()):
                found.append(path.read_bytes().decode("latin-1"))
                if path.suffix == ".parquet" and not path.name.startswith("."):
                    found.append(repr(pq.read_table(path).to_pylist()))
        except FileNotFoundError:
            continue
        return "\n".join(found)


def drained(installation: Installation) -> list[int]:
    """Waits until lake and state hold all that is in the log; returns the offsets behind it."""
    ends = sink.drain(installation.log, Home(installation.home), SystemClock())
    (namespace,) = installation.online.deployment.namespaces()

    def folded() -> bool:
        positions = [installation.bandit.position(namespace, n) for n in range(len(ends))]
        return all(position and position.offset >= end for position, end in zip(positions, ends, strict=True))

    wait_until(folded, PATIENCE)
    return ends


def publish(spark: SparkSession, installation: Installation) -> dict[Any, dict[str, Any]]:
    """Training sets of the lake as it is, and their users published, as a promotion does."""
    out, _ = build(spark, installation.home / "lake", rewards=RewardSettings())
    installation.online.users.put(user_records(out))
    return read(out, "users", "user")


def visit(api: httpx.Client, user: str) -> str:
    """Asks for a slate and clicks on its first item."""
    answer = api.post("/v1/recommendations", json={"user_id": user, "slate_size": 3}).json()
    assert answer["logged"]
    event = {
        "decision_id": answer["decision_id"],
        "item_id": answer["items"][0]["id"],
        "type": "click",
        "event_id": "1",
    }
    assert api.post("/v1/feedback", json={"events": [event]}).status_code == 202
    return str(answer["decision_id"])


def test_a_visitor_becomes_a_user_everywhere_and_is_forgotten_with_them(
    installation: Installation, spark: SparkSession
) -> None:
    keyring, lake = Keyring(SECRET), installation.home / "lake"
    visitor, ada, bob = (keyring.user_key(user) for user in ("visit-81", "ada", "bob"))
    rows = [
        {"user": user, "item": item, "type": "rating", "value": 5.0, "time": time}
        for user in (ada, bob)
        for item, time in (("i1", 10), ("i2", 20))
    ]
    put(lake / "interactions" / "month=1970-01" / "x.parquet", columns.INTERACTIONS, rows)
    with running(installation.config()) as api:
        answer = api.post("/v1/recommendations", json={"user_id": "visit-81", "slate_size": 2}).json()
        first, second = (item["id"] for item in answer["items"])
        click = {"decision_id": answer["decision_id"], "type": "click"}
        api.post("/v1/feedback", json={"events": [{**click, "item_id": first, "event_id": "1"}]}).raise_for_status()
        assert api.post("/v1/users/ada:merge", json={"visitor_id": "visit-81"}).status_code == 204
        api.post("/v1/feedback", json={"events": [{**click, "item_id": second, "event_id": "2"}]}).raise_for_status()
        drained(installation)
        held = api.get("/v1/users/ada").json()
        assert (held["history"], held["shown"]) == (2, 2)
        assert api.get("/v1/users/visit-81").status_code == 404

        users = publish(spark, installation)
        assert users[ada]["items"] == ["i1", "i2", first, second]
        assert visitor not in users
        assert api.get("/v1/users/ada").json()["history"] == 4
        (name,) = installation.online.deployment.namespaces()
        namespace = Namespace.load(installation.home / "namespaces", name)
        reader = LogReader(lake, installation.log)
        found = compare(namespace, installation.bandit, reader, RewardSettings())
        assert [partition.equal for partition in found] == [True, True]

        assert api.delete("/v1/users/ada").status_code == 204
        drained(installation)
        assert publish(spark, installation).keys() == {bob}
        done = forget(Home(installation.home), installation.online, installation.bandit, SystemClock().now_ms(), 30)
        assert (done.users, done.waiting) == (0, 1)  # the visitor's slate is still open


def test_an_erased_user_comes_back_by_no_way(installation: Installation, spark: SparkSession) -> None:
    keyring, lake = Keyring(SECRET), installation.home / "lake"
    ada, bob = keyring.user_key("ada"), keyring.user_key("bob")
    rows = [
        {"user": user, "item": item, "type": "rating", "value": 5.0, "time": time}
        for user in (ada, bob)
        for item, time in (("i1", 10), ("i2", 20))
    ]
    put(lake / "interactions" / "month=1970-01" / "x.parquet", columns.INTERACTIONS, rows)
    described = [{"user": user, "attributes": '{"city":"Wellington"}', "imported": 5} for user in (ada, bob)]
    put(lake / "users" / "users.parquet", columns.USERS, described)
    with running(installation.config()) as api:
        assert api.put("/v1/users/ada", json={"attributes": {"age": 31}}).status_code == 204
        decision = visit(api, "ada")
        assert visit(api, "bob") != decision
        drained(installation)
        assert {ada, bob} <= publish(spark, installation).keys()
        held = api.get("/v1/users/ada").json()
        assert (held["profile"], held["history"]) == (["age=5.1"], 3)

        assert api.delete("/v1/users/ada").status_code == 204
        assert api.get("/v1/users/ada").status_code == 404
        installation.online.users.put(user_records(installation.home / "sets"))  # trained from what was there before
        assert api.get("/v1/users/ada").status_code == 404
        drained(installation)
        assert ada not in publish(spark, installation)
        assert api.get("/v1/users/ada").status_code == 404

        assert ada in everything_on_disk(installation.home)
        done = forget(Home(installation.home), installation.online, installation.bandit, SystemClock().now_ms(), 30)
        assert (done.users, done.waiting) == (1, 0)
        left = everything_on_disk(installation.home)
        assert ada not in left
        assert decision not in left
        assert bob in left
        (name,) = installation.online.deployment.namespaces()
        namespace = Namespace.load(installation.home / "namespaces", name)
        found = compare(namespace, installation.bandit, LogReader(lake, installation.log), RewardSettings())
        assert [partition.equal for partition in found] == [True, True]
        assert sum(partition.rows for partition in found) > 0

        visit(api, "ada")  # back, as somebody new
        drained(installation)
        users = publish(spark, installation)
        assert [len(users[user]["items"]) for user in (ada, bob)] == [1, 3]
        held = api.get("/v1/users/ada").json()
        assert (held["profile"], held["history"]) == ([], 1)


def test_the_newest_profile_serves_and_trains_whichever_way_it_came(
    installation: Installation, spark: SparkSession
) -> None:
    lake, bob = installation.home / "lake", Keyring(SECRET).user_key("bob")
    rows = [
        {"user": bob, "item": item, "type": "rating", "value": 5.0, "time": time}
        for item, time in (("i1", 10), ("i2", 20))
    ]
    put(lake / "interactions" / "month=1970-01" / "x.parquet", columns.INTERACTIONS, rows)
    imported = {"user": bob, "attributes": '{"country":"nz"}', "imported": 5}
    put(lake / "users" / "users.parquet", columns.USERS, [imported])
    with running(installation.config()) as api:
        publish(spark, installation)
        assert api.get("/v1/users/bob").json()["profile"] == ["country=nz"]
        assert api.put("/v1/users/bob", json={"attributes": {"country": "XX", "vip": True}}).status_code == 204
        put_over_http = ["country=xx", "vip=true"]
        installation.online.users.put(user_records(installation.home / "sets"))
        assert api.get("/v1/users/bob").json()["profile"] == put_over_http
        drained(installation)
        assert publish(spark, installation)[bob]["profile"] == put_over_http
        assert api.get("/v1/users/bob").json()["profile"] == put_over_http

        later = SystemClock().now_ms()
        put(lake / "users" / "users.parquet", columns.USERS, [{**imported, "imported": later}])
        assert publish(spark, installation)[bob]["profile"] == ["country=nz"]
        assert api.get("/v1/users/bob").json()["profile"] == ["country=nz"]
