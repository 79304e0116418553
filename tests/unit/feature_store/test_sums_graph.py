"""Rows of sums, and the graph that gives edges their rows."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.errors import InvalidInput, ReleaseRefused
from feature_store.graph import Graph
from feature_store.namespace import Namespace, Start
from feature_store.sums import Sums, edge_key, item_key, split_key, total


@given(st.one_of(st.none(), st.integers(0, 10**6)), st.text())
def test_keys_hold_any_item_id(cluster: int | None, item: str) -> None:
    key = item_key(item) if cluster is None else edge_key(cluster, item)
    assert split_key(key) == (cluster, item)


def test_rows_add_and_unknown_ones_are_zero() -> None:
    sums = Sums()
    sums.add("a", 1, 2, 3, 4, 5)
    sums.add("a", 1, 0, 0, 0, 0.5)
    assert sums.get("a").tolist() == [2, 2, 3, 4, 5.5]
    assert sums.get("b").tolist() == [0] * 5
    assert len(sums) == 1


def test_total_adds_partitions() -> None:
    one, two = Sums(), Sums()
    one.add("a", 1, 1, 1, 1, 1)
    two.add("b", 2, 2, 2, 2, 2)
    two.add("a", 3, 3, 3, 3, 3)
    both = total([one, two])
    assert both.get("a").tolist() == [4] * 5
    assert both.get("b").tolist() == [2] * 5
    assert one.get("a").tolist() == [1] * 5  # the parts stay as they were


def test_many_rows_survive_the_disk(tmp_path: Path) -> None:
    sums = Sums()
    for i in range(1000):
        sums.add(f"{i}:ü", i, 1 / 3, 0, -i, 1e-300)
    sums.save(tmp_path / "sums.parquet")
    loaded = Sums.load(tmp_path / "sums.parquet")
    assert loaded.keys() == sums.keys()
    assert np.array_equal(loaded.rows(), sums.rows())


def test_an_empty_table_survives_the_disk(tmp_path: Path) -> None:
    Sums().save(tmp_path / "sums.parquet")
    assert len(Sums.load(tmp_path / "sums.parquet")) == 0


def _graph() -> Graph:
    # a: clusters 0, 2;  b: none;  c: cluster 2
    return Graph.build(["a", "b", "c"], np.array([2, 0, 0]), np.array([2, 2, 0]), clusters=3)


def test_edges_are_rows_by_item_with_clusters_ascending() -> None:
    graph = _graph()
    assert graph.item_start.tolist() == [0, 2, 2, 3]
    assert graph.edge_cluster.tolist() == [0, 2, 2]
    assert [graph.items_of(c).tolist() for c in range(3)] == [[0], [], [0, 2]]
    assert graph.row(2, 0) == 1
    assert graph.row(2, 2) == 2
    assert graph.row(1, 0) is None
    assert graph.row(0, 1) is None


def test_appending_leaves_rows_as_they_were() -> None:
    graph = _graph()
    for i in range(200):
        assert graph.append(f"new {i}", [2, 1, 2]) == 3 + i
    assert graph.row(2, 2) == 2
    assert graph.row(1, 3) == 3
    assert graph.n_edges == 3 + 2 * 200
    assert graph.items_of(1).tolist() == list(range(3, 203))
    assert graph.items_of(2).tolist() == [0, *range(2, 203)]
    with pytest.raises(InvalidInput, match="'a' is in the graph already"):
        graph.append("a", [])
    with pytest.raises(InvalidInput, match="names cluster 3, there are 3"):
        graph.append("z", [3])
    with pytest.raises(InvalidInput, match="Item 'a' comes twice"):
        Graph.build(["a", "b", "a"], np.array([0]), np.array([0]), clusters=1)
    with pytest.raises(InvalidInput, match=r"cluster -1\.\.0, there are 3"):
        Graph.build(["a"], np.array([0, 0]), np.array([0, -1]), clusters=3)
    with pytest.raises(InvalidInput, match=r"item 0\.\.1, there are 1 items"):
        Graph.build(["a"], np.array([0, 1]), np.array([0, 0]), clusters=3)


def test_a_graph_survives_the_disk(tmp_path: Path) -> None:
    graph = _graph()
    graph.append("d\n", [1])
    graph.save(tmp_path / "graph.parquet")
    loaded = Graph.load(tmp_path / "graph.parquet")
    assert loaded.items == graph.items
    assert loaded.clusters == 3
    assert loaded.item_start.tolist() == graph.item_start.tolist()
    assert loaded.edge_cluster.tolist() == graph.edge_cluster.tolist()
    assert [loaded.items_of(c).tolist() for c in range(3)] == [[0], [3], [0, 2]]


@given(st.lists(st.sets(st.integers(0, 4)), max_size=12), st.integers(0, 12))
def test_built_and_appended_graphs_are_equal(clusters: list[set[int]], built: int) -> None:
    names = [f"i{j}" for j in range(len(clusters))]
    pairs = [(j, c) for j, found in enumerate(clusters[:built]) for c in found]
    item, cluster = np.array(pairs, dtype=np.int64).reshape(-1, 2)[::-1].T
    graph = Graph.build(names[:built], item, cluster, 5)
    for name, found in zip(names[built:], clusters[built:], strict=True):
        graph.append(name, list(found))
    assert [graph.clusters_of(j).tolist() for j in range(len(names))] == [sorted(found) for found in clusters]
    assert [graph.items_of(c).tolist() for c in range(5)] == [
        [j for j, found in enumerate(clusters) if c in found] for c in range(5)
    ]
    for j, found in enumerate(clusters):
        assert {c for c in range(5) if graph.row(c, j) is not None} == found


def test_a_namespace_survives_the_disk_and_is_never_rewritten(tmp_path: Path) -> None:
    base = Sums()
    base.add("0:a", 1, 2, 3, 4, 5)
    namespace = Namespace(
        id="r-1",
        release="r",
        log="log",
        offsets=[3, 4],
        created=7,
        graph=_graph(),
        base=base,
        starts=[Start(5, False, {"d": b"x"}), Start()],
        translations={"older": np.array([[0.25, 0.75, 0.0]])},
    )
    namespace.save(tmp_path)
    loaded = Namespace.load(tmp_path, "r-1")
    assert (loaded.release, loaded.log, loaded.offsets, loaded.created) == ("r", "log", [3, 4], 7)
    assert loaded.starts == [Start(5, False, {"d": b"x"}), Start()]
    assert loaded.base.get("0:a").tolist() == [1, 2, 3, 4, 5]
    assert loaded.translations["older"].tolist() == [[0.25, 0.75, 0.0]]
    with pytest.raises(ReleaseRefused, match="exists already"):
        namespace.save(tmp_path)
    with pytest.raises(ReleaseRefused, match="r-2 cannot be read"):
        Namespace.load(tmp_path, "r-2")
