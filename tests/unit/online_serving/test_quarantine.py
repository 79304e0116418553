"""A catalogue with entries that cannot be served: these are left out, the others are as if they were not there."""

import logging
from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.catalogue import Item
from feature_store.online.catalogue import UnreadableItem
from infra.benchmarks.small_release import build_release, items
from online_serving.quarantine import Quarantine
from online_serving.snapshot import Snapshot

CATALOGUE = items(20)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("releases")


@pytest.fixture(scope="module")
def release(home: Path) -> str:
    return build_release(home, catalogue=CATALOGUE)


def unservable(name: str) -> Item:
    return Item(id=name, title="Too large", attributes={"size": float("inf")})


def test_what_cannot_be_read_is_masked_and_told_about_once(
    home: Path, release: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    quarantine, snapshot = Quarantine(), Snapshot.load(home, release, CATALOGUE)
    for _ in range(3):
        broken = UnreadableItem("i3", "JSON is malformed")
        snapshot = quarantine.changed(snapshot, [("i3", broken), ("new", Item(id="new", title="Title 3"))])
    assert np.flatnonzero(~snapshot.available).tolist() == [3]
    assert snapshot.available[snapshot.graph.position("new")]
    assert quarantine.items == {"i3"}
    (record,) = caplog.records
    assert "'i3'" in record.getMessage()
    assert "PUT /v1/items" in record.getMessage()

    snapshot = quarantine.changed(snapshot, [("i3", CATALOGUE[3])])
    assert snapshot.available.all()
    assert not quarantine.items


def test_what_cannot_be_embedded_holds_up_none_of_its_batch(home: Path, release: str) -> None:
    quarantine, snapshot = Quarantine(), Snapshot.load(home, release, CATALOGUE)
    good = {f"good{k}": Item(id=f"good{k}", title=f"Title {k}") for k in range(30)}
    bad = {name: unservable(name) for name in ("bad1", "good7", "zzz")}
    changed = quarantine.changed(snapshot, {**good, **bad}.items())
    assert quarantine.items == bad.keys()
    alone = Quarantine().changed(
        Snapshot.load(home, release, CATALOGUE), ((name, item) for name, item in good.items() if name not in bad)
    )
    assert changed.graph.items == alone.graph.items
    np.testing.assert_allclose(changed.vectors, alone.vectors, rtol=1e-6)
    np.testing.assert_array_equal(changed.graph.edge_cluster, alone.graph.edge_cluster)

    healed = quarantine.changed(changed, [("good7", good["good7"]), ("bad1", None)])
    assert quarantine.items == {"zzz"}
    assert healed.available[healed.graph.position("good7")]


def test_a_live_item_whose_new_content_cannot_be_embedded_is_masked_as_it_was(home: Path, release: str) -> None:
    quarantine, snapshot = Quarantine(), Snapshot.load(home, release, CATALOGUE)
    snapshot = quarantine.changed(snapshot, [("live", Item(id="live", title="Alpha"))])
    changed = quarantine.changed(snapshot, [("live", unservable("live")), ("other", Item(id="other", title="Beta"))])
    j = changed.graph.position("live")
    assert not changed.available[j]
    np.testing.assert_array_equal(changed.vectors[j], snapshot.vectors[j])
    assert changed.available[changed.graph.position("other")]
