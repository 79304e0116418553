"""Counts of items by hand, and the jackknife against redrawn users."""

import numpy as np
import pyarrow as pa

from feature_store.definitions import DAY_MS
from offline_training.experiment.corpus import corpus
from offline_training.experiment.outcomes import Outcomes


def found(users: int, item: "np.ndarray[tuple[int], np.dtype[np.int64]]", day: float = 0.0) -> Outcomes:
    """Each user of the first variant likes the one item of a slate; the last user comes on the given day."""
    time = np.zeros(users, dtype=np.int64)
    time[-1] = int(day * DAY_MS)
    rows = np.arange(users)
    return Outcomes(
        users=pa.array([f"u{n:05}" for n in range(users)]), variants=("a", "b"),
        variant=np.zeros(users, dtype=np.int64), user=rows, time=time, latency=np.full(users, np.nan), decision=rows,
        item=item, reward=np.ones(users), positive=np.ones(users, dtype=np.bool_), before={},
    )  # fmt: skip


def test_items_are_counted_once_and_found_by_more_than_so_many_likes() -> None:
    item = np.array([0] * 10 + [1] * 4 + [2] * 3 + [3, 4, 5])
    (figure,) = corpus(found(20, item), more_than=3)
    assert (figure.variant, figure.users, figure.shown.value, figure.discoverable.value) == ("a", 20, 6, 2)


def test_only_the_last_days_count_as_found() -> None:
    item = np.array([0] * 19 + [1])
    (figure,) = corpus(found(20, item, day=8.0), more_than=0, within_days=7.0)
    assert (figure.shown.value, figure.discoverable.value) == (2, 1)


def test_too_few_users_say_nothing() -> None:
    assert corpus(found(19, np.zeros(19, dtype=np.int64))) == []


def test_the_interval_is_no_narrower_than_the_spread_between_samples() -> None:
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, 2_001)
    weights /= weights.sum()
    figures = [corpus(found(2_000, rng.choice(2_000, 2_000, p=weights)))[0].discoverable for _ in range(60)]
    spread = float(np.std([one.value for one in figures]))
    widths = [one.high - one.low for one in figures if one.high is not None and one.low is not None]
    assert 0.8 * spread < float(np.mean(widths)) / 3.92 < 2.5 * spread
