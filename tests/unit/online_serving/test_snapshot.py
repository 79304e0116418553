"""Snapshots: what a release holds, and how catalogue changes become new snapshots without touching old ones."""

from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.catalogue import Item
from feature_store.contracts.errors import InvalidInput, ReleaseRefused
from infra.benchmarks.small_release import build_release, items
from online_serving.allowed import Allowed
from online_serving.snapshot import Snapshot

CATALOGUE = items(40)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("releases")


@pytest.fixture(scope="module")
def release(home: Path) -> str:
    return build_release(home, catalogue=CATALOGUE)


@pytest.fixture
def snapshot(home: Path, release: str) -> Snapshot:
    return Snapshot.load(home, release, CATALOGUE)


def everything(snapshot: Snapshot) -> np.ndarray:
    return np.ones(snapshot.size, dtype=np.bool_)


def test_only_items_of_the_catalogue_are_available(home: Path, release: str) -> None:
    taken_out = Item(id="i1", available=False)
    loaded = Snapshot.load(home, release, [CATALOGUE[0], taken_out])
    assert np.flatnonzero(loaded.available).tolist() == [0]
    assert Snapshot.load(home, release).available.all()


def test_a_new_item_is_found_and_the_old_snapshot_is_as_it_was(snapshot: Snapshot) -> None:
    before = (snapshot.size, snapshot.vectors.copy(), [snapshot.graph.items_of(c).copy() for c in range(4)])
    grown = snapshot.with_items([("new", Item(id="new", title="Title 5", categories=["space"]))])
    j = grown.position("new")
    assert j == 40
    assert grown.graph.ids([j]) == ["new"]
    assert grown.available[j]
    assert j in grown.unknown
    assert j in grown.categories["space"]
    np.testing.assert_allclose(np.linalg.norm(grown.vectors[j]), 1, rtol=1e-5)
    assert grown.index.nearest(grown.vectors[j], grown.vectors, Allowed.of(everything(grown)), 1).tolist() == [j]

    assert snapshot.position("new") is None
    assert snapshot.positions(["new", "i3"]).tolist() == [3]
    assert snapshot.size == before[0]
    np.testing.assert_array_equal(snapshot.vectors, before[1])
    assert all(snapshot.graph.items_of(c).tolist() == before[2][c].tolist() for c in range(4))
    assert j not in snapshot.categories["space"]


def test_a_new_item_joins_the_clusters_whose_weakest_edge_it_beats(snapshot: Snapshot) -> None:
    grown = snapshot.with_items([("new", Item(id="new", title="Title 5"))])
    scores = grown.centroids @ grown.vectors[40]
    weakest = [
        min(float(snapshot.vectors[j] @ c) for j in snapshot.graph.items_of(k)) for k, c in enumerate(grown.centroids)
    ]
    beaten = {k for k in range(4) if scores[k] > weakest[k]} or {int(scores.argmax())}
    assert set(grown.graph.clusters_of(40).tolist()) == beaten
    assert all((40 in grown.graph.items_of(k)) == (k in beaten) for k in range(4))


def test_deleting_masks_and_putting_back_unmasks(snapshot: Snapshot) -> None:
    deleted = snapshot.with_items([("i2", None), ("i5", Item(id="i5", available=False)), ("never there", None)])
    assert not deleted.available[[2, 5]].any()
    assert 2 not in deleted.categories["space"]
    back = deleted.with_items([("i2", CATALOGUE[2])])
    assert back.available[2]
    assert 2 in back.categories["space"]
    assert back.size == 40


def test_windows_open_and_close_by_the_time_of_a_request(snapshot: Snapshot) -> None:
    timed = snapshot.with_items(
        [
            ("i1", Item(id="i1", available_from=100)),
            ("i2", Item(id="i2", available_from=50, available_until=100)),
            ("new", Item(id="new", title="Title 5", available_from=100)),
        ]
    )
    j = timed.position("new")
    assert j is not None, "it is ready before its time"

    def shown(at: int | None) -> list[bool]:
        return [bool(timed.masks_at(at).available[place]) for place in (0, 1, 2, j)]

    assert [shown(at) for at in (0, 50, 99)] == [
        [True, False, False, False],
        [True, False, True, False],
        [True, False, True, False],
    ]
    assert timed.masks_at(50) is timed.masks_at(99)
    assert shown(100) == [True, True, False, True]
    assert shown(99) == [True, False, True, False], "clocks of two processes differ"
    assert shown(None) == [True, True, True, True]
    assert timed.masks_at(100).count == timed.masks.count - 1
    always = timed.with_items([("i1", Item(id="i1")), ("new", None), ("i2", Item(id="i2"))])
    assert always.masks_at(0) is always.masks


