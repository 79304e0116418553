"""Protocols on small files in the layout of the public ones: nothing is learnt from what is asked."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.retrieval.protocols import HIDDEN_ITEMS, NEVER_SEEN, TEST, Protocol, Task, read_protocol
from feature_store.contracts.errors import InvalidInput

PEOPLE, MOVIES = 30, 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """movielens: everybody rates 10 of 40 movies, in their own time; movie 40 only at the end. gowalla: 4 places."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    movie = np.concatenate([rng.choice(MOVIES - 1, 10, replace=False) + 1 for _ in range(PEOPLE)])
    movie[-1] = MOVIES
    user = np.repeat(np.arange(PEOPLE) + 1, 10)
    time = 1000 * user + np.tile(np.arange(10), PEOPLE) // 2 * 10
    rating = rng.integers(1, 6, len(user))
    rating[-1] = 5
    movies = {"item_id": np.arange(MOVIES) + 1, "title": [f"Film {k}" for k in range(MOVIES)]}
    movies |= {"genres": ["Drama|War"] * MOVIES, "year": [1990] * MOVIES}
    people = {"user_id": np.arange(PEOPLE) + 1, "gender": ["F"] * PEOPLE}
    _write(folder / "ml-100k", "items", movies)
    _write(folder / "ml-100k", "users", people | {"age": [30] * PEOPLE, "occupation": ["artist"] * PEOPLE})
    _write(folder / "ml-100k", "ratings", {"user_id": user, "item_id": movie, "rating": rating, "timestamp": time})
    _write(folder / "ml-1m", "items", movies)
    _write(folder / "ml-1m", "users", people | {"age_group": [1] * PEOPLE, "occupation_code": [2] * PEOPLE})
    known = [None if k % 10 == 7 and k < 20 else int(moment) for k, moment in enumerate(time)]
    order = np.tile(np.arange(10), PEOPLE)
    ratings = {"user_id": user, "item_id": movie, "sequence_index": order, "timestamp": known, "liked": rating >= 4}
    _write(folder / "ml-1m", "ratings", ratings)
    _write(folder / "gowalla-lightgcn", "train", {"user_id": [0, 0, 1, 1], "item_id": [0, 1, 1, 2]})
    _write(folder / "gowalla-lightgcn", "test", {"user_id": [0, 1], "item_id": [3, 0]})
    return folder


def _write(folder: Path, name: str, columns: dict[str, object]) -> None:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def tasks(protocol: Protocol) -> list[Task]:
    return [protocol.validation, *protocol.tests.values()]


@pytest.mark.parametrize("name", ["ml-1m", "ml-100k", "gowalla-lightgcn"])
def test_nobody_is_asked_for_what_they_are_known_by(name: str, data: Path) -> None:
    protocol = read_protocol(name, data)
    log = protocol.dataset.log
    for task in tasks(protocol):
        assert len(task.users) == len(task.relevant) > 0 or name == "gowalla-lightgcn"
        assert (np.diff(task.users) > 0).all()
        for user, relevant in zip(task.users, task.relevant, strict=True):
            assert not np.isin(relevant, log.item[task.past[log.user[task.past] == user]]).any()
        assert (np.diff(task.train) > 0).all()
        assert (np.diff(task.past) > 0).all()


def test_leave_last_out_asks_for_the_last_and_knows_the_rest(data: Path) -> None:
    protocol = read_protocol("ml-1m", data)
    log, test = protocol.dataset.log, protocol.tests[TEST]
    last = np.arange(9, len(log.user), 10)
    assert np.concatenate(test.relevant).tolist() == log.item[last].tolist()
    assert np.concatenate(protocol.validation.relevant).tolist() == log.item[last - 1].tolist()
    assert np.setdiff1d(np.arange(len(log.user)), test.past).tolist() == last.tolist()
    assert np.setdiff1d(test.past, test.train).tolist() == (last - 1).tolist()
    assert test.slices["last_two_tied"].all(), "8 and 9 share a moment"
    assert log.time[7] == log.time[6] + 1, "an unknown time is that of the one before, and comes after it"
    assert (np.diff(log.time)[np.diff(log.user) == 0] > 0).all()


def test_the_time_split_learns_from_the_first_part_and_asks_everybody_of_the_rest(data: Path) -> None:
    protocol = read_protocol("ml-100k", data)
    log, test = protocol.dataset.log, protocol.tests[TEST]
    asked = np.flatnonzero(~np.isin(np.arange(len(log.user)), test.train))
    assert log.time[test.train].max() < log.time[asked].min()
    assert log.time[protocol.validation.train].max() < log.time[test.train].max()
    wanted = asked[protocol.dataset.positive[asked]]
    assert np.array_equal(test.users, np.unique(log.user[wanted]))
    assert test.slices["new_users"].sum() >= 4
    assert (test.slices["new_users"] == ~np.isin(test.users, log.user[test.train])).all()


def test_new_items_are_asked_for_apart(data: Path) -> None:
    protocol = read_protocol("ml-100k", data)
    log = protocol.dataset.log
    never, hidden = protocol.tests[NEVER_SEEN], protocol.tests[HIDDEN_ITEMS]
    assert MOVIES - 1 in np.concatenate(never.relevant)
    for task in (never, hidden):
        assert not np.isin(np.concatenate(task.relevant), log.item[task.train]).any()
    assert np.isin(hidden.train, protocol.tests[TEST].train).all()


def test_gowalla_has_the_published_parts(data: Path) -> None:
    test = read_protocol("gowalla-lightgcn", data).tests[TEST]
    assert [relevant.tolist() for relevant in test.relevant] == [[3], [0]]
    assert len(test.train) == 4


def test_what_is_missing_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no protocol for 'netflix'.*ml-100k"):
        read_protocol("netflix", data)
    with pytest.raises(InvalidInput, match=r"ml-1m/ratings.parquet with --data"):
        read_protocol("ml-1m", tmp_path)
