"""What a release answers as a model of MLflow, worked out from the small release's arithmetic."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from feature_store.definitions import HistoryEvent
from feature_store.user_features import UserFeatures
from infra.benchmarks.small_release import build_release, items
from offline_training.promotion.pyfunc_model import ReleaseModel
from online_serving.pipeline.features import encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot

COUNT = 30


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    releases = tmp_path_factory.mktemp("home") / "releases"
    return Snapshot.load(releases, build_release(releases, catalogue=items(COUNT)))


@pytest.fixture(scope="module")
def model(snapshot: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> ReleaseModel:
    releases = tmp_path_factory.mktemp("other") / "releases"
    release = build_release(releases, catalogue=items(COUNT))
    assert release == snapshot.release
    made = ReleaseModel()
    made.load_context(SimpleNamespace(artifacts={"release": str(releases / release)}))
    return made


def expected(snapshot: Snapshot, user: UserFeatures, seen: set[str]) -> list[str]:
    """All items but the seen ones by the ranker's formula: there are fewer than are looked for."""
    vector = encode_user(snapshot, user, Request(slate_size=1)).vector
    popularity = np.log1p(np.arange(COUNT, 0, -1))
    logit = 2 * (snapshot.vectors @ vector) + 0.2 * popularity - 2
    order = np.argsort(-logit, kind="stable").tolist()
    return [f"i{n}" for n in order if f"i{n}" not in seen]


def test_it_answers_in_the_order_of_the_ranker_without_what_is_known_already(
    model: ReleaseModel, snapshot: Snapshot
) -> None:
    asked = pd.DataFrame({"history": [["i3", "i7"], []]})
    found = model.predict(None, asked, {"slate_size": 5})
    created = snapshot.manifest.created
    user = UserFeatures([], [HistoryEvent("i3", "click+", created), HistoryEvent("i7", "click+", created)], frozenset())
    assert found["items"][0] == expected(snapshot, user, {"i3", "i7"})[:5]
    assert found["items"][1] == expected(snapshot, UserFeatures([], [], frozenset()), set())[:5]
    assert len(model.predict(None, asked)["items"][0]) == 10


def test_kinds_times_and_profiles_count(model: ReleaseModel, snapshot: Snapshot) -> None:
    columns = {"history": [["i3"]], "kinds": [["dislike-"]], "times": [np.array([5])], "profile": [["age=30"]]}
    found = model.predict(None, pd.DataFrame(columns), {"slate_size": 3})
    user = UserFeatures(["age=30"], [HistoryEvent("i3", "dislike-", 5)], frozenset())
    assert found["items"][0] == expected(snapshot, user, {"i3"})[:3]
    with pytest.raises(ValueError, match="history has 2 items, kinds 1, times 2"):
        model.predict(None, pd.DataFrame({"history": [["i3", "i4"]], "kinds": [["click+"]]}))
