"""Parameters in memory: always base plus the changes of every partition, whatever came in which order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_store.graph import Graph
from feature_store.sums import NO_ROWS
from online_serving.parameters import Parameters
from tests.rows import rows_of

ITEMS = ["a", "b:c", "ü", "late"]
EDGES = {"a": [0, 2], "b:c": [1], "ü": [], "late": [0, 1]}
KEYS = [f"{c}:{i}" for i in [*ITEMS, "never"] for c in ["", *range(3)]]


def graph_of_three() -> Graph:
    graph = Graph(3)
    for item in ITEMS[:3]:
        graph.append(item, EDGES[item])
    return graph


def row(value: float) -> np.ndarray:
    return np.arange(5) + value


def test_by_hand() -> None:
    base = rows_of({":a": row(1), "2:a": row(10)})
    parameters = Parameters(graph_of_three(), 3, base, [5, 7])
    table = parameters.table()
    np.testing.assert_array_equal(table.items[0], row(1))
    np.testing.assert_array_equal(table.edges[1], row(10))

    changes = {":a": row(2), ":b:c": row(3), "1:b:c": row(4), "0:b:c": row(5), ":unknown": row(6)}
    parameters.apply(1, 9, rows_of(changes))
    table = parameters.table()
    np.testing.assert_array_equal(table.items[0], row(1) + row(2))
    np.testing.assert_array_equal(table.edges[2], row(4))  # b:c has no edge to cluster 0
    np.testing.assert_array_equal(table.total, row(1) + row(2) + row(3))
    assert parameters.offsets == [5, 9]


def test_changes_add_up() -> None:
    parameters = Parameters(graph_of_three(), 3, NO_ROWS, [0])
    for value in (1.0, 2.0, 7.0):
        parameters.apply(0, int(value), rows_of({":a": row(value)}))
    np.testing.assert_array_equal(parameters.table().items[0], row(1) + row(2) + row(7))
    np.testing.assert_array_equal(parameters.table().total, row(1) + row(2) + row(7))


def test_rows_of_an_item_that_comes_later_wait_for_it() -> None:
    graph = graph_of_three()
    parameters = Parameters(graph, 3, rows_of({"0:late": row(1)}), [0, 0])
    parameters.apply(0, 1, rows_of({":late": row(2), "0:late": row(3)}))
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
def test_always_base_plus_the_changes(
    base: dict[str, list[int]], steps: list[tuple[str, int, dict[str, list[int]]]]
) -> None:
    graph = graph_of_three()
    parameters = Parameters(graph, 3, rows_of(base), [0, 0])
    latest: list[dict[str, list[int]]] = [{}, {}]
    for kind, partition, rows in steps:
        if kind == "append":
            if "late" not in graph.index:
                graph.append("late", EDGES["late"])
                parameters.extend(4)
        elif kind == "apply":
            parameters.apply(partition, 1, rows_of(rows))
            for key, values in rows.items():
                before = latest[partition].get(key, [0] * 5)
                latest[partition][key] = [a + b for a, b in zip(before, values, strict=True)]
        else:
            parameters.reload(partition, 1, rows_of(rows))
            latest[partition] = dict(rows)

    def expected(key: str) -> np.ndarray:
        return sum((np.array(part.get(key, [0] * 5), dtype=float) for part in [base, *latest]), np.zeros(5))

    table = parameters.table()
    for j, item in enumerate(graph.items):
        np.testing.assert_array_equal(table.items[j], expected(f":{item}"))
        for e in range(graph.item_start[j], graph.item_start[j + 1]):
            np.testing.assert_array_equal(table.edges[e], expected(f"{graph.edge_cluster[e]}:{item}"))
    np.testing.assert_array_equal(table.total, table.items.sum(axis=0))
