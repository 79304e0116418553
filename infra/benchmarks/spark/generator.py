"""A lake of any size with the skew of real logs: few items that everybody knows, few users who do most, one of them a
bot, and bursts in time. Written file by file, in whole columns."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_store.arrays import Int64
from feature_store.contracts import columns
from feature_store.lake_format import write
from offline_training.progress import Progress

_ROWS_PER_FILE = 1_000_000
_ROWS_PER_USER = 100
_BOT_SHARE = 0.1  # of all interactions, by one user
_ZIPF_SHIFT = 10  # the item of rank r is met in proportion to 1 / (r + 10)
_DESCRIBED = 0.9  # of the items
_BURSTS, _BURST_SHARE, _BURST_HOURS = 200, 0.5, 2.0
_ROWS_PER_DECISION = 100
_SLATE, _HISTORY, _FEEDBACK = 10, 5, 2  # of each decision
_START, _DAYS = 1_700_000_000_000, 365
_HOUR_MS = 3_600_000
_WORDS = 2_000


class Population(NamedTuple):
    """What the logs are about: the ids, and how often each is met, as cumulated shares."""

    users: pa.Array
    items: pa.Array
    of_users: NDArray[np.float64]
    of_items: NDArray[np.float64]

    @classmethod
    def of(cls, rows: int, rng: np.random.Generator) -> "Population":
        """A world for so many interactions: a user for every hundred of them, items as their square root grows."""
        users, items = max(10, rows // _ROWS_PER_USER), max(100, int(20 * np.sqrt(rows)))
        activity = rng.lognormal(sigma=1.5, size=users)
        activity[0] = activity[1:].sum() * _BOT_SHARE / (1 - _BOT_SHARE)
        popularity = 1 / (np.arange(items) + 1 + _ZIPF_SHIFT)
        return cls(_names("u", users), _names("i", items), _cumulated(activity), _cumulated(popularity))


def write_lake(lake: Path, rows: int, seed: int, progress: Progress) -> None:
    """Writes so many imported interactions, descriptions of items and users, and a log with one decision of ten items
    per hundred interactions, with two clicks each."""
    rng = np.random.default_rng(seed)
    world = Population.of(rows, rng)
    _write(lake / "items" / "items.parquet", _descriptions(world, rng))
    users = {
        "user": world.users,
        "attributes": _texts('{"age":', rng.integers(10, 90, len(world.users)), "}"),
        "written": pa.array([_START] * len(world.users)),
        "imported": pa.array([_START] * len(world.users)),
    }
    _write(lake / "users" / "users.parquet", pa.table(users, schema=columns.USERS))
    bursts = _START + rng.integers(0, _DAYS * 24 * _HOUR_MS, _BURSTS)
    for start in range(0, rows, _ROWS_PER_FILE):
        progress(start / rows, f"generating {rows:,} interactions")
        n = min(_ROWS_PER_FILE, rows - start)
        _write(lake / "interactions" / f"{start}.parquet", _interactions(world, n, bursts, rng))
        log = _log(world, n // _ROWS_PER_DECISION, start, bursts, rng)
        _write(lake / "events" / "log=bench" / "partition=0" / f"{start}.parquet", log)


def _interactions(world: Population, n: int, bursts: Int64, rng: np.random.Generator) -> pa.Table:
    rated = rng.random(n) < 0.7
    return pa.table(
        {
            "user": _drawn(world.users, world.of_users, n, rng),
            "item": _drawn(world.items, world.of_items, n, rng),
            "type": pa.array(["click", "rating"]).take(pa.array(rated.astype(np.int8))),
            "value": np.where(rated, rng.integers(1, 6, n), 1).astype(np.float64),
            "time": _times(n, bursts, rng),
            "written": pa.nulls(n, pa.int64()),
        },
        schema=columns.INTERACTIONS,
    )


def _log(world: Population, n: int, offset: int, bursts: Int64, rng: np.random.Generator) -> pa.Table:
    """n decisions, each with its feedback right behind it; their ids and offsets begin at the offset."""
    user = _drawn(world.users, world.of_users, n, rng)
    time = _times(n, bursts, rng)
    number = pa.array(offset + np.arange(n) * (1 + _FEEDBACK))
    slates = _drawn(world.items, world.of_items, n * _SLATE, rng)
    ids = _texts("d", number, "")
    past = time[:, None] - np.arange(1, _HISTORY + 1) * _HOUR_MS
    made = {
        "offset": number,
        "kind": _repeated("decision", n),
        "time": time,
        "id": ids,
        "user": user,
        "variant": _repeated("a", n),
        "history": _lists(_drawn(world.items, world.of_items, n * _HISTORY, rng), n),
        "history_kinds": _lists(_repeated("click+", n * _HISTORY), n),
        "history_times": _lists(pa.array(past.ravel()), n),
        "profile": _lists(pa.array([], pa.string()), n),
        "items": _lists(slates, n),
        "shown": pa.array(np.full(n, _SLATE), pa.int32()),
        "predicted": _lists(pa.array(rng.random(n * _SLATE)), n),
        "probabilities": _lists(pa.array(np.ones(n * _SLATE)), n),
    }
    of = np.repeat(np.arange(n), _FEEDBACK)
    place = np.tile(np.arange(_FEEDBACK), n)
    told = {
        "offset": pc.add(number.take(pa.array(of)), pa.array(1 + place)),
        "kind": _repeated("feedback", len(of)),
        "time": time[of],
        "id": _texts("f", place, ""),
        "user": user.take(pa.array(of)),
        "decision": ids.take(pa.array(of)),
        "item": slates.take(pa.array(of * _SLATE + place)),
        "type": _repeated("click", len(of)),
        "value": np.ones(len(of)),
        "received": time[of] + 60_000 * (1 + place),
    }
    return pa.concat_tables([_events(made, n), _events(told, len(of))]).sort_by("offset")


def _events(given: dict[str, pa.Array | Int64], n: int) -> pa.Table:
    position = {"position": pa.array(np.zeros(n), pa.int32())}
    nothing = {field.name: pa.nulls(n, field.type) for field in columns.EVENTS}
    return pa.table(nothing | position | given, schema=columns.EVENTS)


def _descriptions(world: Population, rng: np.random.Generator) -> pa.Table:
    n = int(len(world.items) * _DESCRIBED)
    words = _names("w", _WORDS)
    title = pc.binary_join_element_wise(*(words.take(pa.array(rng.integers(0, _WORDS, n))) for _ in range(4)), " ")
    nothing = {field.name: pa.nulls(n, field.type) for field in columns.ITEMS}
    described = {
        "item": world.items.slice(0, n),
        "title": title,
        "categories": _lists(words.take(pa.array(rng.integers(0, 20, 2 * n))), n),
        "attributes": _texts('{"year":', rng.integers(1950, 2025, n), "}"),
    }
    return pa.table(nothing | described, schema=columns.ITEMS)


def _times(n: int, bursts: Int64, rng: np.random.Generator) -> Int64:
    anywhen = _START + rng.integers(0, _DAYS * 24 * _HOUR_MS, n)
    in_burst = rng.choice(bursts, n) + rng.exponential(_BURST_HOURS * _HOUR_MS, n).astype(np.int64)
    return np.where(rng.random(n) < _BURST_SHARE, in_burst, anywhen)


def _drawn(names: pa.Array, cumulated: NDArray[np.float64], n: int, rng: np.random.Generator) -> pa.Array:
    return names.take(pa.array(np.searchsorted(cumulated, rng.random(n), side="right")))


def _cumulated(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    sums: NDArray[np.float64] = np.cumsum(weights)
    sums /= sums[-1] * (1 - 1e-12)  # no draw lies beyond the last one
    return sums


def _names(letter: str, n: int) -> pa.Array:
    """As long as user keys are."""
    return pc.binary_join_element_wise(letter, pc.utf8_lpad(pa.array(np.arange(n)).cast(pa.string()), 21, "0"), "")


def _texts(before: str, numbers: pa.Array | Int64, after: str) -> pa.Array:
    return pc.binary_join_element_wise(before, pa.array(numbers).cast(pa.string()), after, "")


def _repeated(text: str, n: int) -> pa.Array:
    return pa.repeat(pa.scalar(text), n)


def _lists(values: pa.Array, n: int) -> pa.Array:
    """n lists of the same length."""
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1) * (len(values) // max(n, 1)), pa.int32()), values)


def _write(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(table, path)
