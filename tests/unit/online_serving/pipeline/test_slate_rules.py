"""Caps, pins and diversity of requests, through the pipeline."""

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from feature_store.contracts.catalogue import Item
from feature_store.shown import Shown, pack
from feature_store.sums import COLUMNS
from feature_store.user_features import NOBODY, UserFeatures
from infra.benchmarks.small_release import build_release, items
from online_serving.parameters import Parameters
from online_serving.pipeline.pipeline import Pipeline, unexplored
from online_serving.pipeline.request import Filter, Recommendation, Request
from online_serving.pipeline.slate_rules import fitted
from online_serving.settings import ServingSettings
from online_serving.snapshot import Snapshot
from streaming.settings import BanditMode, BanditSettings
from tests.rows import rows_of

# Of categories drama, comedy and space in turn; of brands a to d, but for every fifth.
CATALOGUE = [
    msgspec.structs.replace(item, attributes={"brand": "abcd"[n % 4]} if n % 5 else {})
    for n, item in enumerate(items(60))
]
SERVING = ServingSettings(candidates=30, cluster_candidates=30)
BOLD = BanditSettings(explore_share=0.5)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home: Path = tmp_path_factory.mktemp("releases")
    return home / build_release(home, catalogue=CATALOGUE)


@pytest.fixture
def snapshot(release: Path) -> Snapshot:
    return Snapshot.load(release.parent, release.name, CATALOGUE)


@pytest.fixture
def parameters(snapshot: Snapshot) -> Parameters:
    rng = np.random.default_rng(5)
    base = rows_of({f":i{k}": rng.uniform(0, 20, COLUMNS) for k in range(0, 60, 3)})
    return Parameters(snapshot.graph, [base], [0])


def recommend(
    snapshot: Snapshot,
    parameters: Parameters,
    request: Request,
    user: UserFeatures = NOBODY,
    bandit: BanditSettings = BOLD,
    seed: int = 0,
) -> Recommendation:
    rng = np.random.default_rng(seed)
    return Pipeline(SERVING, bandit).recommend(snapshot, parameters.table(0), request, user, rng)


def by_value(answered: list[str]) -> Counter[str]:
    known = {item.id: item for item in CATALOGUE}
    brands = [str(known[item].attributes["brand"]) for item in answered if known[item].attributes]
    return Counter([*brands, *(known[item].categories[0] for item in answered)])


@pytest.mark.parametrize("mode", list(BanditMode))
def test_caps_hold_on_every_way_to_an_answer(snapshot: Snapshot, parameters: Parameters, mode: BanditMode) -> None:
    request = Request(12, caps=(("category", 3), ("brand", 2)), pins=(("i0", 2), ("i3", 5)))
    pipeline = Pipeline(SERVING, BOLD.model_copy(update={"mode": mode}))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        r = pipeline.recommend(snapshot, parameters.table(0), request, NOBODY, rng)
        late = unexplored(r, 12)
        popular = pipeline.popular(snapshot, request, NOBODY)
        plainer = pipeline.without_ranker().recommend(snapshot, parameters.table(0), request, NOBODY, rng)
        for answer in (r, late, popular, plainer):
            answered = answer.answered
            assert len(answered) == len(set(answered)) == 9, "three of each category"
            assert (answered[1], answered[4]) == ("i0", "i3")
            counted = by_value(answered)
            assert max(counted[brand] for brand in "abcd") <= 2
            assert {counted[name] for name in ("drama", "comedy", "space")} == {3}


def test_a_pin_is_no_trial_and_the_rest_of_the_slate_is(snapshot: Snapshot, parameters: Parameters) -> None:
    r = recommend(snapshot, parameters, Request(4, pins=(("i7", 9), ("i8", 1), ("nothing", 2))))
    assert r.answered[0] == "i8"
    assert r.answered[3] == "i7", "as near to its place as there are items"
    assert (r.pinned, r.pinned_places) == (["i8", "i7"], [1, 4])
    assert (r.shown, r.places) == (2, [2, 3])
    assert not {"i7", "i8"} & set(r.items), "nor is it in the exploration set"
    assert {"i7", "i8"} <= set(r.candidates.ids())
    assert r.rules["pins_not_allowed"] == 1
    assert r.greedy is not None


