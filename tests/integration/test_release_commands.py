"""`matchloop release` and `gc` on a real Redis, as somebody types them; MLflow is away."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import redis

from feature_store.bandit_state import BanditStore
from feature_store.contracts.columns import SHADOW
from feature_store.contracts.errors import MatchLoopError
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from offline_training.evaluation.comparison import NDCG, Comparison
from offline_training.evaluation.differences import CHAMPION, EVERYBODY, Difference
from offline_training.promotion.promote import promote
from offline_training.promotion.releases import Site
from tests.command_line import matchloop
from tests.lakes import put
from tests.releases import sealed, small_site

DIFFERENCE = Difference(
    metric=NDCG, against=CHAMPION, among=EVERYBODY, users=9, release=0.3, other=0.2, low=0.05, high=0.15
)


@pytest.fixture
def site(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    client, settings = redis.Redis.from_url(redis_url), RedisSettings(prefix=tmp_path.name.strip("_")[-40:])
    variables = {"HOME": str(tmp_path), "REDIS_URL": redis_url, "REDIS_PREFIX": settings.prefix}
    for name, value in variables.items():
        monkeypatch.setenv(f"MATCHLOOP_{name}", value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return small_site(tmp_path, OnlineStore(client, settings), BanditStore(client, settings))


def answer(*arguments: str) -> Any:
    return json.loads(matchloop(*arguments, "--json"))


def test_releases_are_listed_compared_promoted_taken_back_and_removed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "There are no releases yet" in matchloop("release", "list")
    first = sealed(site, 20, created=1, graph_coverage=1.0)
    second = sealed(site, 21, created=2, graph_coverage=0.5, parent=first.release)
    spare = sealed(site, 22, created=3)
    abandoned = site.home.releases / ".draft-1"
    abandoned.mkdir()
    os.utime(abandoned, (0, 0))
    made = answer("release", "promote", first.release)
    assert not abandoned.exists(), "a promotion cleans up"
    assert Active(made["release"], made["namespace"]) == first
    assert "No MLflow is running" in made["aliases"]
    assert f"Release {second.release} was not promoted: 50.0%" in _refusal("release", "promote", second.release)
    assert [one["roles"] for one in answer("release", "list")["releases"]] == [[], ["challenger"], ["champion"]]

    made = answer("release", "promote", second.release[:10], "--override", "as agreed")
    assert made["verdict"]["override"] == "as agreed"
    listed = matchloop("release", "list").splitlines()
    assert [line.split()[0] for line in listed[1:4]] == [spare.release, second.release, first.release]
    shown = matchloop("release", "show", second.release)
    assert ["override", "as", "agreed"] in [line.split() for line in shown.splitlines()]
    assert "graph_coverage" in shown

    monkeypatch.setenv("MATCHLOOP_NOTIFY_COMMAND", f"sh -c 'cat > {site.home.root}/said'")
    assert answer("release", "rollback")["release"] == first.release
    assert json.loads((site.home.root / "said").read_text())["event"] == "rollback"
    assert site.online.deployment.active() == first
    assert answer("release", "rollback", second.release)["left"] == first.release
    assert "it served before" in _refusal("release", "remove", first.release)
    assert answer("gc", "--keep", "1", "--dry-run")["removed"] == []
    assert answer("release", "remove", spare.release)["bytes"] > 10_000
    assert "There is no release" in _refusal("release", "show", spare.release)


def test_what_the_gate_measured_is_shown(site: Site) -> None:
    first, second = sealed(site, 20), sealed(site, 21)
    promote(site, *first)
    promote(site, *second, comparison=Comparison(first.release, [DIFFERENCE]))
    line = f"{NDCG}  {CHAMPION}"
    for shown in (
        matchloop("release", "show", second.release),
        matchloop("release", "compare", first.release, second.release),
    ):
        assert line in shown
        assert "+0.1000 [+0.0500, +0.1500]" in shown
    assert answer("release", "compare", first.release, second.release)["verdicts"][0]["champion"] == first.release


def test_one_answers_unseen_until_it_is_told_otherwise(site: Site) -> None:
    first, second = sealed(site, 20), sealed(site, 21)
    promote(site, *first)
    assert "Name a release" in _refusal("release", "shadow")
    assert "serves already" in _refusal("release", "shadow", first.release)
    made = answer("release", "shadow", second.release, "--share", "0.2")
    assert made["shadow"] == {"release": second.release, "namespace": second.namespace, "share": 0.2}
    assert site.online.deployment.shadowing() == (second.release, second.namespace, 0.2)
    assert answer("release", "compare", first.release, second.release)["shadow"] == []
    row = {
        "decision": "d", "user": "u", "time": 1, "champion": first.release, "shown": ["a", "b"],
        "shown_predicted": [0.2, 0.4], "shown_predicted_unseen": [0.1, None], "items": ["b", "a"],
        "predicted": [0.5, 0.5], "champion_predicted": [None, None],
    }  # fmt: skip
    put(site.home.shadow / second.release / "1.parquet", SHADOW, [row])
    shown = [line.split() for line in matchloop("release", "compare", first.release, second.release).splitlines()]
    assert ["items", "of", "the", "other's", "slate", "1.0000"] in shown
    assert ["at", "the", "same", "place", "0.0000"] in shown
    assert ["expected", "by", first.release, "of", f"{second.release}'s", "-"] in shown
    assert answer("release", "shadow", "--off") == {"shadow": None}
    assert site.online.deployment.shadowing() is None


def _refusal(*arguments: str) -> str:
    with pytest.raises(MatchLoopError) as refused:
        matchloop(*arguments)
    return str(refused.value)
