"""Parameters in memory: always base plus the latest rows of every partition, whatever came in which order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_store.graph import Graph
from feature_store.sums import Sums, edge_key, item_key
from online_serving.parameters import Parameters

ITEMS = ["a", "b:c", "ü", "late"]
EDGES = {"a": [0, 2], "b:c": [1], "ü": [], "late": [0, 1]}
KEYS = [item_key(i) for i in [*ITEMS, "never"]] + [edge_key(c, i) for i in [*ITEMS, "never"] for c in range(3)]


def graph_of_three() -> Graph:
    graph = Graph(3)
    for item in ITEMS[:3]:
        graph.append(item, EDGES[item])
    return graph


def row(value: float) -> np.ndarray:
    return np.arange(5) + value


def test_by_hand() -> None:
    base = Sums()
    base.put([item_key("a"), edge_key(2, "a")], np.stack([row(1), row(10)]))
    parameters = Parameters(graph_of_three(), 3, base, [5, 7])
    table = parameters.table()
    np.testing.assert_array_equal(table.items[0], row(1))
    np.testing.assert_array_equal(table.edges[1], row(10))

    keys = [item_key("a"), item_key("b:c"), edge_key(1, "b:c"), edge_key(0, "b:c"), item_key("unknown")]
    parameters.apply(1, 9, keys, np.stack([row(2), row(3), row(4), row(5), row(6)]))
    table = parameters.table()
    np.testing.assert_array_equal(table.items[0], row(1) + row(2))
    np.testing.assert_array_equal(table.edges[2], row(4))  # b:c has no edge to cluster 0
    np.testing.assert_array_equal(table.total, row(1) + row(2) + row(3))
    assert parameters.offsets == [5, 9]


def test_a_later_row_replaces_an_earlier_one() -> None:
    parameters = Parameters(graph_of_three(), 3, Sums(), [0])
    for value in (1.0, 2.0, 7.0):
        parameters.apply(0, int(value), [item_key("a")], row(value)[None])
    np.testing.assert_array_equal(parameters.table().items[0], row(7))
    np.testing.assert_array_equal(parameters.table().total, row(7))


def test_rows_of_an_item_that_comes_later_wait_for_it() -> None:
    graph = graph_of_three()
    base = Sums()
    base.put([edge_key(0, "late")], row(1)[None])
    parameters = Parameters(graph, 3, base, [0, 0])
    parameters.apply(0, 1, [item_key("late"), edge_key(0, "late")], np.stack([row(2), row(3)]))
    assert len(parameters.table().items) == 3
    graph.append("late", EDGES["late"])
    parameters.extend(4)
    table = parameters.table()
    np.testing.assert_array_equal(table.items[3], row(2))
    np.testing.assert_array_equal(table.edges[3:], [row(1) + row(3), np.zeros(5)])
    np.testing.assert_array_equal(table.total, row(2))


_rows = st.dictionaries(st.sampled_from(KEYS), st.lists(st.integers(-1000, 1000), min_size=5, max_size=5), max_size=8)
_step = st.tuples(st.sampled_from(["apply", "reload", "append"]), st.integers(0, 1), _rows)


@given(base=_rows, steps=st.lists(_step, max_size=12))
def test_always_base_plus_the_latest_rows(
    base: dict[str, list[int]], steps: list[tuple[str, int, dict[str, list[int]]]]
) -> None:
    sums = Sums()
    sums.put(list(base), np.array(list(base.values()), dtype=float).reshape(-1, 5))
    graph = graph_of_three()
    parameters = Parameters(graph, 3, sums, [0, 0])
    latest: list[dict[str, list[int]]] = [{}, {}]
    for kind, partition, rows in steps:
        values = np.array(list(rows.values()), dtype=float).reshape(-1, 5)
        if kind == "append":
            if "late" not in graph.index:
                graph.append("late", EDGES["late"])
                parameters.extend(4)
        elif kind == "apply":
            parameters.apply(partition, 1, list(rows), values)
            latest[partition].update(rows)
        else:
            fresh = Sums()
            fresh.put(list(rows), values)
            parameters.reload(partition, 1, fresh)
            latest[partition] = dict(rows)

    def expected(key: str) -> np.ndarray:
        return sum((np.array(part.get(key, [0] * 5), dtype=float) for part in [base, *latest]), np.zeros(5))

    table = parameters.table()
    for j, item in enumerate(graph.items):
        np.testing.assert_array_equal(table.items[j], expected(item_key(item)))
        for e in range(graph.item_start[j], graph.item_start[j + 1]):
            np.testing.assert_array_equal(table.edges[e], expected(edge_key(int(graph.edge_cluster[e]), item)))
    np.testing.assert_array_equal(table.total, table.items.sum(axis=0))
