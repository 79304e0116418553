"""A release that answers unseen beside the one that serves, in a real API process."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import redis

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import InvalidInput
from feature_store.graph import Graph
from feature_store.online.deployment import Shadowing
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from feature_store.user_features import NOBODY
from infra.benchmarks.small_release import items
from offline_training.data.lake import parquet_files
from offline_training.promotion.promote import promote
from offline_training.promotion.releases import Site
from offline_training.promotion.removal import remove
from online_serving.pipeline.pipeline import Pipeline
from online_serving.pipeline.request import Candidates, Recommendation, Request
from online_serving.shadow import Asked, Shadow
from tests.api_server import Installation, running, wait_until
from tests.releases import sealed, small_site

NOTHING = Recommendation(
    clusters=[], weights=[], history=[], history_kinds=[], history_times=[], profile=[], items=[], shown=0, sources=[],
    predicted=[], mean=[], bonus=[], edges=[], probabilities=[], rules={},
    candidates=Candidates(Graph(1), np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8)),
)  # fmt: skip


def test_its_slates_are_noted_beside_what_was_shown_and_nobody_sees_them(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    with Installation(broker, redis_url, tmp_path, "shadowed") as made:
        serves, unseen = made.release(items(40)), made.release(items(20))
        made.online.catalogue.add(items(40))
        made.online.deployment.activate(serves)
        made.online.deployment.shadow(Shadowing(*unseen, share=1.0))
        assert set(made.online.deployment.namespaces()) == {serves.namespace, unseen.namespace}
        answers: dict[str, Any] = {}
        with running(made.config(shadow_cpu=1.0)) as api:

            def answered() -> bool:
                answer = api.post("/v1/recommendations", json={"user_id": f"u{len(answers)}"}).json()
                answers[answer["decision_id"]] = answer
                return 'matchloop_shadow_requests_total{outcome="answered"}' in api.get("/metrics").text

            wait_until(answered)
        assert {answer["release"] for answer in answers.values()} == {serves.release}
        [file] = parquet_files(tmp_path / "shadow")
        assert file.parent.name == unseen.release
        rows = pq.read_table(file).to_pylist()
        for row in rows:
            shown = answers[row["decision"]]
            assert row["champion"] == serves.release
            assert row["shown"] == [item["id"] for item in shown["items"]]
            assert len(row["items"]) == len(row["predicted"]) == 5
            assert len(row["shown_predicted_unseen"]) == len(row["champion_predicted"]) == 5
        made.online.deployment.end_shadow()
        assert made.online.deployment.namespaces() == [serves.namespace]


@pytest.fixture
def site(redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    client, settings = redis.Redis.from_url(redis_url), RedisSettings(prefix=request.node.name[-40:].strip("_"))
    return small_site(tmp_path, OnlineStore(client, settings), BanditStore(client, settings))


def test_it_stays_while_it_answers_and_a_promotion_ends_that(site: Site) -> None:
    serves, unseen = sealed(site, 20), sealed(site, 21)
    promote(site, *serves)
    site.online.deployment.shadow(Shadowing(*unseen, share=0.5))
    with pytest.raises(InvalidInput, match="it answers unseen, until `matchloop release shadow --off`"):
        remove(site, unseen.release)
    promote(site, *unseen)
    assert site.online.deployment.shadowing() is None
    assert set(site.online.deployment.namespaces()) == {serves.namespace, unseen.namespace}


def test_what_it_has_no_time_for_is_passed_over(broker: str, redis_url: str, tmp_path: Path) -> None:
    """The thread is not started: what it is offered waits, up to a number, and offering never does."""
    with Installation(broker, redis_url, tmp_path, "busy") as made:
        active = made.release(items(20))
        config, clock = made.config(), SystemClock()
        shadow = Shadow(config, made.client, clock)
        pipeline = Pipeline(config.serving, config.bandit)
        asked = Asked("d", "u", Request(5, time=1), NOBODY, pipeline, "r", NOTHING)
        for _ in range(100):
            shadow.offer(asked)
        assert shadow._waiting.qsize() == 0, "nothing is to answer unseen"
        made.online.deployment.activate(active)
        made.online.deployment.shadow(Shadowing(*active, share=1.0))
        shadow._step()
        for _ in range(100):
            shadow.offer(asked)
        assert shadow._waiting.qsize() == 64
