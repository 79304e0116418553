"""The pipeline on a small genuine release."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from feature_store.contracts.catalogue import Item
from feature_store.definitions import (
    DAY_MS,
    ITEM_FEATURES,
    RECENT_POPULARITY,
    USER_TOKENS,
    HistoryEvent,
    kind_id,
    ranker_features,
    token_ids,
)
from feature_store.shown import Shown, pack
from feature_store.sums import COLUMNS, N
from feature_store.user_features import NOBODY, UserFeatures
from infra.benchmarks.small_release import build_release, items
from online_serving.parameters import Parameters
from online_serving.pipeline.candidates import SOURCES
from online_serving.pipeline.explore import worth_exploring
from online_serving.pipeline.features import candidate_features, encode_user
from online_serving.pipeline.pipeline import Pipeline, unexplored
from online_serving.pipeline.request import Filter, Recommendation, Request
from online_serving.settings import Boosting, ServingSettings
from online_serving.snapshot import Snapshot
from streaming.bandit.diag_linucb import score
from streaming.bandit.slates import steepened
from streaming.settings import BanditMode, BanditSettings, ScoreForm
from tests.rows import rows_of

CATALOGUE = items(60)
BANDIT = BanditSettings()
SERVING = ServingSettings(candidates=20, cluster_candidates=20, fresh_candidates=5)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    home: Path = tmp_path_factory.mktemp("releases")
    loaded = Snapshot.load(home, build_release(home, catalogue=CATALOGUE), CATALOGUE)
    return loaded.with_items((f"n{k}", Item(id=f"n{k}", title=f"New {k}", categories=["noir"])) for k in range(8))


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """With i1 among comedies, i2 in space, i3 among dramas, and i4 among comedies and in space."""
    home: Path = tmp_path_factory.mktemp("shelves")
    both = msgspec.structs.replace(CATALOGUE[4], categories=["comedy", "space"])
    return Snapshot.load(home, build_release(home, catalogue=CATALOGUE), [*CATALOGUE[:4], both, *CATALOGUE[5:]])


@pytest.fixture(scope="module")
def parameters(snapshot: Snapshot) -> Parameters:
    rng = np.random.default_rng(5)
    base = rows_of({f":i{k}": rng.uniform(0, 20, COLUMNS) for k in range(0, 60, 3)})
    return Parameters(snapshot.graph, [base], [0])


def recommend(
    snapshot: Snapshot,
    parameters: Parameters,
    request: Request,
    user: UserFeatures = NOBODY,
    mode: BanditMode = BanditMode.EXPLORE,
    serving: ServingSettings = SERVING,
    seed: int = 0,
    bandit: BanditSettings = BANDIT,
) -> Recommendation:
    rng = np.random.default_rng(seed)
    pipeline = Pipeline(serving, bandit.model_copy(update={"mode": mode}))
    return pipeline.recommend(snapshot, parameters.table(0), request, user, rng)


def boosting(said: dict[str, float]) -> tuple[tuple[str, Boosting], ...]:
    return tuple((expression, Boosting(factor=factor)) for expression, factor in said.items())


def test_logged_values_equal_recomputed_ones(snapshot: Snapshot, parameters: Parameters) -> None:
    past = [HistoryEvent(f"i{k}", "click+", 90 - k) for k in range(10, 20)]
    first = [HistoryEvent("i7", "click+", 99), HistoryEvent("i8", "dislike-", 98)]
    user = UserFeatures(
        ["age=5.1"],
        [*first, HistoryEvent("gone", "click+", 97), HistoryEvent("n3", "like+", 96), *past],
        frozenset(),
    )
    r = recommend(snapshot, parameters, Request(6), user)
    # Newest first, as much as the tower reads; of that it knows all but one.
    assert r.history == ["i7", "i8", "gone", "n3", "i10"]
    assert r.history_kinds == ["click+", "dislike-", "click+", "like+", "click+"]
    assert r.history_times == [99, 98, 97, 96, 80]

    read = [0, 1, 3, 4]  # the tower reads oldest first
    vectors = snapshot.vectors[snapshot.positions(r.history[k] for k in read)]
    padded = np.concatenate([vectors[::-1], np.zeros((1, snapshot.manifest.dimensions), np.float32)])
    kinds = np.array([[*(kind_id(r.history_kinds[k]) for k in read[::-1]), 0]])
    gaps = np.array([[0, 1, 1, 1, 0]])  # less than a second
    tokens = token_ids(r.profile, USER_TOKENS)[None]
    vector = snapshot.towers.user_vectors(padded[None], kinds, gaps, np.array([4]), tokens)[0]
    history = vectors[[0, 2, 3]]  # the ranker looks at what was liked
    positions = snapshot.positions(r.items)
    centroids, items = snapshot.centroids[r.clusters], snapshot.item_features[positions]
    features = ranker_features(vector, history, centroids, np.array(r.weights), snapshot.vectors[positions], items)
    np.testing.assert_allclose(r.predicted, snapshot.towers.predict(features), rtol=1e-5)
    again = score(
        BANDIT, np.array(r.clusters), np.array(r.weights), positions, np.array(r.predicted), parameters.table(0)
    )
    np.testing.assert_allclose(r.mean, again.mean, rtol=1e-9)
    worth = worth_exploring(BANDIT, np.array(r.predicted), parameters.table(0).items[positions])
    np.testing.assert_allclose(r.bonus, again.bonus * worth, rtol=1e-9)
    assert r.edges == again.edges.tolist()


def test_without_the_bandit_the_prediction_decides(snapshot: Snapshot, parameters: Parameters) -> None:
    r = recommend(snapshot, parameters, Request(10), mode=BanditMode.OFF)
    assert r.predicted == sorted(r.predicted, reverse=True)
    assert r.mean == r.predicted
    assert r.probabilities == [1.0] * 10
    assert r.bonus == [0.0] * 10
    assert r.items == r.slate


def test_an_unexplored_slate_is_that_of_the_prediction_alone(snapshot: Snapshot, parameters: Parameters) -> None:
    explored = recommend(snapshot, parameters, Request(10))
    plain = recommend(snapshot, parameters, Request(10), mode=BanditMode.OFF)
    assert unexplored(explored, 10).columns() == plain.columns()


def test_the_bandit_sees_predictions_as_steep_as_the_release_says(snapshot: Snapshot, parameters: Parameters) -> None:
    steep = replace(snapshot, manifest=msgspec.structs.replace(snapshot.manifest, steepness=3.0))
    one, other = (recommend(each, parameters, Request(6), mode=BanditMode.GREEDY) for each in (snapshot, steep))
    assert other.candidates.predicted.tolist() == one.candidates.predicted.tolist(), "what is logged is a probability"
    place = {item: at for at, item in enumerate(other.candidates.ids())}
    compared = steepened(other.candidates.predicted, 3.0, 6)[[place[item] for item in other.items]]
    positions = snapshot.positions(other.items)
    again = score(BANDIT, np.array(other.clusters), np.array(other.weights), positions, compared, parameters.table(0))
    np.testing.assert_allclose(other.mean, again.mean, rtol=1e-9)
    frozen = recommend(steep, parameters, Request(6), mode=BanditMode.OFF)
    assert frozen.mean == frozen.predicted


def test_greedy_takes_the_best_means(snapshot: Snapshot, parameters: Parameters) -> None:
    r = recommend(snapshot, parameters, Request(10), mode=BanditMode.GREEDY)
    assert r.mean[:10] == sorted(r.mean[:10], reverse=True)
    assert r.probabilities == [1.0] * 10


def test_an_item_graduates_by_its_resolved_trials() -> None:
    rows = np.array([[5000, 999, 0, 0, 0], [1000, 1000, 0, 0, 0]], dtype=np.float64)  # served, resolved
    settled = BanditSettings(graduation_trials=1000, item_centric_sigmas=0)
    assert worth_exploring(settled, np.zeros(2), rows).tolist() == [True, False]
    never = settled.model_copy(update={"graduation_trials": 0})
    assert worth_exploring(never, np.zeros(2), rows).tolist() == [True, True]


def test_an_item_is_not_explored_for_whom_will_probably_dislike_it() -> None:
    # 48 of 96 rewarded: mu = 49/98 = 0.5, sigma = sqrt(0.25/99) = 0.0503, so the bound of two sigmas is 0.3995.
    fair = [96, 96, 48, 48, 48]  # the model's predictions came out right on average
    modest = [96, 96, 48, 48, 9.6]  # it predicted 0.1 each, and is 38.4/98 = 0.3918 too low
    unknown = [0, 0, 0, 0, 0]
    rows = np.array([fair, fair, modest, modest, unknown], dtype=np.float64)
    predicted = np.array([0.41, 0.39, 0.01, 0.005, 0.0])
    settled = BanditSettings(graduation_trials=0, item_centric_sigmas=2.0)
    assert worth_exploring(settled, predicted, rows).tolist() == [True, False, True, False, True]
    off = settled.model_copy(update={"item_centric_sigmas": 0.0})
    assert worth_exploring(off, predicted, rows).all()


@settings(max_examples=50)
@given(
    st.integers(0, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.floats(0, 1))),
    st.floats(0, 1),
    st.floats(0.1, 4),
)
def test_the_bound_is_that_of_the_beta_posterior(item: tuple[int, int, float], predicted: float, sigmas: float) -> None:
    n, positive, mean_prediction = item
    row = np.array([[n, n, positive, positive, n * mean_prediction]], dtype=np.float64)
    posterior = beta(1 + positive, 1 + n - positive)
    p = predicted + (positive - n * mean_prediction) / (n + 2)
    margin = p - (posterior.mean() - sigmas * posterior.std())
    assume(abs(margin) > 1e-9)
    settled = BanditSettings(graduation_trials=0, item_centric_sigmas=sigmas)
    assert worth_exploring(settled, np.array([predicted]), row).tolist() == [margin >= 0]


def test_what_is_not_worth_exploring_is_shown_for_its_mean_only(snapshot: Snapshot, parameters: Parameters) -> None:
    settled = BanditSettings(explore_share=1.0, graduation_trials=1, item_centric_sigmas=0)
    trials = dict(zip(snapshot.graph.items, parameters.table(0).items[:, N].tolist(), strict=True))
    r = recommend(snapshot, parameters, Request(10), bandit=settled)
    graduated = [trials[item] >= 1 for item in r.items]
    assert any(graduated)
    assert [bonus == 0 for bonus in r.bonus] == graduated
    assert not any(graduated[: r.shown])  # there is enough left to explore


def test_a_surface_has_its_own_share(snapshot: Snapshot, parameters: Parameters) -> None:
    quiet = BanditSettings(explore_share=1.0, explore_share_by_surface={"checkout": 0.0})
    r = recommend(snapshot, parameters, Request(10, surface="checkout"), bandit=quiet)
    assert r.probabilities == [1.0] * 10
    assert max(recommend(snapshot, parameters, Request(10), bandit=quiet).probabilities) <= 0.5


def test_rules_come_first_and_are_counted(snapshot: Snapshot, parameters: Parameters) -> None:
    shown = frozenset(f"i{k}" for k in range(50)) | {"gone"}
    user = UserFeatures([], [], shown)
    request = Request(40, exclude=Filter(items=("i55",), categories=("noir",)))
    r = recommend(snapshot, parameters, request, user)
    assert sorted(r.slate) == sorted(f"i{k}" for k in range(50, 60) if k != 55)
    assert r.rules == {"unavailable": 0, "shown_before": 50, "excluded": 9}
    assert set(recommend(snapshot, parameters, request, user, serving=ServingSettings(repeat_days=0)).slate) & shown


@pytest.mark.parametrize(
    ("rules", "hidden"),
    [
        ({}, {"i1", "i2", "i3", "i4"}),
        ({"repeat_days": 0}, set()),
        ({"repeat_days": 1}, {"i1"}),
        ({"repeat_days": 3}, {"i1", "i2"}),
        ({"repeat_days": 4}, {"i1", "i2", "i3"}),
        ({"repeat_days": 1, "category_repeat_days": {"comedy": 30}}, {"i1", "i4"}),
        ({"category_repeat_days": {"drama": 1}}, {"i1", "i2", "i4"}),
        ({"repeat_days": 0, "category_repeat_days": {"space": 3, "comedy": 9, "noir": 99}}, {"i1", "i2"}),
        ({"repeat_days": 0, "category_repeat_days": {"space": 10, "comedy": 9}}, {"i1", "i2", "i4"}),
        ({"repeat_days": 0, "category_repeat_days": {"comedy": 99}, "surfaces": {"s": {"repeat_days": 1}}}, {"i1"}),
        ({"repeat_days": 9, "surfaces": {"s": {"repeat_days": 0}}}, set()),
        ({"repeat_days": 3, "surfaces": {"elsewhere": {"repeat_days": 0}}}, {"i1", "i2"}),
    ],
)
def test_an_item_comes_back_after_its_interval(shelves: Snapshot, rules: dict[str, Any], hidden: set[str]) -> None:
    now = 20_000 * DAY_MS + 5
    days = {"i4": 9, "i3": 3, "i2": 2, "i1": 0}  # ago
    user = UserFeatures([], [], Shown(pack((item, now - days[item] * DAY_MS) for item in days)))
    serving = ServingSettings(**rules)
    request = Request(9, only=Filter(items=tuple(days)), surface="s", time=now)
    r = recommend(shelves, Parameters(shelves.graph, [], [0]), request, user, serving=serving)
    assert set(r.slate) == days.keys() - hidden
    assert r.rules.get("shown_before", 0) == len(hidden)


def test_nothing_left_is_an_empty_slate(snapshot: Snapshot, parameters: Parameters) -> None:
    for mode in BanditMode:
        r = recommend(snapshot, parameters, Request(5, only=Filter(items=("nothing",))), mode=mode)
        assert (r.items, r.probabilities, r.candidates.ids()) == ([], [], [])


def test_only_named_items_and_only_a_category(snapshot: Snapshot, parameters: Parameters) -> None:
    named = recommend(snapshot, parameters, Request(5, only=Filter(items=("i1", "i2"))))
    assert set(named.slate) == {"i1", "i2"}
    assert set(named.sources) == {"named"}
    noir = recommend(snapshot, parameters, Request(20, only=Filter(categories=("noir",))))
    assert set(noir.slate) == {f"n{k}" for k in range(8)}


@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        ('category == "drama"', range(0, 60, 3)),  # the fewer are those described
        ('category != "drama"', [n for n in range(60) if n % 3]),  # ... or those not described
        ('category == "nothing"', []),
    ],
)
def test_a_filter_goes_with_the_other_rules(
    snapshot: Snapshot, parameters: Parameters, where: str, numbers: Sequence[int]
) -> None:
    by_rules = {f"i{n}" for n in numbers}
    comedy_or_some = Filter(items=("i0", "i2", "i3"), categories=("comedy",))
    r = recommend(snapshot, parameters, Request(60, where=where, exclude=Filter(items=("i3",)), only=comedy_or_some))
    assert set(r.slate) == {f"i{n}" for n in (0, 2, *range(1, 60, 3))} & by_rules
    assert snapshot.size - sum(r.rules.values()) == len(r.candidates.ids()) == len(r.slate)
    alone = recommend(snapshot, parameters, Request(60, where=where, exclude=Filter(categories=("noir",))))
    assert set(alone.slate) == by_rules
    assert snapshot.size - sum(alone.rules.values()) == len(by_rules)


def test_lists_of_what_was_liked_are_a_source(tmp_path: Path, parameters: Parameters) -> None:
    listed = Snapshot.load(tmp_path, build_release(tmp_path, catalogue=CATALOGUE, list_length=3), CATALOGUE)
    few = SERVING.model_copy(update={"candidates": 1, "cluster_candidates": 0, "list_candidates": 4})
    user = UserFeatures(
        [],
        [HistoryEvent("i7", "click+", 9), HistoryEvent("i20", "dislike-", 8), HistoryEvent("i30", "click+", 7)],
        frozenset({"i7", "i9", "i20", "i30"}),
    )
    r = recommend(listed, parameters, Request(20), user, BanditMode.OFF, few)
    (bit,) = (source.bit for source in SOURCES if source.name == "lists")
    named = {item for item, bits in zip(r.candidates.ids(), r.candidates.sources.tolist(), strict=True) if bits & bit}
    assert named == {"i8", "i10", "i31", "i32"}, "i33 is one too many"
    assert all(("lists" in source) == (item in named) for item, source in zip(r.items, r.sources, strict=True))
    nobody = recommend(listed, parameters, Request(20), mode=BanditMode.OFF, serving=few)
    assert not any("lists" in source for source in nobody.sources)


def test_new_items_are_candidates_until_their_trials_outweigh_the_prior(snapshot: Snapshot) -> None:
    base = rows_of({":n7": [BANDIT.fresh_trials, 0, 0, 0, 0], ":n6": [BANDIT.fresh_trials - 1, 0, 0, 0, 0]})
    parameters = Parameters(snapshot.graph, [base], [0])
    few = SERVING.model_copy(update={"candidates": 1, "cluster_candidates": 0, "fresh_candidates": 7})
    r = recommend(snapshot, parameters, Request(1), serving=few)
    assert {"n0", "n1", "n2", "n3", "n4", "n5", "n6"} <= set(r.candidates.ids())
    assert "n7" not in r.candidates.ids() or "fresh" not in r.sources[r.items.index("n7")]
    fewer = few.model_copy(update={"fresh_candidates": 2})
    assert {"n5", "n4"} <= set(recommend(snapshot, parameters, Request(1), serving=fewer).candidates.ids())


def test_what_the_request_says_takes_the_place_of_what_is_stored(snapshot: Snapshot, parameters: Parameters) -> None:
    user = UserFeatures(["age=5.1", "country=nz"], [], frozenset())
    r = recommend(snapshot, parameters, Request(1, context=("age=6.0",)), user)
    assert r.profile == ["age=6.0", "country=nz"]


def test_the_same_seed_gives_the_same_slate(snapshot: Snapshot, parameters: Parameters) -> None:
    one, two = (recommend(snapshot, parameters, Request(8), seed=3) for _ in range(2))
    assert one.columns() == two.columns()
    assert one.candidates.ids() == two.candidates.ids()


@pytest.mark.parametrize("where", [None, 'category in ["noir", "drama"]'])
def test_logged_probabilities_are_frequencies(snapshot: Snapshot, parameters: Parameters, where: str | None) -> None:
    first: dict[str, list[float]] = {}
    runs = 400
    for seed in range(runs):
        r = recommend(snapshot, parameters, Request(1, where=where), seed=seed)
        first.setdefault(r.items[0], []).append(r.probabilities[0])
    for probabilities in first.values():
        p = probabilities[0]
        assert len(set(probabilities)) == 1
        assert abs(len(probabilities) / runs - p) < 5 * np.sqrt(p * (1 - p) / runs)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(1, 70),
    shown=st.sets(st.sampled_from([item.id for item in CATALOGUE])),
    mode=st.sampled_from(list(BanditMode)),
    candidates=st.integers(1, 80),
    seed=st.integers(0, 10),
)
def test_laws_of_every_slate(
    snapshot: Snapshot, parameters: Parameters, size: int, shown: set[str], mode: BanditMode, candidates: int, seed: int
) -> None:
    serving = SERVING.model_copy(update={"candidates": candidates})
    user = UserFeatures([], [], frozenset(shown))
    r = recommend(snapshot, parameters, Request(size), user, mode, serving, seed)
    assert len(r.slate) == min(size, snapshot.size - len(shown))
    assert len(set(r.items)) == len(r.items)
    assert not shown & set(r.items)
    assert set(r.items) <= set(r.candidates.ids())
    columns = (r.sources, r.predicted, r.mean, r.bonus, r.edges)
    assert all(len(column) == len(r.items) for column in columns)
    assert len(r.probabilities) == r.shown == len(r.slate)
    assert all(0 < p <= 1 for p in r.probabilities)
    assert all(0 < w <= 1 for w in r.weights)
    assert all(e < 2 ** len(r.clusters) for e in r.edges)


def test_every_stage_is_entered_once_by_its_name(snapshot: Snapshot, parameters: Parameters) -> None:
    stages: list[str] = []

    def stage(name: str) -> AbstractContextManager[None]:
        stages.append(name)
        return nullcontext()

    pipeline = Pipeline(ServingSettings(), BANDIT, stage)
    pipeline.recommend(snapshot, parameters.table(0), Request(5), NOBODY, np.random.default_rng(0))
    sources = [source.name for source in SOURCES]
    assert stages == ["user", "rules", "candidates", *sources, "features", "rank", "explore", "columns"]


def test_a_user_encoded_and_predictions_made_before_get_the_same_answer(
    snapshot: Snapshot, parameters: Parameters
) -> None:
    user, request = UserFeatures(["age=5.1"], [HistoryEvent("i7", "click+", 99)], frozenset({"i8"})), Request(5)
    pipeline = Pipeline(SERVING, BANDIT)
    encoded = encode_user(snapshot, user, request)
    everything = snapshot.towers.predict(candidate_features(snapshot, encoded, np.arange(snapshot.size)))
    found = pipeline.recommend_to(
        snapshot,
        parameters.table(0),
        request,
        encoded,
        user.shown,
        lambda candidates: everything[candidates].astype(np.float64),
        np.random.default_rng(3),
    )
    again = pipeline.recommend(snapshot, parameters.table(0), request, user, np.random.default_rng(3))
    assert (found.items, found.sources, found.rules) == (again.items, again.sources, again.rules)
    np.testing.assert_allclose(found.mean, again.mean, rtol=1e-5)


def test_stale_item_features_are_not_read(snapshot: Snapshot) -> None:
    column = ITEM_FEATURES.index(RECENT_POPULARITY)
    popular = replace(snapshot, item_features=np.ones_like(snapshot.item_features))
    stale = snapshot.manifest.created + 28 * DAY_MS + 1
    found = []
    for time in (None, stale - 1, stale):
        user = encode_user(popular, NOBODY, Request(1, time=time))
        features = candidate_features(popular, user, popular.positions(["i1", "i2"]))
        found.append(features[:, column].tolist())
        assert (np.delete(features[:, : len(ITEM_FEATURES)], column, axis=1) == 1).all()
    assert found == [[1, 1], [1, 1], [0, 0]]


def test_without_the_ranker_the_nearest_come_first(snapshot: Snapshot, parameters: Parameters) -> None:
    near = SERVING.model_copy(update={"ranker": False})
    user = UserFeatures(["age=5.1"], [HistoryEvent("i7", "click+", 99)], frozenset())
    r = recommend(snapshot, parameters, Request(8), user, BanditMode.OFF, near)
    vector = encode_user(snapshot, user, Request(8)).vector
    affinity = snapshot.vectors[r.candidates.positions] @ vector
    best = [r.candidates.ids()[k] for k in np.argsort(-affinity, kind="stable")[:8]]
    assert r.slate == best
    assert all(0 <= predicted <= 1 for predicted in r.candidates.predicted.tolist())


def test_excluded_categories_are_never_shown(snapshot: Snapshot, parameters: Parameters) -> None:
    free = recommend(snapshot, parameters, Request(20))
    named = max(snapshot.categories, key=lambda name: len(snapshot.categories[name]))
    members = set(snapshot.graph.ids(snapshot.categories[named].tolist()))
    assert members & set(free.candidates.ids())
    ruled = recommend(
        snapshot, parameters, Request(20), serving=SERVING.model_copy(update={"excluded_categories": (named, "zoo")})
    )
    assert not members & set(ruled.candidates.ids())
    assert ruled.rules["excluded_categories"] == len(members)


@pytest.mark.parametrize("by_request", [False, True])
def test_boosts_multiply_estimates_and_predictions_stay(
    snapshot: Snapshot, parameters: Parameters, by_request: bool
) -> None:
    named = max(snapshot.categories, key=lambda name: len(snapshot.categories[name]))
    members = set(snapshot.graph.ids(snapshot.categories[named].tolist()))
    boosted = SERVING.model_copy(update={"category_boosts": {named: 3.0, "zoo": 2.0}})
    boosts = boosting({f'category == "{named}"': 1.5, f'not category != "{named}"': 2.0, 'category == "zoo"': 2.0})
    with_boosts = (Request(60, boosts=boosts), SERVING) if by_request else (Request(60), boosted)
    free, raised = (
        recommend(snapshot, parameters, request, mode=BanditMode.GREEDY, serving=serving)
        for request, serving in ((Request(60), SERVING), with_boosts)
    )
    assert free.candidates.predicted.tolist() == raised.candidates.predicted.tolist()
    before, after = (dict(zip(r.items, r.mean, strict=True)) for r in (free, raised))
    assert members & set(before)
    for item, mean in before.items():
        assert after[item] == pytest.approx(mean * (3.0 if item in members else 1.0))
    assert raised.mean[: raised.shown] == sorted(raised.mean[: raised.shown], reverse=True)


def test_a_boost_raises_and_a_bury_lowers_an_estimate_below_zero(snapshot: Snapshot) -> None:
    """Of negative rewards: twice -0.5 would be worse."""
    earned = {
        f"{cluster}:i{k}": [20.0, 20.0, 0.0, -10.0, 0.0]
        for cluster in range(snapshot.graph.clusters)
        for k in range(60)
    }
    parameters = Parameters(snapshot.graph, [rows_of(earned)], [0])
    published = BANDIT.model_copy(update={"form": ScoreForm.PUBLISHED})

    def means(factor: float) -> dict[str, float]:
        request = Request(60, boosts=boosting({"not has(nothing)": factor}))
        r = recommend(snapshot, parameters, request, mode=BanditMode.GREEDY, bandit=published)
        return dict(zip(r.items, r.mean, strict=True))

    plain, raised, buried = means(1.0), means(2.0), means(0.5)
    below = [item for item, mean in plain.items() if mean < 0]
    assert below
    for item in below:
        assert raised[item] == pytest.approx(plain[item] / 2)
        assert buried[item] == pytest.approx(plain[item] * 2)


def test_a_boost_fades_and_ends(snapshot: Snapshot, parameters: Parameters) -> None:
    """At a million milliseconds begins what is worth 3, half as far from 1 an hour later; what ends then is worth 1."""
    begun, hour = 1_000_000, 3_600_000
    fading = Boosting(factor=3.0, since=begun, half_life_hours=1.0)
    ending = Boosting(factor=0.5, until=begun + hour)
    pipeline = Pipeline(SERVING, BANDIT.model_copy(update={"mode": BanditMode.GREEDY}))

    def factors(time: int | None) -> set[float]:
        plain, boosted = (
            pipeline.recommend(
                snapshot, parameters.table(0), Request(60, boosts=boosts, time=time), NOBODY, np.random.default_rng(0)
            )
            for boosts in ((), (("not has(nothing)", fading), ("not has(nothing)", ending)))
        )
        before, after = (dict(zip(r.items, r.mean, strict=True)) for r in (plain, boosted))
        return {round(after[item] / before[item], 6) for item in before.keys() & after.keys()}

    assert factors(begun - 1) == {0.5}
    assert factors(begun) == {1.5}
    assert factors(begun + hour) == {2.0}
    assert factors(begun + 2 * hour) == {1.5}
    assert factors(None) == {1.5}


def test_items_outside_their_window_are_taken_out_and_counted(snapshot: Snapshot, parameters: Parameters) -> None:
    pipeline = Pipeline(SERVING, BANDIT)
    timed = snapshot.with_items([("i3", Item(id="i3", available_until=500))])
    asked = {
        time: pipeline.recommend(
            timed, parameters.table(0), Request(60, Filter(), time=time), NOBODY, np.random.default_rng(0)
        )
        for time in (499, 500, None)
    }
    assert ["i3" in r.candidates.ids() for r in asked.values()] == [True, False, True]
    assert [r.rules.get("outside_window") for r in asked.values()] == [0, 1, None]


def test_levels_of_a_slate_end_in_its_estimates(snapshot: Snapshot, parameters: Parameters) -> None:
    serving = SERVING.model_copy(update={"category_boosts": {"drama": 1.5}})
    steep = replace(snapshot, manifest=msgspec.structs.replace(snapshot.manifest, steepness=1.5))
    pipeline, request = Pipeline(serving, BANDIT), Request(8, boosts=boosting({'category == "comedy"': 2.0}))
    r = pipeline.recommend(steep, parameters.table(0), request, NOBODY, np.random.default_rng(3))
    found = pipeline.levels(steep, parameters.table(0), request, r)
    assert found.mean == pytest.approx(r.mean[: r.shown])
    said = {item.id: {"drama": 1.5, "comedy": 2.0}.get(item.categories[0], 1.0) for item in CATALOGUE}
    assert found.boost.tolist() == [said.get(item, 1.0) for item in r.slate]
    assert {1.5, 2.0} & set(found.boost.tolist())
    explored = np.array(r.bonus[: r.shown]) > 0
    assert explored.any()
    assert (found.deviation * BANDIT.alpha)[explored] == pytest.approx(np.array(r.bonus[: r.shown])[explored])


def test_the_greedy_pipeline_has_the_best_first(snapshot: Snapshot, parameters: Parameters) -> None:
    bold = BANDIT.model_copy(update={"explore_share": 1.0})
    pipeline = Pipeline(SERVING, bold).greedy()
    r = pipeline.recommend(snapshot, parameters.table(0), Request(8), NOBODY, np.random.default_rng(3))
    assert r.mean[: r.shown] == sorted(r.mean[: r.shown], reverse=True)
    off = Pipeline(SERVING, BANDIT.model_copy(update={"mode": BanditMode.OFF})).greedy()
    by_prediction = off.recommend(snapshot, parameters.table(0), Request(8), NOBODY, np.random.default_rng(3))
    assert by_prediction.mean == by_prediction.predicted
