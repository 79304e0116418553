"""Releases on real servers: promoted past the gate, taken back, removed; and MLflow away meanwhile."""

import dataclasses
import itertools
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis

from feature_store.bandit_state import BanditStore, Commit, Position
from feature_store.contracts.errors import InvalidInput, ReleaseRefused, Unavailable
from feature_store.contracts.events import Tick, encode
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from feature_store.rewriting import undisturbed
from feature_store.settings import RedisSettings
from feature_store.sums import NO_ROWS
from infra.benchmarks.small_release import items
from infra.servers import free_port
from offline_training.promotion.aliases import catch_up, follow
from offline_training.promotion.garbage import collect
from offline_training.promotion.gate import Verdict
from offline_training.promotion.promote import go_back, newest_namespace, promote
from offline_training.promotion.releases import Site, find, inventory, kept, roles
from offline_training.promotion.removal import remove
from tests.api_process import serve_api, wait_until_ready
from tests.api_server import Installation, wait_until
from tests.releases import LOG, Away, sealed, small_site
from tests.tiny_job import Notes
from tests.updaters import start_updater

VISITORS = 3
DAY, GRACE = 86_400_000, 60.0
NOW = time.time_ns() // 1_000_000


def _prefix(request: pytest.FixtureRequest) -> str:
    return "".join(filter(str.isalnum, request.node.name))[-40:]


