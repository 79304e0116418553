"""Users, catalogue and switches in Redis.

    <prefix>:user:{<user key>}:profile   string: profile tokens
    <prefix>:user:{<user key>}:history   sorted set: item, kind and time of interactions, by time
    <prefix>:user:{<user key>}:shown     sorted set: items not to show again, by time
    <prefix>:catalogue                   hash: item id -> item
    <prefix>:active                      hash: release, namespace: what serves
    <prefix>:namespaces                  set: namespaces being folded
    <prefix>:changes                     stream: what changed in the catalogue or in what serves, capped

All writes are idempotent. OnlineStore is for jobs and follower threads, AsyncOnlineStore for the API's event loop.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import redis
import redis.asyncio

from feature_store.contracts.catalogue import Item, UserProfile
from feature_store.definitions import HistoryEvent
from feature_store.settings import RedisSettings

_CHANGES_KEPT = 100_000
_BATCH = 500
_BETWEEN = "\0"  # of item, kind and time: below every other character, so that Redis orders ties by item, then by kind

_tokens_encoder = msgspec.json.Encoder()
_tokens_decoder = msgspec.json.Decoder(list[str])
_item_decoder = msgspec.json.Decoder(Item)

ItemTime = tuple[str, int]  # item, ms since the epoch


class UserFeatures(NamedTuple):
    """What a request needs to know about its user."""

    profile: list[str]  # tokens
    history: list[HistoryEvent]  # newest first
    shown: frozenset[str]  # items not to show again


NOBODY = UserFeatures([], [], frozenset())


class Active(NamedTuple):
    """What serves."""

    release: str
    namespace: str


class Change(NamedTuple):
    """Something that every serving process must follow."""

    position: str
    kind: str  # item, active
    id: str  # the item's; empty for active


class UserRecord(NamedTuple):
    """A user's features as a training run publishes them."""

    user: str
    profile: list[str]
    history: list[HistoryEvent]
    shown: list[ItemTime]


class _Keys:
    def __init__(self, prefix: str) -> None:
        self.catalogue = f"{prefix}:catalogue"
        self.active = f"{prefix}:active"
        self.namespaces = f"{prefix}:namespaces"
        self.changes = f"{prefix}:changes"
        self.prefix = prefix

    def user(self, user: str, what: str) -> str:
        return f"{self.prefix}:user:{{{user}}}:{what}"


