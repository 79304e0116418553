"""Parameters in memory: always base plus the changes of every partition, whatever came in which order."""

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_store.graph import Graph
from online_serving.parameters import Parameters
from streaming.settings import BanditSettings
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
    parameters = Parameters(graph_of_three(), 3, [base], [5, 7], BanditSettings())
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
    parameters = Parameters(graph_of_three(), 3, [], [0], BanditSettings())
    for value in (1.0, 2.0, 7.0):
        parameters.apply(0, int(value), rows_of({":a": row(value)}))
    np.testing.assert_array_equal(parameters.table().items[0], row(1) + row(2) + row(7))
    np.testing.assert_array_equal(parameters.table().total, row(1) + row(2) + row(7))


def test_rows_of_an_item_that_comes_later_wait_for_it() -> None:
    graph = graph_of_three()
    parameters = Parameters(graph, 3, [rows_of({"0:late": row(1)})], [0, 0], BanditSettings())
    parameters.apply(0, 1, rows_of({":late": row(2), "0:late": row(3)}))
    assert len(parameters.table().items) == 3
    graph.append("late", EDGES["late"])
    parameters.extend(4)
    table = parameters.table()
    np.testing.assert_array_equal(table.items[3], row(2))
    np.testing.assert_array_equal(table.edges[3:], [row(1) + row(3), np.zeros(5)])
    np.testing.assert_array_equal(table.total, row(2))


_rows = st.dictionaries(st.sampled_from(KEYS), st.lists(st.integers(-1000, 1000), min_size=5, max_size=5), max_size=8)
_changes = st.lists(st.tuples(st.integers(0, 1), _rows), max_size=12)


def total_of(graph: Graph, parts: list[dict[str, list[int]]]) -> dict[str, np.ndarray]:
    """What the table must hold of every row that the graph has, added up in a plain dictionary."""
    keys = [f":{item}" for item in graph.items]
    keys += [f"{c}:{item}" for j, item in enumerate(graph.items) for c in graph.clusters_of(j)]
    return {key: np.sum([part.get(key, [0] * 5) for part in parts], axis=0) for key in keys}


def held(graph: Graph, parameters: Parameters) -> dict[str, np.ndarray]:
    table = parameters.table()
    items = {f":{item}": table.items[j] for j, item in enumerate(graph.items)}
    pairs = [(c, j) for j in range(len(graph.items)) for c in graph.clusters_of(j)]
    return items | {f"{c}:{graph.items[j]}": table.edges[graph.row(c, j)] for c, j in pairs}


@given(base=_rows, changes=_changes, comes=st.integers(0, 12), order=st.randoms(use_true_random=False))
def test_always_base_plus_all_changes_in_any_order(
    base: dict[str, list[int]], changes: list[tuple[int, dict[str, list[int]]]], comes: int, order: random.Random
) -> None:
    """The item that comes late comes before the change number `comes`, or not at all."""
    parts = [base, *(rows for _, rows in changes)]
    for sequence in (changes, order.sample(changes, len(changes))):
        graph = graph_of_three()
        parameters = Parameters(graph, 3, [rows_of(base)], [0, 0], BanditSettings())
        for number, (partition, rows) in enumerate(sequence):
            if number == comes:
                graph.append("late", EDGES["late"])
                parameters.extend(4)
            parameters.apply(partition, number + 1, rows_of(rows))
        expected = total_of(graph, parts)
        found = held(graph, parameters)
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            np.testing.assert_array_equal(found[key], values)
        np.testing.assert_array_equal(parameters.table().total, parameters.table().items.sum(axis=0))


def test_the_table_grows_without_moving_what_it_holds() -> None:
    graph = graph_of_three()
    parameters = Parameters(graph, 3, [rows_of({"1:b:c": row(4)})], [0], BanditSettings())
    for n in range(100):
        graph.append(f"new {n}", [n % 3])
        parameters.extend(4 + n)
        parameters.apply(0, n, rows_of({f"{n % 3}:new {n}": row(n), f":new {n}": row(n)}))
    table = parameters.table()
    np.testing.assert_array_equal(table.edges[2], row(4))
    np.testing.assert_array_equal(table.edges[3:], [row(n) for n in range(100)])
    np.testing.assert_array_equal(table.items[3:], [row(n) for n in range(100)])
