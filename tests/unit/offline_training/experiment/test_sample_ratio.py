"""The check of the split that may be looked at every day."""

import numpy as np
import pytest

from offline_training.experiment.sample_ratio import ALARM, always_valid_p, check, p_value

SHARES = {"a": 0.5, "b": 0.5}


def arrivals(seed: int, count: int, share: float) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return (np.random.default_rng(seed).random(count) >= share).astype(np.int64)


def test_a_sound_split_raises_no_alarm_however_often_it_is_looked_at() -> None:
    alarms = sum(always_valid_p(arrivals(seed, 5_000, 0.5), [0.5, 0.5]) < ALARM for seed in range(300))
    assert alarms <= 9  # of 300 at 1 %: 3 are due at most, 9 by chance in one of a thousand


def test_a_split_that_is_off_is_found_and_stays_found() -> None:
    users = arrivals(0, 50_000, 0.52)
    assert always_valid_p(users, [0.5, 0.5]) < ALARM
    # What was found does not go away when later users are split well.
    later = np.concatenate([users, arrivals(1, 20_000, 0.5)])
    assert always_valid_p(later, [0.5, 0.5]) < ALARM


def test_one_percent_of_fifty_thousand_planned_users_is_found() -> None:
    found = sum(p_value(arrivals(seed, 50_000, 0.51), [0.5, 0.5], 50_000) < ALARM for seed in range(100))
    assert found >= 89  # of 95 due; 89 or fewer by chance in one of a hundred
    sound = sum(p_value(arrivals(seed, 5_000, 0.5), [0.5, 0.5], 4_000) < ALARM for seed in range(300))
    assert sound <= 9
    # By hand: 60 of 100 where 50 are due is a chi-square of 4, whose p is 0.0455, over four fifths.
    split = np.repeat([0, 1], [60, 40])
    assert p_value(split, [0.5, 0.5], 100) == pytest.approx(0.0455 / 0.8, rel=1e-3)
    assert p_value(split, [0.5, 0.5], 101) == pytest.approx(1.0)  # not planned yet, and nothing at any look


def test_the_bayes_factor_by_hand() -> None:
    # Prior Dirichlet(2500, 2500); both users in a: B = 2500 2501 / (5000 5001) / (1/2)^2.
    assert always_valid_p(np.zeros(2, dtype=np.int64), [1, 1]) == pytest.approx(1 / (2501 / 5001 * 2))
    assert always_valid_p(np.array([], dtype=np.int64), [1, 1]) == 1.0


def test_causes_name_what_is_odd() -> None:
    users = arrivals(0, 4_000, 0.7)
    found = check(users, SHARES, 4_000, {"moved": 7, "unknown_variant": 0, "out_of_time": 2}, {"a": 1.0, "b": 9.0})
    assert found.broken
    assert found.observed == {"a": int((users == 0).sum()), "b": int((users == 1).sum())}
    assert found.expected == {"a": 2_000, "b": 2_000}
    words = " ".join(found.causes)
    for part in (
        "7 decisions are logged with another variant",
        "a server's clock is wrong",
        "b is slow (9.0 ms against",
    ):
        assert part in words
    nobody = check(np.zeros(2_000, dtype=np.int64), SHARES, 4_000, {}, {})
    assert nobody.causes[0].startswith("nobody met b")
    assert check(arrivals(0, 400, 0.5), SHARES, 4_000, {"moved": 7}, {}).causes == []
