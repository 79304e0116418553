"""Rows of sums, and the graph that gives edges their rows."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.errors import InvalidInput, ReleaseRefused
from feature_store.decay import Decay
from feature_store.graph import Graph
from feature_store.namespace import Description, Namespace, Start
from feature_store.sums import ITEM, NO_ROWS, Rows, Sums
from feature_store.translation import Translation
from tests.rows import by_name, rows_of


def test_rows_add_and_unknown_ones_are_zero() -> None:
    sums = Sums.of(rows_of({":a": [1, 2, 3, 4, 5]}), rows_of({":a": [1, 0, 0, 0, 0.5]}))
    assert sums.get("a").tolist() == [2, 2, 3, 4, 5.5]
    assert sums.get("a", 0).tolist() == [0] * 5
    assert sums.get("b").tolist() == [0] * 5
    assert len(sums) == 1


@st.composite
def batches(draw: st.DrawFn) -> list[dict[tuple[str, int], list[int]]]:
    """Batches of rows of few items and of clusters from one end of their range to the other."""
    key = st.tuples(st.sampled_from(["", "a", "ü:\n", "0"]), st.sampled_from([ITEM, 0, 1, 7, 2**31 - 2]))
    row = st.lists(st.integers(-1000, 1000), min_size=5, max_size=5)
    return draw(st.lists(st.dictionaries(key, row, max_size=12), max_size=6))


def as_rows(batch: dict[tuple[str, int], list[int]]) -> Rows:
    items = sorted({item for item, _ in batch}, reverse=True)
    return Rows(
        items,
        np.array([items.index(item) for item, _ in batch], np.int32),
        np.array([cluster for _, cluster in batch], np.int32),
        np.array(list(batch.values()), float).reshape(-1, 5),
    )


def as_dict(rows: Rows) -> dict[tuple[str, int], list[float]]:
    keys = [(rows.items[item], int(cluster)) for item, cluster in zip(rows.item, rows.cluster, strict=True)]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, rows.values.tolist(), strict=True))


@given(batches())
def test_a_table_is_a_dictionary_of_sums(parts: list[dict[tuple[str, int], list[int]]]) -> None:
    expected: dict[tuple[str, int], list[float]] = {}
    for part in parts:
        for key, row in part.items():
            expected[key] = [a + b for a, b in zip(expected.get(key, [0.0] * 5), row, strict=True)]
    sums = Sums.of(*map(as_rows, parts))
    assert as_dict(sums.rows()) == expected
    assert list(as_dict(sums.rows())) == list(expected)  # in order of arrival
    chained = Rows.chain([as_rows(part) for part in parts])
    assert len(set(chained.items)) == len(chained.items)
    assert as_dict(Sums.of(chained).rows()) == expected
    for item, cluster in [("", ITEM), ("a", 7), ("ü:\n", 2**31 - 2), ("never", 0)]:
        assert sums.get(item, cluster).tolist() == expected.get((item, cluster), [0.0] * 5)


def test_a_table_grows_to_many_rows() -> None:
    rng = np.random.default_rng(3)
    item, cluster = rng.integers(0, 300, 40_000), rng.integers(ITEM, 200, 40_000)
    names = [f"item {k}" for k in range(300)]
    values = rng.integers(-9, 9, (40_000, 5)).astype(float)
    sums = Sums()
    for part in np.array_split(np.arange(40_000), 7):
        sums.merge(Rows(names, item[part].astype(np.int32), cluster[part].astype(np.int32), values[part]))
    expected = np.zeros((300, 201, 5))
    np.add.at(expected, (item, cluster + 1), values)
    rows = sums.rows()
    assert len(sums) == len(np.unique(item * 1000 + cluster))
    found = np.array([names.index(name) for name in rows.items])
    assert np.array_equal(rows.values, expected[found[rows.item], rows.cluster + 1])
    assert np.array_equal(sums.select(rows), rows.values)


@pytest.mark.parametrize("at_once", [7, 10_000])
def test_rows_survive_the_disk(at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_store.sums._ROWS_AT_ONCE", at_once)
    rows = rows_of({f"{i % 3}:ü{i}\n": [i, 1 / 3, 0, -i, 1e-300] for i in range(1000)} | {":0": [1.0] * 5})
    rows.save(tmp_path / "rows.parquet")
    assert by_name(Rows.load(tmp_path / "rows.parquet")) == by_name(rows)
    parts = [by_name(part) for part in Rows.read(tmp_path / "rows.parquet")]
    assert {name: row for part in parts for name, row in part.items()} == by_name(rows)
    assert max(map(len, parts)) <= at_once


def test_no_rows_survive_the_disk(tmp_path: Path) -> None:
    NO_ROWS.save(tmp_path / "rows.parquet")
    assert by_name(Rows.load(tmp_path / "rows.parquet")) == {}


def _graph() -> Graph:
    # a: clusters 0, 2;  b: none;  c: cluster 2
    return Graph.build(["a", "b", "c"], np.array([2, 0, 0]), np.array([2, 2, 0]), clusters=3)


def test_edges_have_rows_by_cluster_with_items_ascending() -> None:
    graph = _graph()
    assert graph.item_start.tolist() == [0, 2, 2, 3]
    assert graph.edge_cluster.tolist() == [0, 2, 2]
    assert [graph.items_of(c).tolist() for c in range(3)] == [[0], [], [0, 2]]
    assert (graph.row(0, 0), graph.row(2, 0), graph.row(2, 2)) == (0, 1, 2)
    assert graph.row(1, 0) is None
    assert graph.row(0, 1) is None


def test_appending_leaves_rows_as_they_were() -> None:
    graph = _graph()
    for i in range(0, 200, 2):
        graph = graph.with_items([f"new {i}", f"new {i + 1}"], [[2, 1, 2], [1, 2]])
    assert graph.row(2, 2) == 2
    assert graph.row(1, 3) == 3
    assert graph.n_edges == 3 + 2 * 200
    assert graph.items_of(1).tolist() == list(range(3, 203))
    assert graph.items_of(2).tolist() == [0, *range(2, 203)]
    with pytest.raises(InvalidInput, match="'a' is in the graph already"):
        graph.with_items(["a"], [[]])
    with pytest.raises(InvalidInput, match="'y' is in the graph already"):
        graph.with_items(["y", "y"], [[], []])
    with pytest.raises(InvalidInput, match="names cluster 3, there are 3"):
        graph.with_items(["y", "z"], [[0], [3]])
    assert graph.with_items(["y"], [[0]]).size == 204, "what was refused left nothing behind"
    with pytest.raises(InvalidInput, match="Item 'a' comes twice"):
        Graph.build(["a", "b", "a"], np.array([0]), np.array([0]), clusters=1)
    with pytest.raises(InvalidInput, match=r"cluster -1\.\.0, there are 3"):
        Graph.build(["a"], np.array([0, 0]), np.array([0, -1]), clusters=3)
    with pytest.raises(InvalidInput, match=r"item 0\.\.1, there are 1 items"):
        Graph.build(["a"], np.array([0, 1]), np.array([0, 0]), clusters=3)


def everything(graph: Graph) -> tuple[object, ...]:
    return (
        graph.size, graph.items, graph.item_start.tolist(), graph.edge_cluster.tolist(),
        [part.tolist() for part in graph.adjacency], [graph.items_of(c).tolist() for c in range(3)],
        graph.positions(["a", "c", "new 0", "new 7", "never"]).tolist(),
    )  # fmt: skip


def test_a_graph_never_changes_although_others_grow_out_of_it() -> None:
    graphs = [_graph()]
    seen = [everything(graphs[0])]
    for i in range(0, 40, 2):
        graphs.append(graphs[-1].with_items([f"new {i}", f"new {i + 1}"], [[i % 3, 1], []]))
        seen.append(everything(graphs[-1]))
        assert [everything(graph) for graph in graphs] == seen
    assert graphs[1].position("new 2") is None
    assert [len(part) for part in graphs[1].adjacency[3:]] == [graphs[1].n_edges - 3] * 2
    with pytest.raises(InvalidInput, match="grown already"):
        graphs[1].with_items(["x"], [[0]])
    assert graphs[3].continues(graphs[1])
    assert graphs[1].continues(graphs[1])
    assert not graphs[1].continues(graphs[3])
    assert not graphs[3].continues(_graph())


def test_a_graph_survives_the_disk(tmp_path: Path) -> None:
    graph = _graph().with_items(["d\n"], [[1]])
    graph.save(tmp_path / "graph.parquet")
    loaded = Graph.load(tmp_path / "graph.parquet")
    assert loaded.items == graph.items
    assert loaded.clusters == 3
    assert loaded.item_start.tolist() == graph.item_start.tolist()
    assert loaded.edge_cluster.tolist() == graph.edge_cluster.tolist()
    assert [loaded.items_of(c).tolist() for c in range(3)] == [[0], [3], [0, 2]]


@given(st.lists(st.sets(st.integers(0, 4)), max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_built_and_grown_graphs_are_equal(clusters: list[set[int]], built: int, middle: int) -> None:
    middle = max(built, middle)
    names = [f"i{j}" for j in range(len(clusters))]
    pairs = [(j, c) for j, found in enumerate(clusters[:built]) for c in found]
    item, cluster = np.array(pairs, dtype=np.int64).reshape(-1, 2)[::-1].T
    graph = Graph.build(names[:built], item, cluster, 5)
    graph = graph.with_items(names[built:middle], clusters[built:middle])
    graph = graph.with_items(names[middle:], clusters[middle:])
    assert [graph.clusters_of(j).tolist() for j in range(len(names))] == [sorted(found) for found in clusters]
    assert [graph.items_of(c).tolist() for c in range(5)] == [
        [j for j, found in enumerate(clusters) if c in found] for c in range(5)
    ]
    for j, found in enumerate(clusters):
        assert {c for c in range(-1, 7) if graph.row(c, j) is not None} == found
    rows = [graph.row(c, j) for c in range(5) for j in graph.items_of(c) if j < built]
    rows += [graph.row(c, j) for j in range(built, len(names)) for c in graph.clusters_of(j)]
    assert rows == list(range(graph.n_edges))


def test_a_namespace_survives_the_disk_and_is_never_rewritten(tmp_path: Path) -> None:
    base = rows_of({"0:a": [1, 2, 3, 4, 5]})
    namespace = Namespace(
        id="r-1",
        release="r",
        log="log",
        offsets=[3, 4],
        created=7,
        graph=_graph(),
        base=base,
        starts=[Start(5, False, {"d": b"x"}), Start()],
        translations={"older": Translation.of(np.array([[0.25, 0.75, 0.0]]))},
        memory_days=30.0,
        replaced={"older": 6},
        steepness=2.5,
    )
    namespace.save(tmp_path)
    loaded = Namespace.load(tmp_path, "r-1")
    assert (loaded.release, loaded.log, loaded.offsets, loaded.created) == ("r", "log", [3, 4], 7)
    assert loaded.starts == [Start(5, False, {"d": b"x"}), Start()]
    assert by_name(loaded.base) == {"0:a": [1, 2, 3, 4, 5]}
    assert loaded.decay == Description.load(tmp_path, "r-1").decay == Decay(30.0, 7)
    assert (loaded.replaced, loaded.steepness) == ({"older": 6}, 2.5)
    assert loaded.translations["older"].rows([0]).tolist() == [[0.25, 0.75, 0.0]]
    with pytest.raises(ReleaseRefused, match="exists already"):
        namespace.save(tmp_path)
    with pytest.raises(ReleaseRefused, match="r-2 cannot be read"):
        Namespace.load(tmp_path, "r-2")
