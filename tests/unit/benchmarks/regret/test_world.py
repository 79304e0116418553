"""The worlds, from small files in the data sets' own shape."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.regret.movielens import Sparse, arriving
from benchmarks.regret.taste import probabilities
from benchmarks.regret.world import Environment, evenly_arriving, jester, upworthy
from feature_store.contracts.errors import InvalidInput

USERS = 700  # ten for each of 64 clusters


def write_jester(data: Path, ratings: np.ndarray) -> None:
    users, jokes = np.indices(ratings.shape)
    columns = {
        "user_id": np.append(users.ravel(), USERS).astype(np.int16),
        "item_id": np.append(jokes.ravel() + 1, 1).astype(np.int8),
        "rating": np.append(ratings.ravel(), 9.0),
        "fully_observed_user": np.append(np.ones(ratings.size, np.bool_), False),
    }
    (data / "jester5k").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), data / "jester5k" / "ratings.parquet")


def jokes_shown(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(100)[30:]


def test_jester_rewards_are_the_ratings_of_the_jokes_that_are_not_context(tmp_path: Path) -> None:
    ratings = np.random.default_rng(0).uniform(-10, 10, (USERS, 100))
    write_jester(tmp_path, ratings)
    shown = ratings[:, jokes_shown(3)]
    continuous = jester(tmp_path, 3, 1000, binary=False, arriving=False)
    assert continuous.reward == pytest.approx((shown + 10) / 20, abs=1e-6)
    assert not continuous.arrival.any()
    binary = jester(tmp_path, 3, 1000, binary=True, arriving=True)
    assert np.array_equal(binary.reward, shown > 5)
    assert sorted(binary.arrival) == [0] * 20 + [10 * k for k in range(1, 51)]  # evenly over the first 500 rounds
    assert binary.weights.sum(axis=1) == pytest.approx(np.ones(USERS))
    assert binary.clusters.shape == (USERS, 5)


def test_contexts_know_nothing_of_the_jokes_to_be_shown(tmp_path: Path) -> None:
    ratings = np.random.default_rng(0).uniform(-10, 10, (USERS, 100))
    write_jester(tmp_path / "one", ratings)
    ratings[:, jokes_shown(3)] *= -1
    write_jester(tmp_path / "other", ratings)
    one, other = (jester(tmp_path / name, 3, 1000, binary=True, arriving=False) for name in ("one", "other"))
    assert np.array_equal(one.clusters, other.clusters)
    assert np.array_equal(one.weights, other.weights)
    assert not np.array_equal(one.reward, other.reward)


def test_upworthy_campaigns_are_picked_once_each(tmp_path: Path) -> None:
    (tmp_path / "upworthy-ab-tests").mkdir()
    columns = {
        "test_id": ["b", "a", "b", "c", "a", "b"],
        "impressions": np.array([100, 200, 50, 10, 100, 1000], np.int16),
        "clicks": np.array([1, 4, 5, 1, 3, 20], np.int16),
    }
    pq.write_table(pa.table(columns), tmp_path / "upworthy-ab-tests" / "arms.parquet")
    first, rest = list(upworthy(tmp_path, slice(0, 2))), list(upworthy(tmp_path, slice(2, 9)))
    rates = sorted(sorted(world.reward[0].round(4).tolist()) for world in first + rest)
    assert rates == [pytest.approx(wanted, abs=1e-4) for wanted in ([0.01, 0.02, 0.1], [0.02, 0.03], [0.1])]


def test_items_arrive_evenly_and_in_order() -> None:
    assert evenly_arriving(5, np.array([3, 0]), 100).tolist() == [100, 0, 0, 50, 0]
    assert evenly_arriving(2, np.array([], np.int64), 100).tolist() == [0, 0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"needs .*jester5k.*ratings\.parquet.*--data"):
        jester(tmp_path, 0, 10, binary=True, arriving=False)


def test_a_sparse_world_is_saved_whole_and_its_fresh_items_arrive(world: Environment, tmp_path: Path) -> None:
    sparse = Sparse(world._replace(once=True), np.array([1, 4]), {})
    sparse.save(tmp_path / "sparse.npz")
    loaded = Sparse.load(tmp_path / "sparse.npz")
    for name, value in sparse.world._asdict().items():
        assert np.array_equal(getattr(loaded.world, name), value), name
    arrival = arriving(loaded, 80, seed=1).arrival
    assert sorted(arrival[[1, 4]]) == [20, 40]
    assert not arrival[[0, 2, 3, 5]].any()


def test_tastes_are_recovered_from_a_part_of_the_answers() -> None:
    rng = np.random.default_rng(0)
    truth = 0.5 + 0.4 * np.tanh(rng.normal(size=(300, 2)) @ rng.normal(size=(2, 80)))
    answers = rng.random(truth.shape) < truth
    known = rng.random(truth.shape) < 0.5
    users, items = np.nonzero(known)
    found = probabilities(users, items, answers[known].astype(np.float64))
    error = ((found - truth)[~known] ** 2).mean()
    assert found.min() >= 0.02
    assert found.max() <= 0.98
    assert error < 0.7 * truth.var()  # of what was never asked; users and items are alike on average
