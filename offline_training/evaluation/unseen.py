"""What users liked while a release was being trained: it has not seen it, and nor has the release that served."""

from collections.abc import Sequence
from pathlib import Path

from feature_store.bandit_state import Position
from feature_store.contracts.events import Feedback
from streaming.bandit.rewards import is_positive
from streaming.settings import RewardSettings
from streaming.sink import read_events


def positives_since(lake: Path, ends: Sequence[Position], rewards: RewardSettings) -> dict[str, frozenset[str]]:
    """What each user (by key) liked by an event of the log from the ends on, which are per partition, as far as the
    lake holds it. Users who liked nothing are left out."""
    likes: dict[str, set[str]] = {}
    for partition, end in enumerate(ends):
        for _, event in read_events(lake, end.log, partition, end.offset):
            if isinstance(event, Feedback) and is_positive(rewards, [(event.type, event.value)]):
                likes.setdefault(event.user, set()).add(event.item)
    return {user: frozenset(liked) for user, liked in likes.items()}
