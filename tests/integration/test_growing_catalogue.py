"""A server under traffic while its catalogue grows by thousands of items and its parameters learn."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from feature_store.bandit_state import Commit, Position
from feature_store.contracts.catalogue import Item
from feature_store.online.deployment import Active
from infra.benchmarks.small_release import items
from tests.api_server import Installation, running, wait_until
from tests.rows import rows_of

CATALOGUE = items(60)
CLUSTERS = 20
NEW = [Item(id=f"new{k}", title=f"Title {k}", categories=["space"]) for k in range(4_000)]
BATCH = 50
SAMPLE = [item.id for item in [*CATALOGUE[::2], *NEW[::100]]]


class Learning:
    """Commits what trials add up to, as an updater does."""

    def __init__(self, made: Installation, active: Active) -> None:
        self._made, self._namespace = made, active.namespace
        self._rng = np.random.default_rng(0)
        self.offsets = [0, 0]
        self.trials = 0

    def commit(self, names: list[str], trials: int) -> None:
        """Trials of some of the items, in the partition that is behind."""
        partition = int(np.argmin(self.offsets))
        before, after = self.offsets[partition], self.offsets[partition] + 1
        rows = {}
        for name in self._rng.choice(names, 40, replace=False):
            rewards, w = self._rng.binomial(trials, 0.3), 0.5
            rows[f":{name}"] = [trials, trials, rewards, rewards, 0.25 * trials]
            for cluster in self._rng.choice(CLUSTERS, 3, replace=False):
                rows[f"{cluster}:{name}"] = [w * w * trials, w * w * trials, w * trials, w * rewards, w * trials / 4]
        position = Position("log", before) if before else None
        changes = rows_of(rows)
        self._made.bandit.commit(
            self._namespace, partition, position, Commit(Position("log", after), [], 0, True, changes, {}, [])
        )
        self.offsets[partition] = after
        self.trials += 40 * trials


def visit(api: httpx.Client, user: str) -> list[float]:
    """A slate and a click on its first item; the scores."""
    answer = api.post("/v1/recommendations", json={"user_id": user, "slate_size": 10}).raise_for_status().json()
    event = {"decision_id": answer["decision_id"], "item_id": answer["items"][0]["id"], "type": "click"}
    api.post("/v1/feedback", json={"events": [{**event, "event_id": user}]}).raise_for_status()
    return [item["score"] for item in answer["items"]]


def scores(api: httpx.Client, user: str) -> dict[str, Any]:
    body = {"user_id": user, "only": SAMPLE, "slate_size": len(SAMPLE), "explain": True}
    found = api.post("/v1/recommendations", json=body).raise_for_status().json()["items"]
    return {f"{item['id']} {part}": item["explanation"][part] for item in found for part in ("mean", "bonus")}


def fits(api: httpx.Client) -> float:
    count = "matchloop_prior_fit_seconds_count "
    (line,) = [line for line in api.get("/metrics").text.splitlines() if line.startswith(count)]
    return float(line.split()[-1])


def test_items_come_while_the_prior_is_fitted(broker: str, redis_url: str, tmp_path: Path) -> None:
    with Installation(broker, redis_url, tmp_path, "growing") as made:
        active = made.release(CATALOGUE, clusters=CLUSTERS)
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(active)
        learning, over = Learning(made, active), threading.Event()
        with running(made.config(max_slate_size=100)) as api, ThreadPoolExecutor(4) as pool:
            before = fits(api)

            def traffic(name: str) -> list[float]:
                found: list[float] = []
                while not over.is_set():
                    found += visit(api, f"{name} {len(found)}")
                return found

            def learn() -> None:
                names = [item.id for item in [*CATALOGUE, *NEW]]
                while not over.is_set():
                    learning.commit(names, 1 + learning.trials // 400)  # so that a prior is due again and again
                    wait_until(lambda: offsets(api) == learning.offsets)

            visitors = [pool.submit(traffic, f"visitor {k}") for k in range(2)]
            learner = pool.submit(learn)
            try:
                for first in range(0, len(NEW), BATCH):
                    batch = [{"id": i.id, "title": i.title, "categories": i.categories} for i in NEW[first:][:BATCH]]
                    api.post("/v1/items:batch", json={"items": batch}).raise_for_status()
                wait_until(lambda: api.get(f"/v1/items/{NEW[-1].id}").json()["servable"])
            finally:
                over.set()
            learner.result()
            shown = [score for visitor in visitors for score in visitor.result()]
            assert shown
            assert all(math.isfinite(score) for score in shown)
            assert fits(api) > before + 2

            # So many trials at once that the prior is fitted to exactly them: as it is in a process that starts now.
            learning.commit(SAMPLE, learning.trials)
            with running(made.config(max_slate_size=100)) as fresh:
                wanted = scores(fresh, "fresh")
                assert all(math.isfinite(score) for score in wanted.values())
                wait_until(lambda: scores(api, f"{fits(api)}") == pytest.approx(wanted, rel=1e-6))


def offsets(api: httpx.Client) -> list[int]:
    found: list[int] = api.get("/v1/parameters").json()["offsets"]
    return found
