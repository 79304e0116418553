"""What Redis last said of users: they are answered with it while Redis does not answer."""

import time

from feature_store.shown import Shown
from feature_store.user_features import UserFeatures

_USERS = 5_000  # some kB each
_SECONDS = 900.0  # an outage's time: what is known of people stays in Redis, where it can be erased


class LastSeen:
    """Features of the users who came last."""

    def __init__(self) -> None:
        self._users: dict[str, tuple[UserFeatures, float]] = {}  # the last one comes last

    def keep(self, user: str, features: UserFeatures) -> None:
        """Takes note of what Redis said just now."""
        self._users.pop(user, None)
        self._users[user] = features, time.monotonic()
        if len(self._users) > _USERS:
            del self._users[next(iter(self._users))]

    def of(self, user: str) -> UserFeatures | None:
        """What Redis said not long ago; None if the user was not among the last."""
        features, known = self._users.get(user, (None, 0.0))
        return features if time.monotonic() - known <= _SECONDS else None

    def shown(self, user: str, packed: bytes) -> None:
        """Adds items that Redis could not be told of, packed, so that they are not shown again."""
        if user in self._users:
            features, known = self._users[user]
            if isinstance(features.shown, Shown):
                shown = Shown(features.shown.packed + packed)
                self._users[user] = features._replace(shown=shown), known

    def forget(self, user: str) -> None:
        """Nothing is known of the user."""
        self._users.pop(user, None)
