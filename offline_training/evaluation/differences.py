"""Differences between a release and another, as a verdict holds them."""

import msgspec
import numpy as np

from feature_store.arrays import Float64
from offline_training.evaluation.metrics import interval

CHAMPION, RECENT_POPULARITY = "champion", "recent popularity"
EVERYBODY, KNOWN_USERS, NEW_USERS, NEW_ITEMS = "everybody", "known users", "new users", "new items"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What the release has more of a metric than the other, as a mean over users, and its interval of 95 %; None:
    endless, for there are fewer than two users, or it is one figure of them all."""

    metric: str
    against: str
    among: str  # everybody, or a slice
    users: int
    release: float
    other: float
    low: float | None
    high: float | None

    @property
    def mean(self) -> float:
        """The difference."""
        return self.release - self.other


def difference(metric: str, against: str, among: str, ours: Float64, theirs: Float64) -> Difference:
    """In pairs over users (n,)."""
    _, low, high = interval(ours - theirs)
    return Difference(
        metric=metric,
        against=against,
        among=among,
        users=len(ours),
        release=float(ours.mean()),
        other=float(theirs.mean()),
        low=low if np.isfinite(low) else None,
        high=high if np.isfinite(high) else None,
    )
