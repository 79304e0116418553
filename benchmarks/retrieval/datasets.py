"""The public data sets as one log of interactions, each user's rows together, oldest first."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.arrays import Bool, Float64, Int64
from feature_store.contracts.catalogue import Item, UserProfile
from feature_store.contracts.errors import InvalidInput
from offline_training.evaluation.baselines import Interactions

_GOOD_RATING = 4


@dataclass(frozen=True)
class Dataset:
    """log: everything that happened. kinds (n,): as in a history. positive (n,): what counts as wanted. items and
    profiles describe the numbers of the log; profiles are tokens."""

    log: Interactions
    kinds: NDArray[np.str_]
    positive: Bool
    items: list[Item]
    profiles: list[list[str]]


def movielens_1m(data: Path) -> tuple[Dataset, Float64]:
    """1,000,209 ratings of 6,040 users in order; every rating counts as wanted, liked or not. The 3,706 rated movies
    are the catalogue. A rating without a known time is given that of the one before it; of the same second,
    each comes a millisecond after the one before, so that their order stays.

    Also returns (n,) whether a rating has the time of the one before it: 1, 0, or NaN where either is not known."""
    table = _read(data, "ml-1m", "ratings.parquet").sort_by([("user_id", "ascending"), ("sequence_index", "ascending")])
    users, user = np.unique(table["user_id"].to_numpy(), return_inverse=True)
    items, item = np.unique(table["item_id"].to_numpy(), return_inverse=True)
    time = table["timestamp"].fill_null(-1).to_numpy().astype(np.int64)
    tied = np.where((time >= 0) & (np.roll(time, 1) >= 0), time == np.roll(time, 1), np.nan)
    liked = table["liked"].fill_null(False).to_numpy(zero_copy_only=False)
    dataset = Dataset(
        log=Interactions(user, item, _one_after_the_other(user, _carried_forward(user, time)), len(users), len(items)),
        kinds=np.where(liked, "liked+", "disliked+"),
        positive=np.ones(len(user), np.bool_),
        items=_movies(_read(data, "ml-1m", "items.parquet"), items),
        profiles=_profiles(_read(data, "ml-1m", "users.parquet"), users, ["gender", "age_group", "occupation_code"]),
    )
    return dataset, tied


def movielens_100k(data: Path) -> Dataset:
    """100,000 ratings of 943 users; from 4 on they count as wanted."""
    return _rated(data, "ml-100k", "ratings.parquet", ["age", "gender", "occupation"])


def movielens_small(data: Path) -> Dataset:
    """100,836 ratings of 610 users about whom nothing is said; from 4 on they count as wanted."""
    return _rated(data, "ml-latest-small", "ratings.parquet", [])


def movielens_1m_in_time(data: Path) -> Dataset:
    """487,650 ratings of the 2,999 users of MovieLens-1M whose times are all known; from 4 on they count as wanted."""
    return _rated(data, "ml-1m", "ratings_users_1_to_2999.parquet", ["gender", "age_group", "occupation_code"])


def _rated(data: Path, name: str, file: str, about: list[str]) -> Dataset:
    """about: the columns of users that make their profiles."""
    order = [("user_id", "ascending"), ("timestamp", "ascending"), ("item_id", "ascending")]
    table = _read(data, name, file).sort_by(order)
    users, user = np.unique(table["user_id"].to_numpy(), return_inverse=True)
    items, item = np.unique(table["item_id"].to_numpy(), return_inverse=True)
    good = table["rating"].to_numpy() >= _GOOD_RATING
    return Dataset(
        log=Interactions(user, item, table["timestamp"].to_numpy().astype(np.int64) * 1000, len(users), len(items)),
        kinds=np.where(good, "rating+", "rating-"),
        positive=good,
        items=_movies(_read(data, name, "items.parquet"), items),
        profiles=_profiles(_read(data, name, "users.parquet"), users, about) if about else [[] for _ in users],
    )


def gowalla(data: Path) -> tuple[Dataset, Int64]:
    """Places that 29,858 people went to, without times or descriptions, and the rows of the published test part."""
    parts = [_read(data, "gowalla-lightgcn", name) for name in ("train.parquet", "test.parquet")]
    table = pa.concat_tables([part.append_column("test", pa.array([k] * len(part))) for k, part in enumerate(parts)])
    table = table.sort_by([("user_id", "ascending"), ("test", "ascending"), ("item_id", "ascending")])
    user, item = (table[name].to_numpy().astype(np.int64) for name in ("user_id", "item_id"))
    people, places = int(user.max()) + 1, int(item.max()) + 1
    dataset = Dataset(
        log=Interactions(user, item, np.zeros(len(user), np.int64), people, places),
        kinds=np.full(len(user), "visit+"),
        positive=np.ones(len(user), np.bool_),
        items=[Item(id=str(place)) for place in range(places)],
        profiles=[[] for _ in range(people)],
    )
    return dataset, np.flatnonzero(table["test"].to_numpy() == 1)


def _read(data: Path, name: str, file: str) -> pa.Table:
    path = data / name / file
    if not path.is_file():
        raise InvalidInput(f"The bench needs {path}. Give the folder that holds {name}/{file} with --data.")
    return pq.read_table(path)


def _carried_forward(user: Int64, time: Int64) -> Int64:
    """Times, unknown ones (-1) as the last known before them, or else the first known, of the same user."""
    rows = np.arange(len(time))
    first = np.searchsorted(user, user)
    last_known = np.maximum.accumulate(np.where(time >= 0, rows, -1))
    known = np.flatnonzero(time >= 0)
    next_known = known[np.minimum(np.searchsorted(known, rows), len(known) - 1)]
    return time[np.where(last_known >= first, last_known, next_known)]


def _one_after_the_other(user: Int64, seconds: Int64) -> Int64:
    """Times in ms that keep the order of a user's rows in one second."""
    rows = np.arange(len(user))
    new = (np.diff(user, prepend=-1) != 0) | (np.diff(seconds, prepend=-1) != 0)
    return 1000 * seconds + rows - np.maximum.accumulate(np.where(new, rows, 0))


def _movies(table: pa.Table, items: NDArray[np.int_]) -> list[Item]:
    rows = {row["item_id"]: row for row in table.to_pylist()}
    return [
        Item(
            id=str(number),
            title=rows[number]["title"],
            categories=rows[number]["genres"].split("|") if rows[number]["genres"] else [],
            attributes={"year": rows[number]["year"]} if rows[number]["year"] else {},
        )
        for number in items.tolist()
    ]


def _profiles(table: pa.Table, users: NDArray[np.int_], columns: list[str]) -> list[list[str]]:
    rows = {row["user_id"]: row for row in table.to_pylist()}
    return [UserProfile(attributes={name: rows[user][name] for name in columns}).tokens() for user in users.tolist()]


def moment_at(time: Int64, share: float) -> int:
    """The moment (ms, whole seconds) before which the given share of the span of times (n,) lies."""
    low, high = int(time.min()), int(time.max())
    return int(low + share * (high - low)) // 1000 * 1000
