"""What is known of users, and how it lies in Redis.

    <prefix>:user:{<user key>}:profile   sorted set: the newest profile's tokens, by time
    <prefix>:user:{<user key>}:history   sorted set: item, kind and time of interactions, by time
    <prefix>:user:{<user key>}:shown     sorted set: items not to show again, by time

The time is when it became known: written again, or late, it changes nothing, and an erasure removes what was known
until then.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from feature_store.definitions import HistoryEvent
from feature_store.settings import RedisSettings

_BETWEEN = "\0"  # of item, kind and time: below every other character, so that Redis orders ties by item, then by kind

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[str])

ItemTime = tuple[str, int]  # item, ms since the epoch


class UserFeatures(NamedTuple):
    """What a request needs to know about its user."""

    profile: list[str]  # tokens
    history: list[HistoryEvent]  # newest first
    shown: frozenset[str]  # items not to show again


NOBODY = UserFeatures([], [], frozenset())


class Held(NamedTuple):
    """What is stored of a user. Times: ms since the epoch, of the profile and of the newest event of the history."""

    profile: list[str]  # tokens
    profile_time: int | None
    history: int  # events
    history_time: int | None
    shown: int  # items


class UserRecord(NamedTuple):
    """A user's features as a training run publishes them."""

    user: str
    profile: list[str]
    profile_time: int  # ms: when it became known
    history: list[HistoryEvent]
    shown: list[ItemTime]


class UserCommands:
    """The commands that read and write what is known of a user (by key), for a pipeline of either client."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings

    def put_profile(self, pipe: Any, user: str, tokens: list[str], time: int) -> None:
        """Replaces an older profile."""
        _add(pipe, self._keys(user)[0], [(_encoder.encode(tokens).decode(), time)], 1)

    def add_history(self, pipe: Any, user: str, events: Sequence[HistoryEvent]) -> None:
        """Adds events to the history."""
        members = [(_BETWEEN.join((event.item, event.kind, str(event.time))), event.time) for event in events]
        _add(pipe, self._keys(user)[1], members, self._settings.history_kept)

    def add_shown(self, pipe: Any, user: str, items: Sequence[ItemTime]) -> None:
        """Adds items not to show again."""
        _add(pipe, self._keys(user)[2], items, self._settings.shown_kept)

    def forget(self, pipe: Any, user: str, until: int | None = None) -> None:
        """Removes what was known until then (ms), everything if it is not said."""
        for key in self._keys(user):
            pipe.zremrangebyscore(key, "-inf", "+inf" if until is None else until)

    def read(self, pipe: Any, user: str) -> None:
        """Asks for what `features` reads."""
        profile, history, shown = self._keys(user)
        pipe.zrange(profile, -1, -1)
        pipe.zrange(history, 0, self._settings.history_kept - 1, desc=True)
        pipe.zrange(shown, 0, -1)

    def features(self, profile: list[bytes], history: list[bytes], shown: list[bytes]) -> UserFeatures:
        """What the three answers say."""
        return UserFeatures(
            profile=_decoder.decode(profile[0]) if profile else [],
            history=[_event(member) for member in history],
            shown=frozenset(item.decode() for item in shown),
        )

    def count(self, pipe: Any, user: str) -> None:
        """Asks for what `held` reads."""
        profile, history, shown = self._keys(user)
        pipe.zrange(profile, -1, -1, withscores=True)
        pipe.zcard(history)
        pipe.zrange(history, -1, -1, withscores=True)
        pipe.zcard(shown)

    def held(
        self, profile: list[tuple[bytes, float]], events: int, newest: list[tuple[bytes, float]], shown: int
    ) -> Held | None:
        """What the four answers say, None: nothing is stored."""
        if not (profile or events or shown):
            return None
        return Held(
            profile=_decoder.decode(profile[0][0]) if profile else [],
            profile_time=int(profile[0][1]) if profile else None,
            history=events,
            history_time=int(newest[0][1]) if newest else None,
            shown=shown,
        )

    def _keys(self, user: str) -> list[str]:
        return [f"{self._settings.prefix}:user:{{{user}}}:{what}" for what in ("profile", "history", "shown")]


def _add(pipe: Any, key: str, entries: Sequence[ItemTime], kept: int) -> None:
    """Adds to a sorted set by time, newest time wins, and keeps the newest. Sends no more than are kept."""
    if entries:
        newest = dict(sorted(entries, key=lambda entry: entry[1]))
        sent = sorted(newest.items(), key=lambda entry: (entry[1], entry[0]))[-kept:]  # as the server ranks them
        pipe.zadd(key, dict(sent), gt=True)
        pipe.zremrangebyrank(key, 0, -kept - 1)


def _event(member: bytes) -> HistoryEvent:
    item, kind, time = member.decode().rsplit(_BETWEEN, 2)
    return HistoryEvent(item, kind, int(time))