@pytest.fixture
def site(redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    client = redis.Redis.from_url(redis_url)
    settings = RedisSettings(prefix=_prefix(request))
    return small_site(tmp_path, OnlineStore(client, settings), BanditStore(client, settings))


def test_promotion_and_the_way_back_fail_no_request_and_the_release_before_goes_on_learning(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    """With an API process and an updater at work."""
    stop, done, port = threading.Event(), threading.Event(), free_port()
    with Installation(broker, redis_url, tmp_path, "swapped") as made, ThreadPoolExecutor(VISITORS) as pool:
        site = small_site(tmp_path, made.online, made.bandit)
        first, second = (sealed(site, count, log=made.log.log_id()) for count in (30, 40))
        made.online.catalogue.add(items(40))
        made.online.deployment.activate(first)
        updater = start_updater(made.kafka, broker, made.client, made.redis_settings, tmp_path, stop)
        process = serve_api(made, port)

        def visit(number: int) -> list[tuple[int, str]]:
            served: list[tuple[int, str]] = []
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=150) as client:
                while not done.is_set():
                    body = {"user_id": f"{number}-{len(served)}"}
                    answer = client.post("/v1/recommendations", json=body)
                    served.append((answer.status_code, answer.json().get("release", answer.text)))
            return served

        def serves() -> str:
            body = {"user_id": "watcher"}
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/recommendations", json=body, timeout=150).json()
            return str(answer["release"])

        try:
            wait_until_ready(process, port)
            visits = [pool.submit(visit, number) for number in range(VISITORS)]
            promote(site, second.release, second.namespace)
            wait_until(lambda: serves() == second.release)
            assert set(made.online.deployment.namespaces()) == {first.namespace, second.namespace}
            assert go_back(site) == first
            wait_until(lambda: serves() == first.release)
            done.set()
            answers = [answer for visited in visits for answer in visited.result()]
            for visited in visits:
                served = [release for _, release in visited.result()]
                assert sum(a != b for a, b in itertools.pairwise(served)) <= 2
            ends = made.log.append_everywhere(encode([Tick(time=1)]))
            for active in (first, second):  # both are folded to the end: the way forth is as quick
                wait_until(lambda active=active: _folded(made, active, ends))  # type: ignore[misc]
        finally:
            done.set()
            stop.set()
            updater.join()
            process.terminate()
            process.communicate()
    assert {status for status, _ in answers} == {200}
    assert {release for _, release in answers} <= {first.release, second.release}


def _folded(made: Installation, active: Active, ends: list[int]) -> bool:
    positions = [made.bandit.position(active.namespace, partition) for partition in range(len(ends))]
    begins = Position("", 0)
    return all((position or begins).offset >= end for position, end in zip(positions, ends, strict=True))


def test_what_the_gate_holds_back_is_the_challenger_until_somebody_says_why_it_serves(site: Site) -> None:
    champion = sealed(site, 20, created=1, graph_coverage=1.0)
    promote(site, *champion)
    refused = sealed(site, 21, created=2, parent=champion.release, graph_coverage=0.5)
    with pytest.raises(ReleaseRefused, match=r"50\.0% of the items.*`matchloop release promote .* --override"):
        promote(site, *refused)
    assert site.online.deployment.active() == champion
    assert roles(site) == (champion.release, None, refused.release)
    assert [(one.id, one.roles) for one in inventory(site)] == [
        (refused.release, ["challenger"]), (champion.release, ["champion"]),
    ]  # fmt: skip

    verdict = promote(site, *refused, override="half of the catalogue is new")
    assert verdict == Verdict.load(site.home.verdicts, refused.release)
    assert (verdict.champion, verdict.override) == (champion.release, "half of the catalogue is new")
    assert len(verdict.reasons) == 1
    assert roles(site) == (refused.release, champion.release, None)


def test_the_way_back_leads_to_the_release_before_or_to_any_that_is_kept(site: Site) -> None:
    with pytest.raises(InvalidInput, match="No release served before this one"):
        go_back(site)
    first, second, third = (sealed(site, count, created=count) for count in (20, 21, 22))
    for active in (first, second, third):
        promote(site, *active)
    assert set(site.online.deployment.namespaces()) == {second.namespace, third.namespace}
    assert site.online.deployment.retired().keys() == {first.namespace}
    assert go_back(site) == second
    assert go_back(site) == third, "twice is forth again"
    assert go_back(site, first.release) == first
    assert roles(site) == (first.release, third.release, None)
    assert site.online.deployment.retired().keys() == {second.namespace}
    with pytest.raises(InvalidInput, match="serves already"):
        go_back(site, first.release)


def test_another_namespace_of_what_serves_leaves_the_release_before_what_it_was(site: Site) -> None:
    first, second = sealed(site, 20), sealed(site, 21)
    promote(site, *first)
    promote(site, *second)
    site.online.deployment.activate(Active(second.release, "another"))
    assert site.online.deployment.previous() == first
    assert go_back(site) == first
    assert site.online.deployment.previous() == Active(second.release, "another")


def test_mlflow_that_is_away_changes_nothing_of_what_serves_and_is_told_later(site: Site) -> None:
    registry = Away()
    away = dataclasses.replace(site, registry=registry)
    first, second = sealed(site, 20), sealed(site, 21)
    promote(away, *first)
    assert promote(away, *second).passed
    assert site.online.deployment.active() == second
    assert "The next `matchloop release` command sets them" in str(catch_up(away))
    assert registry.champions == []
    registry.away = False
    assert catch_up(away) is None
    assert registry.champions == [second.release]
    assert catch_up(away) is None
    assert registry.champions == [second.release], "it was told once"


def test_a_release_that_mlflow_does_not_know_is_registered_from_its_folder(site: Site) -> None:
    class Forgetful(Notes):
        def follow(self, *arguments: object) -> list[str]:
            return [] if self.recorded else [first.release]

    first = sealed(site, 20, parent="p", graph_coverage=1.0)
    registry = Forgetful()
    site.online.deployment.activate(first)
    assert follow(dataclasses.replace(site, registry=registry)) is None
    assert [lineage["parent"] for lineage in registry.recorded] == ["p"]


def test_a_release_is_removed_with_all_that_belongs_to_it_unless_it_is_needed(site: Site) -> None:
    parent = sealed(site, 20)
    before, champion = sealed(site, 21), sealed(site, 22, parent=parent.release)
    spare = sealed(site, 23, created=5)
    for active in (parent, spare, before, champion):
        promote(site, *active)
    for needed, why in ((champion, "it serves"), (before, "served before"), (parent, "was made from it")):
        with pytest.raises(InvalidInput, match=why):
            remove(site, needed.release)
    assert find(site.home, spare.release[:8]) == spare.release
    assert remove(site, spare.release) > 10_000
    assert list(site.home.root.rglob(f"*{spare.release}*")) == [site.home.removed / spare.release], "MLflow is to know"
    assert site.online.deployment.retired().keys() == {parent.namespace}
    with pytest.raises(InvalidInput, match=f"There is no release '{spare.release}'. There are "):
        find(site.home, spare.release)


def test_a_release_without_a_namespace_says_what_to_do(site: Site) -> None:
    made = sealed(site, 20)
    (site.home.namespaces / made.namespace).rename(site.home.root / "gone")
    with pytest.raises(ReleaseRefused, match=r"has no namespace in .* Run `matchloop retrain`"):
        newest_namespace(site, made.release)


def test_what_nobody_needs_is_collected_and_the_rest_stays(
    site: Site, redis_url: str, request: pytest.FixtureRequest
) -> None:
    """Five releases; one is kept beside what is needed."""
    client = redis.Redis.from_url(redis_url)
    oldest, parent = sealed(site, 20, created=1), sealed(site, 21, created=2)
    before, champion = sealed(site, 22, created=3), sealed(site, 23, created=4, parent=parent.release)
    newest = sealed(site, 24, created=5)
    for active in (oldest, parent, before, champion):
        site.state.commit(active.namespace, 0, None, Commit(Position(LOG, 5), [], 0, True, NO_ROWS, {"d": b"x"}, []))
        promote(site, *active)
    young = collect(site, 1, GRACE, NOW)
    assert young == [], "their folding has only just ended"
    for name in (oldest.namespace, parent.namespace):
        client.zadd(f"{_prefix(request)}:retired", {name: 1})
    planned = collect(site, 1, GRACE, NOW, dry_run=True)
    assert {(waste.kind, waste.name) for waste in planned} == {
        ("release", oldest.release), ("keys", parent.namespace),
    }  # fmt: skip
    assert site.state.size(oldest.namespace, 0) > 0
    assert all(waste.bytes > 0 for waste in planned)
    assert collect(site, 1, GRACE, NOW) == planned
    assert set(kept(site.home)) == {parent.release, before.release, champion.release, newest.release}
    assert list(site.home.root.rglob(f"*{oldest.release}*")) == [site.home.removed / oldest.release]
    assert site.state.size(oldest.namespace, 0) == site.state.size(parent.namespace, 0) == 0
    assert site.state.position(before.namespace, 0) == Position(LOG, 5)
    assert collect(site, 1, GRACE, NOW) == []


def test_abandoned_drafts_are_collected_after_a_day(site: Site) -> None:
    made = sealed(site, 20)
    for name in ("releases/.draft-1/index.faiss", f"namespaces/.{made.namespace}.2/base", "lake/events/log=l/.0-9.7"):
        (site.home.root / name).parent.mkdir(parents=True, exist_ok=True)
        (site.home.root / name).write_bytes(b"half")
    assert collect(site, 5, GRACE, NOW) == []
    found = collect(site, 5, GRACE, NOW + 2 * DAY)
    assert {(waste.kind, waste.name, waste.bytes) for waste in found} == {
        ("draft", "releases/.draft-1", 4), ("draft", f"namespaces/.{made.namespace}.2", 4),
        ("draft", "lake/events/log=l/.0-9.7", 4),
    }  # fmt: skip
    assert collect(site, 5, GRACE, NOW + 2 * DAY) == []
    assert kept(site.home) == [made.release]


def test_a_namespace_without_its_release_goes_and_one_that_serves_never(site: Site) -> None:
    serves, orphan = sealed(site, 20), sealed(site, 21)
    promote(site, *serves)
    for active in (serves, orphan):
        shutil.rmtree(site.home.releases / active.release)
    assert [(waste.kind, waste.name) for waste in collect(site, 5, GRACE, NOW)] == [("namespace", orphan.namespace)]
    assert (site.home.namespaces / serves.namespace).is_dir()


def test_nothing_is_collected_while_somebody_trains(site: Site) -> None:
    sealed(site, 20)
    with undisturbed(site.home), pytest.raises(Unavailable, match="a training, a rollback"):
        collect(site, 1, GRACE, NOW)


def test_mlflow_gives_up_its_copies_of_what_was_removed_once_it_answers(site: Site) -> None:
    registry = Away()
    away = dataclasses.replace(site, registry=registry)
    serves, first, second = (sealed(site, count, created=count) for count in (20, 21, 22))
    promote(site, *serves)
    for active in (first, second):
        remove(away, active.release)
    assert follow(away) is not None
    sealed(site, 22, created=22)  # the same again, before MLflow was told
    registry.away = False
    assert catch_up(away) is None
    assert registry.discarded == [first.release]
    assert follow(away) is None
    assert registry.discarded == [first.release], "it was told once"
