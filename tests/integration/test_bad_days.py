"""A full disk, a store that is down, files that are gone or damaged: it is said clearly, nothing half-done serves, and
the next run goes on."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import redis

from feature_store.bandit_state import BanditStore
from feature_store.contracts.errors import InvalidInput, ReleaseRefused
from feature_store.contracts.manifest import MANIFEST
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from infra.benchmarks.small_release import items
from infra.cli import in_words
from offline_training.jobs.retrain import retrain
from offline_training.progress import silent
from offline_training.promotion.promote import go_back, promote
from offline_training.promotion.releases import Site
from offline_training.runs.runs import all_runs, published
from tests.api_server import Installation, running, wait_until
from tests.integration.conftest import Serving
from tests.releases import sealed, small_site
from tests.tiny_job import TinyJob, tiny_job

STEPS = [
    "lake", "training_sets", "towers", "ranker", "lists", "newest", "release", "evaluation", "namespace", "register",
    "promote",
]  # fmt: skip
LATER = 2_000_000  # ms


class FullDisk:
    """A disk on which no more fits once a step begins, after some others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.others = False, 0
        fsync = os.fsync

        def full(descriptor: int) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", full)

    def begins(self) -> None:
        """Called before each step that is not done."""
        self.full, self.others = self.others == 0, self.others - 1


def test_the_disk_is_full_at_every_step(
    serving: Serving, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a step had to write is not there; space is made, and the same run goes on with that step."""
    first = serving(tmp_path, "full")
    disk = FullDisk(monkeypatch)
    for done, step in enumerate(STEPS):
        job = tiny_job(tmp_path, redis_url, "full", disk.begins, LATER)
        with pytest.raises(OSError, match="No space left") as failed:
            retrain(job, silent)
        disk.others = 1  # the next time the step is done, and the one after it is not
        assert in_words(failed.value).startswith("No space is left on the disk. Free some")
        disk.full = False
        active = job.online.deployment.active()
        assert active is not None
        assert active.release == first.release, f"what serves is whole, at {step}"
        assert {one.name for one in all_runs(job.home.runs)[-1].steps()} == {*STEPS[:done]}
    job = tiny_job(tmp_path, redis_url, "full", now=LATER)
    made = retrain(job, silent)
    assert job.online.deployment.active() == (made.release, made.namespace)
    assert len(all_runs(job.home.runs)) == 2, "it was one run all the time"
    assert not list(tmp_path.rglob("*.part"))


def test_redis_is_down_at_the_promotion(serving: Serving, redis_url: str, tmp_path: Path) -> None:
    first = serving(tmp_path, "down")

    def down() -> None:
        if {one.name for one in all_runs(tmp_path / "runs")[-1].steps()} == {*STEPS[:-1]}:
            pool: Any = job.online.deployment._redis.connection_pool
            pool.disconnect()
            pool.connection_kwargs["port"] = 9
            pool.reset()

    job = tiny_job(tmp_path, redis_url, "down", down, LATER)
    with pytest.raises(redis.ConnectionError):
        retrain(job, silent)
    again = tiny_job(tmp_path, redis_url, "down", now=LATER)
    active = again.online.deployment.active()
    assert active is not None
    assert active.release == first.release
    made = retrain(again, silent)
    assert again.online.deployment.active() == (made.release, made.namespace)
    assert len(all_runs(again.home.runs)) == 2


def test_a_damaged_note_of_a_run_is_named_with_what_to_do(serving: Serving, redis_url: str, tmp_path: Path) -> None:
    first = serving(tmp_path, "damaged")
    [run] = all_runs(tmp_path / "runs")

    def retrained() -> str:
        job: TinyJob = tiny_job(tmp_path, redis_url, "damaged", now=LATER)
        return retrain(job, silent).release

    for path in (run.folder / "run.json", run.folder / "end.json", tmp_path / "runs" / "published.json"):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InvalidInput, match=rf"{path.name} is damaged: .* Remove it, or the whole run"):
            retrained()
        path.write_bytes(whole)
    shutil.rmtree(run.folder)
    (tmp_path / "runs" / "published.json").unlink()
    assert retrained() != first.release
    assert published(tmp_path / "runs") is not None


@pytest.fixture
def site(redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    client, settings = redis.Redis.from_url(redis_url), RedisSettings(prefix=request.node.name[-40:].strip("_"))
    return small_site(tmp_path, OnlineStore(client, settings), BanditStore(client, settings))


def test_no_release_with_a_damaged_file_of_any_kind_serves(site: Site) -> None:
    serves, next_one = sealed(site, 20), sealed(site, 21)
    promote(site, *serves)
    folder = site.home.releases / next_one.release
    names = sorted(path.name for path in folder.iterdir())
    assert MANIFEST in names
    assert len(names) > 5
    for name in names:
        whole = (folder / name).read_bytes()
        middle = len(whole) // 2
        (folder / name).write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        with pytest.raises(ReleaseRefused, match=r"[Tt]rain again"):
            promote(site, *next_one)
        (folder / name).unlink()
        with pytest.raises(ReleaseRefused):
            promote(site, *next_one)
        (folder / name).write_bytes(whole)
        assert site.online.deployment.active() == serves
    promote(site, *next_one)


def test_nor_one_with_a_damaged_namespace(site: Site) -> None:
    serves, next_one = sealed(site, 20), sealed(site, 21)
    promote(site, *serves)
    files = sorted((site.home.namespaces / next_one.namespace).iterdir())
    assert len(files) == 4
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ReleaseRefused, match=next_one.namespace):
            promote(site, *next_one)
        path.write_bytes(whole)
        assert site.online.deployment.active() == serves
        assert site.online.deployment.namespaces() == [serves.namespace]
    promote(site, *next_one)


def test_a_release_that_is_deleted_while_it_serves_goes_on_serving_until_the_next(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    with Installation(broker, redis_url, tmp_path, "deleted") as made:
        site = small_site(tmp_path, made.online, made.bandit)
        first, second = (sealed(site, count, log=made.log.log_id()) for count in (20, 30))
        made.online.catalogue.add(items(30))
        made.online.deployment.activate(first)
        with running(made.config()) as api:

            def serves() -> str:
                answer = api.post("/v1/recommendations", json={"user_id": "ada", "slate_size": 3})
                assert answer.status_code == 200
                return str(answer.json()["release"])

            shutil.rmtree(site.home.releases / first.release)
            assert serves() == first.release
            assert api.put("/v1/items/live", json={"title": "Live"}).status_code < 300
            assert serves() == first.release
            promote(site, *second, stale=True)
            wait_until(lambda: serves() == second.release)
            with pytest.raises(ReleaseRefused, match="There is no release at"):
                go_back(site)
            assert serves() == second.release
