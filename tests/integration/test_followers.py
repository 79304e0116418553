"""How serving processes follow Redis: every partition at once; and anew, serving on, when a chain of deltas breaks."""

import gc
from pathlib import Path

import httpx
import pytest

from feature_store.bandit_state import Commit, Position
from feature_store.online.deployment import Active
from infra.benchmarks.small_release import build_namespace, items
from online_serving.parameters import Parameters
from online_serving.snapshot import Snapshot
from tests.api_server import Installation, running, wait_until
from tests.rows import rows_of

CATALOGUE = items(12)
BATCHES = {4: 3.0, 9: 2.0, 12: 6.0}  # offset after a batch: trials of i3 in it


def commit(made: Installation, active: Active, expected: int | None, *offsets: int, partition: int = 1) -> None:
    """Commits the batches that lead to the offsets, in one partition."""
    for offset in offsets:
        n = BATCHES[offset]
        trials = [n, n, 0.0, 0.0, 0.05 * n]  # no reward where hardly any was expected: nobody is spared the item
        before = None if expected is None else Position("log", expected)
        written = Commit(Position("log", offset), [], 0, True, rows_of({":i3": trials}), {}, [])
        made.bandit.commit(active.namespace, partition, before, written)
        expected = offset


def offset(api: httpx.Client) -> int:
    found: list[int] = api.get("/v1/parameters").json()["offsets"]
    return found[1]


def bonus(api: httpx.Client, user: str) -> float:
    body = {"user_id": user, "only": ["i3"], "slate_size": 1, "explain": True}
    (item,) = api.post("/v1/recommendations", json=body).raise_for_status().json()["items"]
    width: float = item["explanation"]["bonus"]
    return width


def test_a_broken_chain_is_loaded_anew(broker: str, redis_url: str, tmp_path: Path) -> None:
    with Installation(broker, redis_url, tmp_path, "followers") as made:
        active = made.release(CATALOGUE)
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(active)
        commit(made, active, None, 4)
        with running(made.config()) as api:
            assert offset(api) == 4
            commit(made, active, 4, 9, 12)
            wait_until(lambda: offset(api) == 12)
            followed = bonus(api, "followed")
            with running(made.config()) as fresh:
                assert followed == pytest.approx(bonus(fresh, "loaded"))

            # Redis goes back to an older state, and the batches are folded again, cut at other places.
            made.bandit.drop(active.namespace, 1)
            commit(made, active, None, 4)
            wait_until(lambda: offset(api) == 4)
            with running(made.config()) as fresh:
                gone_back = bonus(api, "gone back")
                assert gone_back == pytest.approx(bonus(fresh, "loaded again"))
            assert gone_back > followed
            commit(made, active, 4, 9, 12)  # the new chain is followed
            wait_until(lambda: offset(api) == 12)
            assert bonus(api, "at the end") == pytest.approx(followed)
            assert 'matchloop_swaps_total{outcome="reloaded"}' in api.get("/metrics").text


def test_many_partitions_are_followed_at_once(
    broker: str, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Installation(broker, redis_url, tmp_path, "many", partitions=110) as made:
        active = made.release(CATALOGUE)
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(active)
        with running(made.config(), ready=False) as api:
            wait_until(lambda: api.get("/v1/parameters").status_code == 200, 60)
            for partition in range(110):
                commit(made, active, None, 4, partition=partition)
            wait_until(lambda: api.get("/v1/parameters").json()["offsets"] == [4] * 110, 60)
    assert not [record for record in caplog.records if "wait for Redis" in record.getMessage()]


def serving() -> tuple[int, int]:
    """How many snapshots and parameters are in memory."""
    gc.unfreeze()  # frozen objects are not among those that the collector names
    found = [type(each) for each in gc.get_objects()]
    return found.count(Snapshot), found.count(Parameters)


def test_what_was_replaced_is_freed_without_the_collector(broker: str, redis_url: str, tmp_path: Path) -> None:
    """Releases are frozen: one that was part of a cycle would stay for ever."""
    gc.collect()
    snapshots, parameters = serving()
    gc.disable()
    try:
        with Installation(broker, redis_url, tmp_path, "freed") as made:
            active = made.release(CATALOGUE)
            log, homes = made.log.log_id(), (made.home / "namespaces", made.home / "releases")
            other = active._replace(namespace=build_namespace(*homes, active.release, log, 2, number=1))
            made.online.catalogue.add(CATALOGUE)
            made.online.deployment.activate(active)
            with running(made.config()) as api:
                for name, following in ((active.namespace, other), (other.namespace, active)):
                    wait_until(lambda: api.get("/v1/parameters").json()["namespace"] == name)  # noqa: B023 - called at once
                    assert bonus(api, name) > 0
                    api.put("/v1/items/new", json={"title": name}).raise_for_status()
                    wait_until(lambda: serving() == (snapshots + 1, parameters + 1))
                    made.online.deployment.activate(following)
    finally:
        gc.enable()
