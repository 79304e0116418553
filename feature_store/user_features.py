"""What is known of users, and how it lies in Redis.

    <prefix>:user:{<user key>}:profile   sorted set: the newest profile's tokens, by time
    <prefix>:user:{<user key>}:history   sorted set: item, kind and time of interactions, by time
    <prefix>:user:{<user key>}:seen      string: items not to show again, packed (shown.py)

The time is when it became known: written again, or late, it changes nothing, and an erasure removes what was known
until then. Each key expires when nobody has heard of the user for a while.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from feature_store.contracts.events import Merge
from feature_store.definitions import DAY_MS, HistoryEvent
from feature_store.settings import RedisSettings
from feature_store.shared_connection import Command
from feature_store.shown import ENTRY_BYTES, NOTHING_SHOWN, Shown, ShownItems, day, pack

_BETWEEN = "\0"  # of item, kind and time: below every other character, so that Redis orders ties by item, then by kind

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[str])

ItemTime = tuple[str, int]  # item, ms since the epoch


class UserFeatures(NamedTuple):
    """What a request needs to know about its user."""

    profile: list[str]  # tokens
    history: list[HistoryEvent]  # newest first
    shown: ShownItems


NOBODY = UserFeatures([], [], NOTHING_SHOWN)

_SPECIAL = re.compile(r"[*?\[\]^\\]")  # in a pattern of names
_ESCAPED = r"\\\g<0>"
DAY_SECONDS = DAY_MS // 1000

# On entries of 7 bytes, oldest first; arguments: new entries, most bytes, seconds to live.
_MARK = """
local all = (redis.call('GET', KEYS[1]) or '') .. ARGV[1]
redis.call('SET', KEYS[1], string.sub(all, -tonumber(ARGV[2])), 'EX', ARGV[3])
"""
_ADD = """
local old, new, known, fresh = redis.call('GET', KEYS[1]) or '', ARGV[1], {}, {}
for at = 1, #old, 7 do known[string.sub(old, at, at + 4)] = true end
for at = 1, #new, 7 do
  if not known[string.sub(new, at, at + 4)] then fresh[#fresh + 1] = string.sub(new, at, at + 6) end
end
if #fresh > 0 then
  redis.call('SET', KEYS[1], string.sub(table.concat(fresh) .. old, -tonumber(ARGV[2])), 'EX', ARGV[3])
end
"""
_FORGET = """
local old, kept = redis.call('GET', KEYS[1]) or '', {}
for at = 1, #old, 7 do
  local low, high = string.byte(old, at + 5, at + 6)
  if low + 256 * high > tonumber(ARGV[1]) then kept[#kept + 1] = string.sub(old, at, at + 6) end
end
if #kept * 7 < #old then
  if #kept > 0 then redis.call('SET', KEYS[1], table.concat(kept), 'KEEPTTL') else redis.call('DEL', KEYS[1]) end
end
"""


# History and shown items of a visitor that were known until then go over to a user, but for what the user's erasure
# covers. Keys: profile, history and shown items of the visitor, history and shown items of the user, erasures;
# arguments: visitor, user, until when (ms), the day of that, events kept, their seconds to live, bytes of shown items,
# their seconds to live, whether the visitor is to stay forgotten. Shown items are merged by day; of two entries of an
# item the later one stays.
_MERGE = """
local visitor, user, until_ms, day = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local erased = redis.call('ZSCORE', KEYS[6], user)
local past = redis.call('ZRANGEBYSCORE', KEYS[2], erased and '(' .. erased or '-inf', until_ms, 'WITHSCORES')
for at = 1, #past, 2 do redis.call('ZADD', KEYS[4], 'GT', past[at + 1], past[at]) end
if #past > 0 then
  redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -tonumber(ARGV[5]) - 1)
  redis.call('EXPIRE', KEYS[4], ARGV[6])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', until_ms)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', until_ms)

