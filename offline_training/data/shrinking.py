"""Whether the data is still there: a training set much smaller than the one before is not trained on unasked."""

from collections.abc import Mapping
from typing import Any

from offline_training.data.summary import TrainingSetSummary

MOST_LOST = 0.2  # of users, items, interactions or positives
_COUNTED = {
    "users": "users", "items": "items", "interactions": "rows of interactions", "positives": "positive interactions",
}  # fmt: skip


def shrunk(now: TrainingSetSummary, before: Mapping[str, Any]) -> list[str]:
    """What fell by a fifth or more against an earlier summary, in words."""
    return [
        f"{getattr(now, name):,} {words} where there were {before[name]:,}"
        for name, words in _COUNTED.items()
        if name in before and getattr(now, name) <= (1 - MOST_LOST) * before[name] and before[name] > 0
    ]
