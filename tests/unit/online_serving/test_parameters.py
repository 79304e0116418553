"""Parameters in memory: always base plus the changes of every partition, whatever came in which order."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.errors import InvalidInput
from feature_store.decay import Decay
from feature_store.graph import Graph
from feature_store.sums import N
from online_serving.digest import digest
from online_serving.parameters import Parameters
from online_serving.pipeline.explore import estimate
from streaming.bandit.diag_linucb import Estimate, Table
from streaming.bandit.prior import Prior, fit
from streaming.settings import BanditSettings
from tests.rows import rows_of

ITEMS = ["a", "b:c", "ü", "late"]
EDGES = {"a": [0, 2], "b:c": [1], "ü": [], "late": [0, 1]}
KEYS = [f"{c}:{i}" for i in [*ITEMS, "never"] for c in ["", *range(3)]]


def graph_of_three() -> Graph:
    return Graph(3).with_items(ITEMS[:3], [EDGES[item] for item in ITEMS[:3]])


def row(value: float) -> np.ndarray:
    return np.arange(5) + value


def test_by_hand() -> None:
    base = rows_of({":a": row(1), "2:a": row(10)})
    parameters = Parameters(graph_of_three(), [base], [5, 7])
    table = parameters.table(0)
    np.testing.assert_array_equal(table.items[0], row(1))
    np.testing.assert_array_equal(table.edges[1], row(10))

    changes = {":a": row(2), ":b:c": row(3), "1:b:c": row(4), "0:b:c": row(5), ":unknown": row(6)}
    parameters.apply(1, 9, parameters.located(rows_of(changes)))
    table = parameters.table(0)
    np.testing.assert_array_equal(table.items[0], row(1) + row(2))
    np.testing.assert_array_equal(table.edges[2], row(4))  # b:c has no edge to cluster 0
    np.testing.assert_array_equal(table.total, row(1) + row(2) + row(3))
    assert parameters.offsets == [5, 9]


def test_changes_add_up() -> None:
    parameters = Parameters(graph_of_three(), [], [0])
    for value in (1.0, 2.0, 7.0):
        parameters.apply(0, int(value), parameters.located(rows_of({":a": row(value)})))
    np.testing.assert_array_equal(parameters.table(0).items[0], row(1) + row(2) + row(7))
    np.testing.assert_array_equal(parameters.table(0).total, row(1) + row(2) + row(7))


def test_rows_of_an_item_that_comes_later_wait_for_it() -> None:
    graph = graph_of_three()
    parameters = Parameters(graph, [rows_of({"0:late": row(1)})], [0, 0])
    parameters.apply(0, 1, parameters.located(rows_of({":late": row(2), "0:late": row(3)})))
    assert len(parameters.table(0).items) == 3
    parameters.extend(graph.with_items(["late"], [EDGES["late"]]))
    table = parameters.table(0)
    np.testing.assert_array_equal(table.items[3], row(2))
    np.testing.assert_array_equal(table.edges[3:], [row(1) + row(3), np.zeros(5)])
    np.testing.assert_array_equal(table.total, row(2))


DAY = 86_400_000
HALF_LIFE = round(DAY * math.log(2))  # of a memory of a day
DECAY = Decay(1.0, 5 * DAY)
SETTINGS = BanditSettings(graduation_trials=3)


def seen_by(table: Table) -> Estimate:
    clusters, weights, predicted = np.arange(3), np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.2, 0.3])
    return estimate(SETTINGS, clusters, weights, np.arange(3), predicted, table)


def counted(trials: float) -> dict[str, np.ndarray]:
    half_clicked = np.array([1.0, 1.0, 0.5, 0.5, 0.2])  # weights 1, predicted 0.2
    edge = np.array([1.0, 1.0, 1.0, 0.5, 0.2])
    rows = {":a": 2 * half_clicked, ":b:c": half_clicked, "0:a": edge, "2:a": edge, "1:b:c": edge}
    return {name: trials * values for name, values in rows.items()}


def test_after_a_half_life_every_trial_counts_half() -> None:
    fading = Parameters(graph_of_three(), [rows_of(counted(4))], [0], DECAY)
    for trials, now in ((4, 0), (2, HALF_LIFE), (1, 2 * HALF_LIFE), (0.5, 3 * HALF_LIFE)):
        lasting = Parameters(graph_of_three(), [rows_of(counted(trials))], [0])
        found, wanted = seen_by(fading.table(5 * DAY + now)), seen_by(lasting.table(0))
        assert found.mean == pytest.approx(wanted.mean, rel=1e-7)
        assert found.bonus == pytest.approx(wanted.bonus, rel=1e-7)
    assert fading.table(6 * DAY).items[0].tolist() == [8, 8, 4, 4, 1.6], "no row is gone over"


def test_the_prior_is_fitted_to_trials_of_now() -> None:
    fading = Parameters(graph_of_three(), [rows_of(counted(12))], [0], DECAY)  # 36 trials in all
    now = 5 * DAY + HALF_LIFE
    fading.refit(now)
    assert fading.table(now).prior == Prior.unknown(), "18 are left: too few"
    fading.apply(0, 1, fading.located(rows_of(counted(28))))
    fading.refit(now)
    table = fading.table(now)
    assert table.total[N] == 120
    wanted = fit(graph_of_three().adjacency, table.edges / 2, table.items / 2, table.new, table.total / 2)
    assert wanted != Prior.unknown()
    assert numbers(table.prior) == pytest.approx(numbers(wanted), rel=1e-6)


def numbers(prior: Prior) -> list[float]:
    return [*prior.known, *prior.new, *prior[2:]]


def test_items_that_training_knew_nothing_of_are_new() -> None:
    graph = graph_of_three()
    parameters = Parameters(graph, [], [0], unknown=np.array([1]))
    parameters.extend(graph.with_items(["late"], [EDGES["late"]]))
    assert parameters.table(0).new.tolist() == [False, True, False, True]


def test_a_prior_is_fitted_while_the_catalogue_grows() -> None:
    """As in a server: another thread's snapshots have thousands of new items before the parameters hear of them."""
    rng = np.random.default_rng(0)
    graph = Graph.build([f"i{j}" for j in range(200)], np.repeat(np.arange(200), 3), rng.permutation(600) % 30, 30)
    parameters = Parameters(graph, [], [0])
    afresh = Parameters(graph, [], [0])
    for n in range(20):
        grown = graph.with_items([f"{n}-{k}" for k in range(250)], [[k % 30, (k + n) % 30] for k in range(250)])
        trials = rng.poisson(5, graph.size) * (1 + n)
        names = graph.items
        rows = rows_of({f":{names[j]}": t * np.array([1, 1, 0.5, 0.5, 0.2]) for j, t in enumerate(trials)})
        parameters.apply(0, n, parameters.located(rows))
        parameters.refit(0)
        found = parameters.table(0)
        afresh.apply(0, n, afresh.located(rows))
        wanted = afresh.fitted(afresh.table(0))
        assert found.prior == wanted
        assert np.isfinite(numbers(wanted)).all()
        parameters.extend(grown)
        afresh.extend(grown)
        graph = grown