local function day_of(entry) return string.byte(entry, 6) + 256 * string.byte(entry, 7) end
local first = erased and math.floor(tonumber(erased) / 86400000) or -1
local seen, moved, kept = redis.call('GET', KEYS[3]) or '', {}, {}
for at = 1, #seen, 7 do
  local entry = string.sub(seen, at, at + 6)
  if day_of(entry) > day then kept[#kept + 1] = entry
  elseif day_of(entry) > first then moved[#moved + 1] = entry end
end
if #kept * 7 < #seen then
  if #kept > 0 then redis.call('SET', KEYS[3], table.concat(kept), 'KEEPTTL') else redis.call('DEL', KEYS[3]) end
end
if #moved > 0 then
  local own, all, next = redis.call('GET', KEYS[5]) or '', {}, 1
  for at = 1, #own, 7 do
    local entry = string.sub(own, at, at + 6)
    while moved[next] and day_of(moved[next]) < day_of(entry) do
      all[#all + 1] = moved[next]
      next = next + 1
    end
    all[#all + 1] = entry
  end
  for at = next, #moved do all[#all + 1] = moved[at] end
  local known = {}
  for at = #all, 1, -1 do
    local item = string.sub(all[at], 1, 5)
    if known[item] then all[at] = '' end
    known[item] = true
  end
  redis.call('SET', KEYS[5], string.sub(table.concat(all), -tonumber(ARGV[7])), 'EX', ARGV[8])
end
if ARGV[9] == '1' then redis.call('ZADD', KEYS[6], 'GT', until_ms, visitor) end
"""


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
    """The commands that read and write what is known of a user (by key): those of recommendations for a
    SharedConnection, the others for a pipeline of either client."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._seconds = settings.user_days * DAY_SECONDS
        self._shown_seconds = min(settings.shown_days, settings.user_days) * DAY_SECONDS

    def put_profile(self, pipe: Any, user: str, tokens: list[str], time: int) -> None:
        """Replaces an older profile."""
        self._add(pipe, self._keys(user)[0], [(_encoder.encode(tokens).decode(), time)], 1)

    def add_history(self, pipe: Any, user: str, events: Sequence[HistoryEvent]) -> None:
        """Adds events to the history."""
        members = [(_BETWEEN.join((event.item, event.kind, str(event.time))), event.time) for event in events]
        self._add(pipe, self._keys(user)[1], members, self._settings.history_kept)

    def mark_shown(self, user: str, packed: bytes) -> list[Command]:
        """What adds items that were shown just now, packed. What else is known of the user stays for longer again."""
        profile, history, seen = self._keys(user)
        return [
            ("EVAL", _MARK, 1, seen, packed, *self._shown_limits),
            ("EXPIRE", profile, self._seconds),
            ("EXPIRE", history, self._seconds),
        ]

    def add_shown(self, pipe: Any, user: str, items: Sequence[ItemTime]) -> None:
        """Adds items not to show again, from before those that are there; those that are there already stay as they
        are."""
        if items:
            ordered = sorted(dict(sorted(items, key=lambda one: one[1])).items(), key=lambda one: (one[1], one[0]))
            pipe.eval(_ADD, 1, self._keys(user)[2], pack(ordered[-self._settings.shown_kept :]), *self._shown_limits)

    def forget(self, pipe: Any, user: str, until: int | None = None) -> None:
        """Removes what was known until then (ms), everything if it is not said. Of shown items all of that day."""
        profile, history, seen = self._keys(user)
        if until is None:
            pipe.delete(profile, history, seen)
            return
        for key in (profile, history):
            pipe.zremrangebyscore(key, "-inf", until)
        pipe.eval(_FORGET, 1, seen, day(until))

    def merge(self, pipe: Any, merge: Merge, erased: str, *, for_good: bool) -> None:
        """Has a visitor's history and shown items go over to the user. erased: the key of erasures. for_good: what is
        published of the visitor from before is forgotten again."""
        _, history, seen = self._keys(merge.account)
        keys = [*self._keys(merge.user), history, seen, erased]
        limits = (self._settings.history_kept, self._seconds, *self._shown_limits)
        marked = int(for_good)
        pipe.eval(_MERGE, len(keys), *keys, merge.user, merge.account, merge.time, day(merge.time), *limits, marked)

    @property
    def _shown_limits(self) -> tuple[int, int]:
        return self._settings.shown_kept * ENTRY_BYTES, self._shown_seconds

    def read(self, user: str) -> list[Command]:
        """What asks for what `features` reads."""
        profile, history, shown = self._keys(user)
        kept = self._settings.history_kept
        return [("ZRANGE", profile, -1, -1), ("ZRANGE", history, 0, kept - 1, "REV"), ("GET", shown)]

    def features(self, profile: list[bytes], history: list[bytes], shown: bytes | None) -> UserFeatures:
        """What the three answers say."""
        return UserFeatures(
            profile=_decoder.decode(profile[0]) if profile else [],
            history=_events(history),
            shown=Shown(shown or b""),
        )

    def count(self, pipe: Any, user: str) -> None:
        """Asks for what `held` reads."""
        profile, history, shown = self._keys(user)
        pipe.zrange(profile, -1, -1, withscores=True)
        pipe.zcard(history)
        pipe.zrange(history, -1, -1, withscores=True)
        pipe.strlen(shown)

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
            shown=shown // ENTRY_BYTES,
        )

    def pattern(self) -> str:
        """What the names of all keys of users match, and no others."""
        return f"{_SPECIAL.sub(_ESCAPED, self._settings.prefix)}:user:{{*}}:*"

    def first_of(self, name: bytes, held: Held) -> bool:
        """Whether the key is the one by which its user is listed: of those that there are the first."""
        there = b":history" if held.history else b":seen" if held.shown else b":profile"
        return name.endswith(there)

    def user_of(self, name: bytes) -> str:
        """Whose key it is."""
        return name.decode().rpartition("}")[0].rpartition("{")[2]

    def _keys(self, user: str) -> list[str]:
        return [f"{self._settings.prefix}:user:{{{user}}}:{what}" for what in ("profile", "history", "seen")]

    def _add(self, pipe: Any, key: str, entries: Sequence[ItemTime], kept: int) -> None:
        """Adds to a sorted set by time, newest time wins, and keeps the newest. Sends no more than are kept."""
        if entries:
            newest = dict(sorted(entries, key=lambda entry: entry[1]))
            sent = sorted(newest.items(), key=lambda entry: (entry[1], entry[0]))[-kept:]  # as the server ranks them
            pipe.zadd(key, dict(sent), gt=True)
            pipe.zremrangebyrank(key, 0, -kept - 1)
            pipe.expire(key, self._seconds)


def _events(members: list[bytes]) -> list[HistoryEvent]:
    """What stands in a sorted set: split at once, one by one only where an id has the separator in it."""
    words = _BETWEEN.encode().join(members).decode().split(_BETWEEN)
    if len(words) != 3 * len(members):
        return [_event(member) for member in members]
    return list(map(HistoryEvent, words[::3], words[1::3], map(int, words[2::3])))


def _event(member: bytes) -> HistoryEvent:
    item, kind, time = member.decode().rsplit(_BETWEEN, 2)
    return HistoryEvent(item, kind, int(time))