class OnlineStore:
    """The store for code that may block."""

    def __init__(self, client: redis.Redis, settings: RedisSettings) -> None:
        self._redis = client
        self._settings = settings
        self._keys = _Keys(settings.prefix)

    def put_users(self, users: Iterable[UserRecord]) -> None:
        """Publishes users' features: profiles are replaced, history and shown items are added to."""
        for batch in _batches(users):
            pipe = self._redis.pipeline(transaction=False)
            for record in batch:
                if record.profile:
                    pipe.set(self._keys.user(record.user, "profile"), _tokens_encoder.encode(record.profile))
                history = _members(record.history)
                _add(pipe, self._keys.user(record.user, "history"), history, self._settings.history_kept)
                _add(pipe, self._keys.user(record.user, "shown"), record.shown, self._settings.shown_kept)
            pipe.execute()

    def add_history(self, events: Iterable[tuple[str, HistoryEvent]]) -> None:
        """Adds what users (by key) did to their histories."""
        by_user: dict[str, list[HistoryEvent]] = {}
        for user, event in events:
            by_user.setdefault(user, []).append(event)
        for batch in _batches(by_user.items()):
            pipe = self._redis.pipeline(transaction=False)
            for user, found in batch:
                _add(pipe, self._keys.user(user, "history"), _members(found), self._settings.history_kept)
            pipe.execute()

    def items(self) -> Iterator[Item]:
        """All items of the catalogue."""
        for _, value in self._redis.hscan_iter(self._keys.catalogue, count=_BATCH):
            yield _item_decoder.decode(value)

    def get_item(self, item: str) -> Item | None:
        """One item, None if there is none of this id."""
        value = self._redis.hget(self._keys.catalogue, item)
        return None if value is None else _item_decoder.decode(value)

    def put_items(self, items: Iterable[Item]) -> None:
        """Creates or replaces items and announces it."""
        for batch in _batches(items):
            pipe = self._redis.pipeline(transaction=True)
            _put_items(pipe, self._keys, batch)
            pipe.execute()

    def add_namespace(self, namespace: str) -> None:
        """Has a namespace folded from now on."""
        self._redis.sadd(self._keys.namespaces, namespace)

    def namespaces(self) -> list[str]:
        """The namespaces being folded."""
        return sorted(name.decode() for name in self._redis.smembers(self._keys.namespaces))

    def retire(self, namespace: str) -> None:
        """Ends the folding of a namespace; its state stays until it is dropped."""
        self._redis.srem(self._keys.namespaces, namespace)

    def activate(self, active: Active) -> None:
        """Has every serving process swap to the release and namespace."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.sadd(self._keys.namespaces, active.namespace)
        pipe.hset(self._keys.active, mapping=active._asdict())
        _announce(pipe, self._keys, "active", "")
        pipe.execute()

    def active(self) -> Active | None:
        """What serves, None before the first release."""
        fields = self._redis.hgetall(self._keys.active)
        return Active(fields[b"release"].decode(), fields[b"namespace"].decode()) if fields else None

    def changes_position(self) -> str:
        """Where to follow changes from, taken before reading what they change."""
        last = self._redis.xrevrange(self._keys.changes, count=1)
        return last[0][0].decode() if last else "0-0"

    def changes(self, position: str, block_ms: int) -> list[Change]:
        """Changes after the position, waiting up to block_ms for the first one."""
        answer = self._redis.xread({self._keys.changes: position}, count=_BATCH, block=block_ms)
        return [
            Change(name.decode(), fields[b"kind"].decode(), fields[b"id"].decode())
            for _, entries in answer or []
            for name, fields in entries
        ]


class AsyncOnlineStore:
    """The store for the event loop."""

    def __init__(self, client: redis.asyncio.Redis, settings: RedisSettings) -> None:
        self._redis = client
        self._settings = settings
        self._keys = _Keys(settings.prefix)

    async def user(self, user: str) -> UserFeatures:
        """A user's features in one round trip; empty ones for somebody unknown."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.get(self._keys.user(user, "profile"))
        pipe.zrange(self._keys.user(user, "history"), 0, self._settings.history_kept - 1, desc=True)
        pipe.zrange(self._keys.user(user, "shown"), 0, -1)
        profile, history, shown = await pipe.execute()
        return UserFeatures(
            profile=_tokens_decoder.decode(profile) if profile else [],
            history=[_event(member) for member in history],
            shown=frozenset(item.decode() for item in shown),
        )

    async def mark_shown(self, user: str, items: Sequence[str], time: int) -> None:
        """Remembers that the items were shown to the user at the time (ms)."""
        pipe = self._redis.pipeline(transaction=False)
        _add(pipe, self._keys.user(user, "shown"), [(item, time) for item in items], self._settings.shown_kept)
        await pipe.execute()

    async def get_item(self, item: str) -> Item | None:
        """One item, None if there is none of this id."""
        value = await self._redis.hget(self._keys.catalogue, item)
        return None if value is None else _item_decoder.decode(value)

    async def put_items(self, items: Sequence[Item]) -> None:
        """Creates or replaces items and announces it, in one transaction."""
        pipe = self._redis.pipeline(transaction=True)
        _put_items(pipe, self._keys, items)
        await pipe.execute()

    async def delete_item(self, item: str) -> bool:
        """Deletes an item and announces it. False if there was none of this id."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.hdel(self._keys.catalogue, item)
        _announce(pipe, self._keys, "item", item)
        deleted, _ = await pipe.execute()
        return bool(deleted)

    async def put_profile(self, user: str, profile: UserProfile) -> None:
        """Replaces a user's profile."""
        await self._redis.set(self._keys.user(user, "profile"), _tokens_encoder.encode(profile.tokens()))

    async def erase_user(self, user: str) -> None:
        """Forgets a user: profile, history and shown items."""
        await self._redis.delete(*(self._keys.user(user, what) for what in ("profile", "history", "shown")))

    async def ping(self) -> None:
        """Raises redis.RedisError if the server does not answer."""
        await self._redis.execute_command("PING")


def _add(pipe: Any, key: str, entries: Sequence[ItemTime], kept: int) -> None:
    """Adds to a sorted set by time, newest time wins, and keeps the newest."""
    if entries:
        pipe.zadd(key, dict(sorted(entries, key=lambda entry: entry[1])), gt=True)
        pipe.zremrangebyrank(key, 0, -kept - 1)


def _members(events: Sequence[HistoryEvent]) -> list[ItemTime]:
    return [(_BETWEEN.join((event.item, event.kind, str(event.time))), event.time) for event in events]


def _event(member: bytes) -> HistoryEvent:
    item, kind, time = member.decode().rsplit(_BETWEEN, 2)
    return HistoryEvent(item, kind, int(time))


def _put_items(pipe: Any, keys: _Keys, items: Sequence[Item]) -> None:
    if items:
        pipe.hset(keys.catalogue, mapping={item.id: msgspec.json.encode(item) for item in items})
    for item in items:
        _announce(pipe, keys, "item", item.id)


def _announce(pipe: Any, keys: _Keys, kind: str, identity: str) -> None:
    pipe.xadd(keys.changes, {"kind": kind, "id": identity}, maxlen=_CHANGES_KEPT, approximate=True)


def _batches(values: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for value in values:
        batch.append(value)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
