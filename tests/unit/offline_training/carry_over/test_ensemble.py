"""V1D3 across a rebuilt graph, against numbers worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.graph import Graph
from feature_store.sums import NO_ROWS, Sums
from feature_store.translation import Translation
from offline_training.carry_over.ensemble import mix, translation, transport
from tests.rows import by_name, rows_of


def test_translation_counts_where_users_went() -> None:
    old, new = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 1])
    # Nobody is in old cluster 2: its row is where everybody went, 3 of 6 and 3 of 6.
    assert translation(old, new, 3, 2).rows(range(3)).tolist() == [[3 / 4, 1 / 4], [0, 1], [1 / 2, 1 / 2]]


def test_translation_without_users_is_uniform() -> None:
    nobody = np.zeros(0, dtype=np.int64)
    assert translation(nobody, nobody, 2, 4).rows(range(2)).tolist() == [[1 / 4] * 4] * 2


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=40))
def test_translation_is_row_stochastic(moves: list[tuple[int, int]]) -> None:
    old, new = (np.array([move[k] for move in moves], dtype=np.int64) for k in (0, 1))
    matrix = translation(old, new, 5, 7).rows(range(5))
    assert (matrix >= 0).all()
    assert matrix.sum(axis=1) == pytest.approx(np.ones(5))


def test_transport_moves_edges_and_keeps_items() -> None:
    # The new graph: item a is connected to clusters 0 and 1, b to cluster 1 only, c is gone.
    graph = Graph.build(["a", "b"], np.array([0, 0, 1]), np.array([0, 1, 1]), clusters=2)
    matrix = Translation.of(np.array([[0.75, 0.25], [0.0, 1.0]]))
    moved = transport(
        rows_of(
            {
                "0:a": [4, 4, 4, 2, 1],
                "1:a": [1, 1, 2, 1, 1],
                "0:b": [8, 8, 8, 4, 4],
                "0:c": [9, 9, 9, 9, 9],
                ":a": [5, 4, 3, 3, 2],
                ":c": [1, 1, 1, 1, 1],
            }
        ),
        matrix,
        graph,
    )
    assert sorted(by_name(moved)) == ["0:a", "1:a", "1:b", ":a", ":c"]
    carried = Sums.of(moved)
    assert carried.get("a", 0).tolist() == [3, 3, 3, 1.5, 0.75]
    assert carried.get("a", 1).tolist() == [2, 2, 3, 1.5, 1.25]
    assert carried.get("b", 1).tolist() == [2, 2, 2, 1, 1], "what falls on (0, b) is dropped: there is no such edge"
    assert carried.get("a").tolist() == [5, 4, 3, 3, 2]
    assert carried.get("c").tolist() == [1, 1, 1, 1, 1]


def test_transport_by_the_identity_changes_nothing() -> None:
    graph = Graph.build(["a", "b"], np.array([0, 1]), np.array([0, 1]), clusters=2)
    rows = {"0:a": [1.0, 2, 3, 4, 5], "1:b": [5.0, 4, 3, 2, 1]}
    assert by_name(transport(rows_of(rows), Translation.of(np.eye(2)), graph)) == rows
    assert by_name(transport(NO_ROWS, Translation.of(np.eye(2)), graph)) == {}


def mixed(rows: dict[str, list[float]], offline: list[float], omega: float, keep: float) -> dict[str, list[float]]:
    return by_name(mix(rows_of(rows), np.array(offline), omega, keep))


def test_mix_of_an_edge() -> None:
    # Online mean 6/8 = .75, offline .25: .2 * .75 + .8 * .25 = .35; half of the trials stay, s = 4.
    edge = mixed({"0:a": [10, 6, 8, 6, 4]}, [0.25], omega=0.2, keep=0.5)["0:a"]
    assert edge == pytest.approx([5, 3, 4, 0.35 * 4, 0.25 * 4])
    assert edge[3] - edge[4] == pytest.approx(0.2 * (0.75 - 0.25) * 4)


def test_mix_of_an_item_keeps_the_variance() -> None:
    # Mean 2/4 = .5, variance 1.5/4 - .25 = .125; new mean .2 * .5 + .8 * .75 = .7; two of four trials stay.
    item = mixed({":a": [8, 4, 2, 1.5, 1]}, [0.75], omega=0.2, keep=0.5)[":a"]
    assert item == pytest.approx([4, 2, 1.4, (0.125 + 0.49) * 2, 1.5])


def test_mix_without_an_offline_value_keeps_the_rows_own_prediction() -> None:
    rows = mixed({"0:a": [4, 4, 4, 2, 1], ":a": [4, 4, 2, 2, 1]}, [np.nan, np.nan], omega=0.5, keep=1.0)
    assert rows["0:a"] == pytest.approx([4, 4, 4, (0.25 + 0.125) * 4, 1])
    assert [rows[":a"][k] for k in (1, 2, 4)] == pytest.approx([4, (0.25 + 0.125) * 4, 1])


def test_mix_with_all_weight_online_changes_no_mean() -> None:
    rows = mixed({"0:a": [4, 4, 4, 2, 1], ":a": [4, 4, 2, 2, 1]}, [0.9, 0.9], omega=1.0, keep=1.0)
    assert rows["0:a"][:4] == pytest.approx([4, 4, 4, 2])
    assert rows[":a"][:4] == pytest.approx([4, 4, 2, 2])


def test_trials_that_nothing_came_back_from_stay_without_a_mean() -> None:
    rows = mixed({"0:a": [4, 0, 0, 0, 0], ":a": [4, 0, 0, 0, 0]}, [0.5, np.nan], omega=0.2, keep=0.5)
    assert list(rows.values()) == [[2, 0, 0, 0, 0]] * 2
    assert mixed({}, [], 0.2, 0.5) == {}