def test_new_content_moves_a_live_item_but_not_for_requests_in_flight(snapshot: Snapshot) -> None:
    one = snapshot.with_items([("new", Item(id="new", title="Alpha"))])
    vector = one.vectors[40].copy()
    two = one.with_items([("new", Item(id="new", title="Beta"))])
    np.testing.assert_array_equal(one.vectors[40], vector)
    assert not np.allclose(two.vectors[40], vector)
    assert two.size == 41


def test_content_of_a_trained_item_does_not_move_it(snapshot: Snapshot) -> None:
    changed = snapshot.with_items([("i3", Item(id="i3", title="Another", categories=["noir"]))])
    np.testing.assert_array_equal(changed.vectors[3], snapshot.vectors[3])
    assert changed.categories["noir"].tolist() == [3]


def test_categories_are_those_of_the_newest_entries_however_they_came(snapshot: Snapshot) -> None:
    rng, entries, grown = np.random.default_rng(0), {item.id: item for item in CATALOGUE}, snapshot
    for _ in range(60):
        changes: dict[str, Item | None] = {}
        for number in rng.choice(45, rng.integers(1, 12)).tolist():  # five are new to the release
            chosen = rng.permutation(["drama", "noir", "space", "war"])[: rng.integers(4)].tolist()
            name = f"i{number}"
            changes[name] = None if rng.random() < 0.2 else Item(id=name, title="Title", categories=chosen)
        grown = grown.with_items(changes.items())
        entries = {name: item for name, item in {**entries, **changes}.items() if item is not None}
        wanted: dict[str, list[int]] = {}
        for position, name in enumerate(grown.graph.items):
            for category in entries[name].categories if name in entries else ():
                wanted.setdefault(category, []).append(position)
        found = {category: members.tolist() for category, members in grown.categories.items() if len(members)}
        assert found == wanted


def test_a_filter_sees_items_as_each_snapshot_has_them(snapshot: Snapshot) -> None:
    def described(by: Snapshot) -> list[str]:
        matches = by.matching("price < 10")
        assert by.matching("price < 10") is matches
        places = matches.positions if matches.described else np.setdiff1d(np.arange(by.size), matches.positions)
        return by.graph.ids(places.tolist())

    cheap = snapshot.with_items([(n, Item(id=n, attributes={"price": 5})) for n in ("i3", "new")])
    dear = cheap.with_items([("i3", Item(id="i3", attributes={"price": 50})), ("i4", Item(id="i4"))])
    assert [described(by) for by in (snapshot, cheap, dear)] == [[], ["i3", "new"], ["new"]]
    for by in (snapshot, cheap, dear):
        for expression in ("price < 10", "not price < 10"):
            wanted = ["i4", "i3", *(["new"] if by is not snapshot else [])]
            found = by.matching(expression).of(by.positions(wanted))
            assert found.tolist() == [(item in described(by)) == (expression == "price < 10") for item in wanted]
    gone = dear.with_items([("new", None)])
    assert described(gone) == []


def test_no_more_than_some_filters_are_remembered(snapshot: Snapshot) -> None:
    first = snapshot.matching("price < 0")
    for number in range(1, 40):
        assert len(snapshot.matching(f"price < {number}").positions) == 0
    assert snapshot.matching("price < 0") is not first


def test_only_the_newest_snapshot_can_be_changed(snapshot: Snapshot) -> None:
    snapshot.with_items([("a", Item(id="a", title="A"))])
    with pytest.raises(InvalidInput, match="changed already"):
        snapshot.with_items([("b", Item(id="b", title="B"))])


def test_many_additions_one_by_one_equal_one_batch(home: Path, release: str) -> None:
    new = [Item(id=f"n{k}", title=f"Title {k}", categories=["space"]) for k in range(150)]
    at_once = Snapshot.load(home, release, CATALOGUE).with_items((item.id, item) for item in new)
    one_by_one = Snapshot.load(home, release, CATALOGUE)
    for item in new:
        one_by_one = one_by_one.with_items([(item.id, item)])
    np.testing.assert_allclose(one_by_one.vectors, at_once.vectors, rtol=1e-6)
    np.testing.assert_array_equal(one_by_one.graph.edge_cluster, at_once.graph.edge_cluster)
    np.testing.assert_array_equal(one_by_one.categories["space"], at_once.categories["space"])
    assert one_by_one.size == at_once.size == 190


def test_a_damaged_release_is_refused(home: Path, release: str, tmp_path: Path) -> None:
    copy = tmp_path / release
    copy.mkdir()
    for file in (home / release).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    Snapshot.load(tmp_path, release)
    (copy / "centroids.npy").write_bytes(b"\0" * 100)
    with pytest.raises(ReleaseRefused, match=r"centroids\.npy is missing or was changed"):
        Snapshot.load(tmp_path, release)
    with pytest.raises(ReleaseRefused, match="There is no release"):
        Snapshot.load(tmp_path, "0000")
