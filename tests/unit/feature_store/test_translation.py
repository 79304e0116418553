"""Sparse translations, against the matrices that they stand for."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.arrays import Float64
from feature_store.translation import Translation

M = np.array([[0.5, 0.25, 0.25, 0.0], [0.0, 1.0, 0.0, 0.0]])
NOBODY = Translation(np.array([0, 2, 2]), np.array([0, 3]), np.array([0.75, 0.25]), np.array([0.4, 0.1, 0.3, 0.2]))


def dense(one: Translation) -> Float64:
    return one.rows(range(one.clusters))


def test_it_is_the_matrix() -> None:
    assert dense(Translation.of(M)).tolist() == M.tolist()
    assert Translation.of(M).clusters == 2
    assert Translation.of(M).rows([1, 0, 1]).tolist() == M[[1, 0, 1]].tolist()


def test_a_cluster_of_which_nobody_is_known_is_everybodys() -> None:
    assert dense(NOBODY).tolist() == [[0.75, 0, 0, 0.25], [0.4, 0.1, 0.3, 0.2]]


def test_by_way_of_another_release() -> None:
    following = np.array([[1.0, 0], [0, 1.0], [0.5, 0.5], [0.25, 0.75]])
    for first in (Translation.of(M), NOBODY):
        assert dense(first.then(Translation.of(following))) == pytest.approx(dense(first) @ following)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_product_of_any_two(a: int, b: int, c: int, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def some(rows: int, columns: int) -> Float64:
        found = rng.random((rows, columns)) * (rng.random((rows, columns)) < 0.5) + 1e-12
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    first, second = some(a, b), some(b, c)
    product = dense(Translation.of(first).then(Translation.of(second)))
    assert product.sum(axis=1) == pytest.approx(np.ones(a))
    assert np.abs(product - first @ second).max() < 1e-3 * c


def test_what_no_decision_is_folded_onto_is_left_out() -> None:
    small = np.array([[0.9995, 0.0005]])
    made = Translation.of(np.eye(1)).then(Translation.of(small))
    assert dense(made).tolist() == [[1.0, 0.0]]
    assert len(made.cluster) == 1


def test_a_cluster_that_went_everywhere_is_everybodys() -> None:
    everywhere = Translation.of(np.eye(1)).then(Translation.of(np.full((1, 2_000), 1 / 2_000)))
    assert len(everywhere.cluster) == 0
    assert everywhere.rows([0]).shape == (1, 2_000)


def test_it_is_read_back_also_as_earlier_versions_wrote_it(tmp_path: Path) -> None:
    NOBODY.save(tmp_path / "new.npz")
    assert dense(Translation.load(tmp_path / "new.npz")).tolist() == dense(NOBODY).tolist()
    np.save(tmp_path / "old.npy", M)
    assert dense(Translation.load(tmp_path / "old.npz")).tolist() == M.tolist()
