"""Parts fail, and answers become plainer: which, with which probabilities, and that they say so."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_store.arrays import Float32, Int64
from feature_store.contracts.catalogue import Item
from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import ITEM_FEATURES, HistoryEvent
from feature_store.online.deployment import Active
from feature_store.shown import Shown, pack
from feature_store.user_features import NOBODY, UserFeatures
from infra.benchmarks.small_release import build_release, items
from online_serving import last_seen
from online_serving.answer_paths import AnswerPath, AnswerPaths, Made
from online_serving.last_seen import LastSeen
from online_serving.parameters import Parameters
from online_serving.people import People
from online_serving.pipeline.pipeline import Pipeline
from online_serving.pipeline.request import Filter, Recommendation, Request
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot
from online_serving.state import ServingState
from online_serving.towers import Towers
from streaming.settings import BanditMode, BanditSettings

CATALOGUE = items(40)
REQUEST = Request(slate_size=6, time=1_000)
RELEASES = "releases"
_POPULARITY = [feature.name for feature in ITEM_FEATURES].index("recent_popularity")


class WithoutNumbers(Towers):
    """Models whose ranker computes nonsense."""

    def predict(self, features: Float32) -> Float32:
        return np.full(len(features), np.nan, dtype=np.float32)


class Silent(Towers):
    """Models none of which runs."""

    def user_vectors(self, *_: Float32 | Int64) -> Float32:
        raise RuntimeError("the user tower does not run")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(RELEASES)


@pytest.fixture(scope="module")
def snapshot(home: Path) -> Snapshot:
    return Snapshot.load(home, build_release(home, catalogue=CATALOGUE), CATALOGUE)


def answered(
    snapshot: Snapshot,
    request: Request = REQUEST,
    user: UserFeatures = NOBODY,
    known: AnswerPath = AnswerPath.FULL,
    serving: ServingSettings | None = None,
) -> Made:
    state = ServingState(Active(snapshot.release, "n"), snapshot, Parameters(snapshot.graph, [], [0]), [])
    pipeline = Pipeline(serving or ServingSettings(), BanditSettings(mode=BanditMode.EXPLORE))
    return AnswerPaths().recommend(pipeline, state, request, user, known, np.random.default_rng(3))


def without_ranker(snapshot: Snapshot, home: Path) -> Snapshot:
    return replace(snapshot, towers=WithoutNumbers(home / snapshot.release))


def without_models(snapshot: Snapshot, home: Path) -> Snapshot:
    towers = Silent(home / snapshot.release)
    return replace(snapshot, towers=towers, people=People(towers, snapshot.centroids, 50, 5, 0.1))


@pytest.mark.parametrize("known", [AnswerPath.FULL, AnswerPath.CACHED_USER, AnswerPath.SEGMENT])
def test_while_all_models_run_the_path_says_how_the_user_is_known(snapshot: Snapshot, known: AnswerPath) -> None:
    made = answered(snapshot, known=known)
    assert made.path is known
    assert made.by_bandit
    assert min(made.recommendation.probabilities) < 1


def test_without_a_ranker_the_nearest_are_shown_for_certain_and_the_bandit_learns_nothing(
    snapshot: Snapshot, home: Path
) -> None:
    made = answered(without_ranker(snapshot, home))
    assert made.path is AnswerPath.WITHOUT_RANKER
    assert not made.by_bandit
    r = made.recommendation
    assert r.probabilities == [1.0] * 6
    assert r.bonus == [0.0] * len(r.items)
    order = np.argsort(-r.candidates.predicted, kind="stable")[:6]
    assert r.slate == [r.candidates.ids()[i] for i in order.tolist()]


def test_of_two_reasons_the_plainer_one_is_named(snapshot: Snapshot, home: Path) -> None:
    assert answered(without_ranker(snapshot, home), known=AnswerPath.CACHED_USER).path is AnswerPath.CACHED_USER
    assert not answered(without_ranker(snapshot, home), known=AnswerPath.CACHED_USER).by_bandit


def test_without_models_the_most_popular_lately_are_shown_by_the_rules_of_the_request(
    snapshot: Snapshot, home: Path
) -> None:
    features = np.zeros_like(snapshot.item_features)
    for place, position in enumerate([5, 1, 9, 2]):
        features[position, _POPULARITY] = 4 - place
    silent = replace(without_models(snapshot, home), item_features=features)
    names = snapshot.graph.ids([5, 1, 9, 2, 0, 3])
    made = answered(silent)
    assert made.path is AnswerPath.POPULAR
    assert made.recommendation.slate == names
    assert made.recommendation.mean == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert made.recommendation.probabilities == [1.0] * 6
    assert made.recommendation.sources == ["popular"] * 6
    assert not made.by_bandit
    shown = UserFeatures([], [], Shown(pack([(names[0], 0)])))
    assert answered(silent, user=shown).recommendation.slate[:3] == names[1:4]
    only = replace(REQUEST, only=Filter(items=tuple(names[2:4])))
    assert answered(silent, only).recommendation.slate == names[2:4]
    nothing = replace(REQUEST, only=Filter(items=("unheard of",)))
    assert answered(silent, nothing).recommendation.slate == []


def test_of_what_the_models_never_saw_the_popular_ones_are_shown_too(snapshot: Snapshot, home: Path) -> None:
    grown = without_models(snapshot, home).with_items([("live", Item(id="live"))])
    assert len(answered(grown, replace(REQUEST, slate_size=41)).recommendation.slate) == 41


USER = UserFeatures(["age=31"], [HistoryEvent("i1", "click+", 5)], Shown(b""))


def test_what_redis_said_last_is_kept_with_what_it_could_not_be_told() -> None:
    seen = LastSeen()
    assert seen.of("u") is None
    seen.keep("u", USER)
    seen.shown("u", pack([("i2", 0)]))
    seen.shown("stranger", pack([("i2", 0)]))
    assert seen.of("u") == USER._replace(shown=Shown(pack([("i2", 0)])))
    assert seen.of("stranger") is None
    seen.forget("u")
    assert seen.of("u") is None


def test_of_many_users_the_last_are_kept_and_none_for_longer_than_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = LastSeen()
    monkeypatch.setattr(last_seen, "_USERS", 2)
    for user in ("a", "b", "a", "c"):
        seen.keep(user, USER)
    assert [user for user in "abc" if seen.of(user)] == ["a", "c"]
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 901)
    assert seen.of("a") is None


def test_a_request_at_fault_is_refused_in_any_case(snapshot: Snapshot) -> None:
    class Refusing(Pipeline):
        def recommend(self, *_: object) -> Recommendation:
            raise InvalidInput("not like this")

    state = ServingState(Active(snapshot.release, "n"), snapshot, Parameters(snapshot.graph, [], [0]), [])
    pipeline = Refusing(ServingSettings(), BanditSettings())
    with pytest.raises(InvalidInput, match="not like this"):
        AnswerPaths().recommend(pipeline, state, REQUEST, NOBODY, AnswerPath.FULL, np.random.default_rng(3))