def test_parameters_go_over_to_graphs_that_grew_out_of_theirs_only() -> None:
    graph = graph_of_three()
    parameters = Parameters(graph, [], [0])
    with pytest.raises(InvalidInput, match="another graph"):
        parameters.extend(graph_of_three().with_items(["late"], [[0]]))
    grown = graph.with_items(["late"], [[0]])
    parameters.extend(grown)
    with pytest.raises(InvalidInput, match="another graph"):
        parameters.extend(graph)
    with pytest.raises(InvalidInput, match="3 edge rows for 4 edges"):
        parameters.fitted(parameters.table(0)._replace(edges=np.zeros((3, 5))))


def test_changes_that_come_in_parts_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    graph = Graph.build([f"i{j}" for j in range(50)], np.repeat(np.arange(50), 2), rng.permutation(100) % 10, 10)
    names = [f"{c}:i{j}" for j in range(55) for c in ["", *range(10)]]  # edges there are and not, items to come
    changes = rows_of({name: rng.integers(0, 100, 5).astype(np.float64) for name in names})
    whole, parts = (Parameters(graph, [], [0]) for _ in range(2))
    whole.apply(0, 7, whole.located(changes))
    *first, last = changes.parts(64)
    assert len(first) == len(names) // 64
    for part in first:
        parts.add(parts.located(part))
        assert parts.offsets == [0]
    parts.apply(0, 7, parts.located(last))
    assert parts.offsets == [7]
    grown = graph.with_items([f"i{j}" for j in range(50, 55)], [[k, 9] for k in range(5)])
    for parameters in (whole, parts):
        parameters.extend(grown)
    for one, other in zip(whole.table(0)[1:5], parts.table(0)[1:5], strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.table(0).edges[-10:].any()


def test_rows_that_were_looked_up_before_the_catalogue_grew() -> None:
    graph = graph_of_three()
    parameters = Parameters(graph, [], [0])
    changes = parameters.located(rows_of({":a": row(1), ":late": row(2), "0:late": row(3), "2:late": row(4)}))
    parameters.extend(graph.with_items(["late"], [EDGES["late"]]))
    parameters.apply(0, 1, changes)
    table = parameters.table(0)
    np.testing.assert_array_equal(table.items[[0, 3]], [row(1), row(2)])
    np.testing.assert_array_equal(table.edges[3:], [row(3), np.zeros(5)])


_rows = st.dictionaries(st.sampled_from(KEYS), st.lists(st.integers(-1000, 1000), min_size=5, max_size=5), max_size=8)
_changes = st.lists(st.tuples(st.integers(0, 1), _rows), max_size=12)


def total_of(graph: Graph, parts: list[dict[str, list[int]]]) -> dict[str, np.ndarray]:
    """What the table must hold of every row that the graph has, added up in a plain dictionary."""
    keys = [f":{item}" for item in graph.items]
    keys += [f"{c}:{item}" for j, item in enumerate(graph.items) for c in graph.clusters_of(j)]
    return {key: np.sum([part.get(key, [0] * 5) for part in parts], axis=0) for key in keys}


def held(graph: Graph, parameters: Parameters) -> dict[str, np.ndarray]:
    table = parameters.table(0)
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
        parameters = Parameters(graph, [rows_of(base)], [0, 0])
        for number, (partition, rows) in enumerate(sequence):
            if number == comes:
                graph = graph.with_items(["late"], [EDGES["late"]])
                parameters.extend(graph)
            parameters.apply(partition, number + 1, parameters.located(rows_of(rows)))
        expected = total_of(graph, parts)
        found = held(graph, parameters)
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            np.testing.assert_array_equal(found[key], values)
        np.testing.assert_array_equal(parameters.table(0).total, parameters.table(0).items.sum(axis=0))


def test_the_table_grows_without_moving_what_it_holds() -> None:
    graph = graph_of_three()
    parameters = Parameters(graph, [rows_of({"1:b:c": row(4)})], [0])
    for n in range(100):
        graph = graph.with_items([f"new {n}"], [[n % 3]])
        parameters.extend(graph)
        parameters.apply(0, n, parameters.located(rows_of({f"{n % 3}:new {n}": row(n), f":new {n}": row(n)})))
    table = parameters.table(0)
    np.testing.assert_array_equal(table.edges[2], row(4))
    np.testing.assert_array_equal(table.edges[3:], [row(n) for n in range(100)])
    np.testing.assert_array_equal(table.items[3:], [row(n) for n in range(100)])


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.floats(0.01, 50)), min_size=1, max_size=12), st.randoms())
def test_processes_that_have_learnt_the_same_have_the_same_digest(
    changes: list[tuple[str, float]], order: random.Random
) -> None:
    """In whatever order it came, and in whatever order the items were added."""
    at_once, bit_by_bit = Parameters(graph_of_three(), [], [0]), Parameters(graph_of_three(), [], [0])
    for key, value in changes:
        at_once.add(at_once.located(rows_of({key: row(value)})))
    at_once.extend(at_once.graph.with_items(["late", "never"], [EDGES["late"], [2]]))
    order.shuffle(changes)
    bit_by_bit.extend(bit_by_bit.graph.with_items(["never", "late"], [[2], EDGES["late"]]))
    for key, value in changes:
        bit_by_bit.add(bit_by_bit.located(rows_of({key: row(value) / 3})))
        bit_by_bit.add(bit_by_bit.located(rows_of({key: row(value) * 2 / 3})))
    assert digest(at_once.graph, at_once.table(0)) == digest(bit_by_bit.graph, bit_by_bit.table(0))
    bit_by_bit.add(bit_by_bit.located(rows_of({":a": row(0.01)})))
    assert digest(at_once.graph, at_once.table(0)) != digest(bit_by_bit.graph, bit_by_bit.table(0))
