"""Releases and namespaces of earlier formats, kept under tests/golden as they were written, and read by today's code.

One folder per format: add one when a format changes, and keep those that can still be served. They were made with
infra/benchmarks/small_release.py, whose arithmetic gives the answers.
"""

from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.manifest import open_release, read_manifest
from feature_store.definitions import USER_TOKENS
from feature_store.namespace import Namespace
from feature_store.shown import digests
from online_serving.item_lists import ItemLists
from online_serving.release_files import read_contents, read_digests
from online_serving.towers import Towers

GOLDEN = Path(__file__).parents[2] / "golden"
RELEASES = sorted((GOLDEN / "releases").iterdir())


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_a_release_is_read_as_it_was_written(folder: Path) -> None:
    manifest = open_release(folder, read_manifest(folder).features)  # also where features are defined otherwise by now
    assert (manifest.items, manifest.dimensions, manifest.clusters, manifest.history_length) == (4, 2, 2, 2)
    contents = read_contents(folder, manifest)
    assert read_digests(folder).tolist() == digests(["i0", "i1", "i2", "i3"]).tolist()
    assert contents.items.ids.strings(4) == ["i0", "i1", "i2", "i3"]
    assert contents.items.vectors == pytest.approx(
        np.array([[0.6894, -0.7244], [0.9868, 0.1616], [-0.8288, 0.5595], [0.8091, 0.5877]]), abs=1e-4
    )
    assert contents.items.features[:, 0] == pytest.approx(np.log1p([4, 3, 2, 1]))
    assert contents.centroids == pytest.approx(np.array([[-0.4860, -0.8739], [-0.9978, 0.0662]]), abs=1e-4)
    assert [contents.graph.items_of(cluster).tolist() for cluster in range(2)] == [[0, 2], [0, 2]]
    assert contents.index.search(contents.items.vectors[:1], 1)[1].tolist() == [[0]]
    lists = ItemLists.load(folder, 4)
    assert lists is not None
    assert lists.items.tolist() == [[1, 2], [2, 3], [3, -1], [-1, -1]]


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_its_models_run(folder: Path) -> None:
    towers = Towers(folder)
    history = np.zeros((1, 2, 2), np.float32)
    history[0, 0] = [0.59, 0.79]
    nothing = np.zeros((1, 2), np.int64)
    tokens = np.zeros((1, USER_TOKENS), np.int64)
    vector = towers.user_vectors(history, nothing, nothing, np.array([1]), tokens)[0]
    assert vector == pytest.approx(np.array([0.6, 0.8]))  # (.59 + .01, .79 + .01), of length 1


@pytest.mark.parametrize("folder", sorted((GOLDEN / "namespaces").iterdir()), ids=lambda folder: folder.name)
def test_a_namespace_is_read_as_it_was_written(folder: Path) -> None:
    namespace = Namespace.load(folder.parent, folder.name)
    assert (namespace.release, namespace.log, namespace.offsets) == (folder.name[:16], "log", [0, 0])
    assert len(namespace.starts) == 2
    assert len(namespace.base.items) == 0
