"""Users as vectors: what is remembered is what would be computed, and the clusters are the nearest of all."""

import numpy as np
import pytest

from feature_store.arrays import Int64
from feature_store.definitions import USER_TOKENS
from infra.benchmarks.small_release import build_release, items
from online_serving import people
from online_serving.people import Events
from online_serving.snapshot import Snapshot
from streaming.bandit.diag_linucb import context

NOTHING = np.zeros(USER_TOKENS, np.int64)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    home = tmp_path_factory.mktemp("releases")
    return Snapshot.load(home, build_release(home, catalogue=items(60), clusters=40, active_clusters=3))


def met(*positions: int) -> Events:
    """A history of these items."""
    nothing: Int64 = np.ones(len(positions), np.int64)
    return Events(np.array(positions, np.int64), nothing, nothing)


def test_clusters_and_weights_are_those_of_a_look_at_all_centroids(snapshot: Snapshot) -> None:
    for positions in ((), (1,), (7, 3, 9), (0, 1, 2, 3, 4)):
        found = snapshot.people.encode(snapshot.vectors, met(*positions), NOTHING)
        clusters, weights = context(found.vector, snapshot.centroids, 3, snapshot.manifest.context_temperature)
        assert found.clusters.tolist() == clusters.tolist()
        np.testing.assert_allclose(found.weights, weights, rtol=1e-6)


def test_who_comes_back_is_remembered_until_something_about_them_differs(snapshot: Snapshot) -> None:
    known = snapshot.people.encode(snapshot.vectors, met(1, 2), NOTHING)
    assert snapshot.people.encode(snapshot.vectors, met(1, 2), NOTHING) is known
    others = [
        (met(2, 1), NOTHING), (met(1, 2, 2), NOTHING), (met(1, 2)._replace(kinds=np.array([1, 5])), NOTHING),
        (met(1, 2)._replace(gaps=np.array([1, 5])), NOTHING), (met(1, 2), NOTHING + 1),
    ]  # fmt: skip
    assert all(snapshot.people.encode(snapshot.vectors, *other) is not known for other in others)
    anew = snapshot.people.anew().encode(snapshot.vectors, met(1, 2), NOTHING)
    assert anew is not known
    assert anew.vector.tolist() == known.vector.tolist()


def test_nobody_is_remembered_for_ever(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "REMEMBERED", 2)
    some = snapshot.people.anew()
    first, second = (some.encode(snapshot.vectors, met(j), NOTHING) for j in (1, 2))
    assert some.encode(snapshot.vectors, met(1), NOTHING) is first  # asked for last
    some.encode(snapshot.vectors, met(3), NOTHING)
    assert some.encode(snapshot.vectors, met(1), NOTHING) is first
    assert some.encode(snapshot.vectors, met(2), NOTHING) is not second
