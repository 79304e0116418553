"""What every kind of index owes its callers: the nearest allowed items, all that were asked for, old and new alike."""

from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.contracts.catalogue import Item
from infra.benchmarks.small_release import build_release, items
from online_serving.allowed import Allowed
from online_serving.item_index import ItemIndex
from online_serving.snapshot import Snapshot

CATALOGUE = items(300)
EXACT, INVERTED = "Flat", "IVF40,Flat"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("releases")
    return home / build_release(home, catalogue=CATALOGUE)


@pytest.fixture(scope="module", params=[EXACT, INVERTED])
def snapshot(request: pytest.FixtureRequest, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A release whose index was written, and read again; an inverted file searches 3 of its 40 lists."""
    loaded = Snapshot.load(release.parent, release.name)
    index = faiss.index_factory(loaded.vectors.shape[1], request.param, faiss.METRIC_INNER_PRODUCT)
    if isinstance(index, faiss.IndexIVF):
        index.cp.min_points_per_centroid = 1
        index.train(loaded.vectors)
        index.nprobe = 3
    index.add(loaded.vectors)
    path = str(tmp_path_factory.mktemp("index") / "index.faiss")
    faiss.write_index(index, path)
    return replace(loaded, index=ItemIndex(faiss.read_index(path)))


def nearest(snapshot: Snapshot, user: np.ndarray, allowed: np.ndarray, count: int) -> list[int]:
    found: list[int] = snapshot.index.nearest(user, snapshot.vectors, Allowed.of(allowed), count).tolist()
    return found


def exact(snapshot: Snapshot, user: np.ndarray, allowed: np.ndarray, count: int) -> list[int]:
    order = np.argsort(-(snapshot.vectors @ user))
    best: list[int] = order[allowed[order]][:count].tolist()
    return best


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 99), share=st.floats(0, 1), count=st.integers(1, 350))
def test_as_many_as_asked_for_allowed_distinct_and_best_first(
    snapshot: Snapshot, seed: int, share: float, count: int
) -> None:
    rng = np.random.default_rng(seed)
    user = rng.normal(size=(snapshot.vectors.shape[1],)).astype(np.float32)
    allowed = np.less(rng.random(snapshot.size), share)
    found = nearest(snapshot, user, allowed, count)
    assert len(set(found)) == len(found) == min(count, np.count_nonzero(allowed))
    assert allowed[found].all()
    assert (np.diff(snapshot.vectors[found] @ user) <= 1e-6).all()


@pytest.mark.parametrize(("snapshot", "least"), [(EXACT, 5), (INVERTED, 3)], indirect=["snapshot"])
def test_the_nearest_few_are_those_of_exact_search(snapshot: Snapshot, least: int) -> None:
    everything = np.ones(snapshot.size, np.bool_)
    hits = [
        len(set(nearest(snapshot, user, everything, 5)) & set(exact(snapshot, user, everything, 5)))
        for user in snapshot.vectors[:50]
    ]
    assert np.mean(hits) >= least


@pytest.mark.parametrize("left", [1, 3, 10])
def test_a_filter_that_leaves_few_items_finds_the_best_of_them(snapshot: Snapshot, left: int) -> None:
    user = snapshot.centroids[0]
    allowed = np.zeros(snapshot.size, np.bool_)
    allowed[np.argsort(snapshot.vectors @ user)[: 2 * left]] = True  # the farthest of all
    assert nearest(snapshot, user, allowed, left) == exact(snapshot, user, allowed, left)
    allowed[:] = False
    assert nearest(snapshot, user, allowed, left) == []


def test_of_few_named_items_all_are_looked_at(snapshot: Snapshot) -> None:
    user, few = snapshot.centroids[0], np.arange(0, 300, 20)
    mask = np.zeros(snapshot.size, np.bool_)
    mask[few] = True
    found = snapshot.index.nearest(user, snapshot.vectors, Allowed.of(mask)._replace(few=few), 5)
    assert found.tolist() == exact(snapshot, user, mask, 5)


def test_someone_who_has_seen_the_nearest_items_gets_the_next(snapshot: Snapshot) -> None:
    user = snapshot.centroids[0]
    allowed = np.ones(snapshot.size, np.bool_)
    allowed[exact(snapshot, user, allowed, 280)] = False
    assert nearest(snapshot, user, allowed, 20) == exact(snapshot, user, allowed, 20)


def test_live_items_are_found_and_deleted_ones_never_come_back(snapshot: Snapshot) -> None:
    live = snapshot.with_items([("new", Item(id="new", title="Something else", categories=["space"]))])
    user, j = live.vectors[300], live.position("new")
    assert nearest(live, user, live.available, 3)[0] == j == 300
    gone = live.with_items([("new", None), ("i7", None)])
    assert nearest(gone, user, gone.available, 400) == exact(gone, user, gone.available, 400)
    assert not {300, 7} & set(nearest(gone, gone.vectors[7], gone.available, 400))
    back = gone.with_items([("i7", CATALOGUE[7])])
    assert nearest(back, back.vectors[7], back.available, 1) == [7]
