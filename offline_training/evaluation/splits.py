"""Which interactions a model may learn from, and which it is asked about afterwards.

There is no random split: it lets a model read what a user did after the moment it is asked about, and what was popular
only later, so it rewards what serving can never know (Ji et al., TOIS 2023, "A critical study on data leakage").
"""

from typing import NamedTuple

import numpy as np

from feature_store.arrays import Bool, Int64
from feature_store.contracts.errors import InvalidInput


class LeaveLastOut(NamedTuple):
    """Rows (of each user by time) of the three parts."""

    train: Int64
    validation: Int64  # each user's last but one
    test: Int64  # each user's last


def split_time(time: Int64, share: float) -> int:
    """The moment at which `share` of the time span is over; what happened before it is for training.

    Raises InvalidInput if all times (n,) are the same, or there is none: then nothing comes before anything.
    """
    if not len(time) or time.min() == time.max():
        raise InvalidInput("A split by time needs interactions of at least two moments. Give data with timestamps.")
    first, last = int(time.min()), int(time.max())
    return first + max(1, round(share * (last - first)))


def leave_last_out(user: Int64) -> LeaveLastOut:
    """Every user's last row is for the test, the one before it for validation, the rest for training; users with fewer
    than three rows are for training only. user: (n,), each user's rows together, oldest first."""
    end = np.append(np.flatnonzero(np.diff(user)), len(user) - 1)[: len(user)]
    length = np.diff(end, prepend=-1)
    test = end[length >= 3]
    train = np.ones(len(user), np.bool_)
    train[test] = train[test - 1] = False
    return LeaveLastOut(np.flatnonzero(train), test - 1, test)


def cold(values: Int64, train: Int64) -> Bool:
    """Which of the users (or items) asked about do not occur among those of the training rows."""
    return ~np.isin(values, train)
