"""Splits on rows whose answer can be seen, and their law: nothing a model learns from comes later."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.errors import InvalidInput
from offline_training.evaluation.splits import cold, leave_last_out, split_time


def test_the_time_split_is_a_share_of_the_span_not_of_the_rows() -> None:
    time = np.array([0, 1, 2, 3, 100])
    assert (time < split_time(time, 0.8)).tolist() == [True, True, True, True, False]
    assert split_time(np.array([5, 6]), 0.8) == 6, "something is left for both sides"


@pytest.mark.parametrize("time", [[], [7, 7, 7]])
def test_a_split_by_time_needs_time(time: list[int]) -> None:
    with pytest.raises(InvalidInput, match="at least two moments"):
        split_time(np.array(time, np.int64), 0.8)


def test_leave_last_out_takes_the_last_two_of_each_user() -> None:
    #                            user 1: 0-3,   2: too few, 5: 6-8
    split = leave_last_out(np.array([1, 1, 1, 1, 2, 2, 5, 5, 5]))
    assert split.test.tolist() == [3, 8]
    assert split.validation.tolist() == [2, 7]
    assert split.train.tolist() == [0, 1, 4, 5, 6]
    assert all(len(part) == 0 for part in leave_last_out(np.zeros(0, np.int64)))


@given(st.lists(st.integers(0, 5), max_size=40))
def test_leave_last_out_parts_every_row_once_and_trains_on_the_earlier_ones(user: list[int]) -> None:
    rows = np.sort(np.array(user, np.int64))
    train, validation, test = leave_last_out(rows)
    assert np.sort(np.concatenate([train, validation, test])).tolist() == list(range(len(rows)))
    for asked, last in zip(validation.tolist(), test.tolist(), strict=True):
        own = train[rows[train] == rows[last]]
        assert rows[asked] == rows[last]
        assert len(own) >= 1
        assert own.max() < asked < last


def test_cold_means_not_in_training() -> None:
    assert cold(np.array([1, 2, 3]), np.array([3, 1, 1])).tolist() == [False, True, False]