def test_pins_are_there_each_time_and_other_rules_go_before(snapshot: Snapshot, parameters: Parameters) -> None:
    seen = UserFeatures([], [], Shown(pack([("i8", 1), ("i9", 1)])))
    pinned = Request(3, pins=(("i8", 1),))
    assert recommend(snapshot, parameters, pinned, seen).answered[0] == "i8"
    assert "i9" not in recommend(snapshot, parameters, pinned, seen).candidates.ids()
    gone = snapshot.with_items([("i8", None)])
    for taken_out, request in (
        (gone, pinned),
        (snapshot, Request(3, pins=pinned.pins, exclude=Filter(("i8",)))),
        (snapshot, Request(3, pins=pinned.pins, where='category == "drama"')),
        (snapshot, Request(3, pins=pinned.pins, only=Filter(("i1", "i2")))),
        (snapshot, Request(3, pins=pinned.pins, before=Shown(pack([("i8", 1)])))),
    ):
        r = recommend(taken_out, parameters, request, NOBODY)
        assert "i8" not in r.answered
        assert r.pinned is None
        assert r.rules["pins_not_allowed"] == 1


def test_diversity_keeps_what_is_alike_apart(snapshot: Snapshot, parameters: Parameters) -> None:
    def likeness(diversity: float) -> float:
        greedy = BOLD.model_copy(update={"mode": BanditMode.GREEDY})
        r = recommend(snapshot, parameters, Request(6, diversity=diversity), bandit=greedy)
        vectors = snapshot.vectors[snapshot.positions(r.answered)]
        return float((vectors @ vectors.T - np.eye(6)).max(axis=1).mean())

    found = [likeness(diversity) for diversity in (0.0, 0.5, 1.0)]
    assert found[0] > found[1] >= found[2]


def test_logged_probabilities_of_ruled_slates_are_frequencies(snapshot: Snapshot, parameters: Parameters) -> None:
    """Of every first item, over 4,000 requests: by the drawn items, and by what each draw logs of its own."""
    few = Filter(tuple(f"i{n}" for n in range(6)))
    request = Request(2, only=few, caps=(("category", 1),), pins=(("i0", 1),), diversity=0.4)
    pipeline, table = Pipeline(SERVING, BOLD), parameters.table(0)
    rng, draws = np.random.default_rng(3), 4_000
    counts, logged = Counter[str](), dict[str, float]()
    for _ in range(draws):
        r = pipeline.recommend(snapshot, table, request, NOBODY, rng)
        counts[r.items[0]] += 1
        logged[r.items[0]] = r.probabilities[0]
    assert sum(logged.values()) == pytest.approx(1)
    assert set(logged) <= {"i1", "i2", "i4", "i5"}, "no second drama beside i0"
    for item, probability in logged.items():
        spread = (probability * (1 - probability) / draws) ** 0.5
        assert abs(counts[item] / draws - probability) < 5 * spread


def test_places() -> None:
    assert fitted([1, 4], 10) == [1, 4]
    assert fitted([1, 4, 9], 3) == [1, 2, 3]
    assert fitted([3, 9], 5) == [3, 5]
    assert fitted([], 0) == []


def test_what_has_no_value_of_an_attribute_is_not_capped(snapshot: Snapshot, parameters: Parameters) -> None:
    unbranded = Filter(tuple(f"i{n}" for n in range(0, 60, 5)))
    r = recommend(snapshot, parameters, Request(8, only=unbranded, caps=(("brand", 1), ("nothing", 1))))
    assert len(r.answered) == 8
    mixed = snapshot.with_items(
        (f"i{n}", Item(id=f"i{n}", attributes={"made": n % 2 if n < 4 else "x"})) for n in range(6)
    )
    r = recommend(mixed, parameters, Request(8, only=Filter(tuple(f"i{n}" for n in range(6))), caps=(("made", 1),)))
    assert len(r.answered) == 3, "0, 1 and x"
