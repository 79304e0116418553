"""Users, catalogue and switches in Redis.

    <prefix>:user:{<user key>}:...       what is known of a user: see user_features.py
    <prefix>:erased                      sorted set: users (keys) to be forgotten, by the time until when
    <prefix>:catalogue                   hash: item id -> item
    <prefix>:catalogue_places            hash: item id -> log and offset of the record that last put or deleted the item
    <prefix>:catalogue_reconciled        string: log, and the offset up to which every record of it has been taken over
    <prefix>:active                      hash: release, namespace: what serves
    <prefix>:namespaces                  set: namespaces being folded
    <prefix>:secret                      string: fingerprint of the secret that the user keys are made with
    <prefix>:changes                     stream: what changed in the catalogue or in what serves, capped

All writes are idempotent. OnlineStore is for jobs and follower threads,
AsyncOnlineStore for the API's event loop.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import redis
import redis.asyncio

from feature_store import catalogue_writes
from feature_store.catalogue_writes import ItemChange
from feature_store.contracts.catalogue import Item
from feature_store.contracts.errors import UNREADABLE, InvalidInput, MatchLoopError
from feature_store.contracts.identity import Keyring
from feature_store.definitions import HistoryEvent
from feature_store.settings import RedisSettings
from feature_store.turns import Turns
from feature_store.user_features import Held, UserCommands, UserFeatures, UserRecord

NO_CHANGES = "0-0"  # where a stream stands that is empty
_CHANGES_KEPT = 100_000
_BATCH = 500
_USER_CALLS, _USER_SECONDS = 32, 1.0  # for what a recommendation asks; without an answer it goes on
_WRITE_CALLS, _WRITE_SECONDS = 16, 5.0  # for what clients write or read of the catalogue and of users
ASYNC_CONNECTIONS = _USER_CALLS + _WRITE_CALLS + 2  # two for pings

_item_decoder = msgspec.json.Decoder(Item)


class Active(NamedTuple):
    """What serves."""

    release: str
    namespace: str


class Change(NamedTuple):
    """Something that every serving process must follow."""

    position: str
    kind: str  # item, active; anything else is to be passed over
    id: str  # the item's; empty for active


class ChangeGap(Exception):
    """Changes after the position may be lost: what they changed must be read anew."""


class UnreadableItem(MatchLoopError):
    """An entry of the catalogue that is no item; the others are as good as ever."""

    def __init__(self, item: str, reason: str) -> None:
        super().__init__(
            f"The entry of item {item!r} in the catalogue cannot be read: {reason}. Replace it with "
            "PUT /v1/items/{id}, or delete it; until then it is not recommended."
        )
        self.item = item


class _Keys:
    def __init__(self, prefix: str) -> None:
        self.catalogue = f"{prefix}:catalogue"
        self.places = f"{prefix}:catalogue_places"
        self.reconciled = f"{prefix}:catalogue_reconciled"
        self.active = f"{prefix}:active"
        self.namespaces = f"{prefix}:namespaces"
        self.changes = f"{prefix}:changes"
        self.secret = f"{prefix}:secret"
        self.catalogue_keys = [self.catalogue, self.places, self.changes]  # what the scripts on items take
        self.erased = f"{prefix}:erased"
        self.prefix = prefix


class OnlineStore:
    """The store for code that may block."""

    def __init__(self, client: redis.Redis, settings: RedisSettings) -> None:
        self._redis = client
        self._settings = settings
        self._keys = _Keys(settings.prefix)
        self._users = UserCommands(settings)
        self._add_items = client.register_script(catalogue_writes.ADD)
        self._write_items = client.register_script(catalogue_writes.WRITE)

    def check_secret(self, keyring: Keyring) -> None:
        """Raises InvalidInput if the store was first used with another secret. If it was not used yet, it is now."""
        self._redis.set(self._keys.secret, keyring.fingerprint, nx=True)
        if self._redis.get(self._keys.secret) != keyring.fingerprint.encode():
            raise InvalidInput(
                f"Redis (redis.prefix {self._settings.prefix!r}) was first used with another secret: with this one, "
                "every user would be a stranger, and feedback on earlier decisions refused. Set MATCHLOOP_SECRET, or "
                "the file `secret` in the home directory, to what it was, the same on every host. To begin anew with "
                "this one, set another redis.prefix or use an empty database."
            )

    def put_users(self, users: Iterable[UserRecord]) -> None:
        """Publishes users' features: older profiles are replaced, history and shown items are added to. Of those who
        were erased what was known until then stays forgotten."""
        for batch in _batches(users):
            pipe = self._redis.pipeline(transaction=False)
            for record in batch:
                if record.profile:
                    self._users.put_profile(pipe, record.user, record.profile, record.profile_time)
                self._users.add_history(pipe, record.user, record.history)
                self._users.add_shown(pipe, record.user, record.shown)
            self._write(pipe, [record.user for record in batch])

    def put_profiles(self, profiles: Iterable[tuple[str, list[str], int]]) -> None:
        """Replaces older profiles: of users (by key), tokens, and when (ms) they became known."""
        for batch in _batches(profiles):
            pipe = self._redis.pipeline(transaction=False)
            for user, tokens, known in batch:
                self._users.put_profile(pipe, user, tokens, known)
            self._write(pipe, [user for user, _, _ in batch])

    def erase_users(self, erased: Iterable[tuple[str, int]]) -> None:
        """Forgets what was known of users (by key) until a time (ms), whoever publishes it again."""
        for batch in _batches(erased):
            self._redis.zadd(self._keys.erased, dict(sorted(batch, key=lambda one: one[1])), gt=True)
            self._forget(batch)

    def erased(self) -> dict[str, int]:
        """The users (by key) who are to be forgotten, and until when (ms)."""
        return {user.decode(): int(time) for user, time in self._redis.zscan_iter(self._keys.erased, count=_BATCH)}

    def end_erasures(self, before: int) -> None:
        """Remembers no longer the erasures from before a time (ms): nothing is left that could bring them back."""
        self._redis.zremrangebyscore(self._keys.erased, "-inf", f"({before}")

    def _write(self, pipe: Any, users: Sequence[str]) -> None:
        """Writes what is known of users, and has what an erasure covers forgotten. Erasures are looked up behind the
        writing: one that comes meanwhile is either found here, or deletes after it."""
        pipe.zmscore(self._keys.erased, users)
        times = pipe.execute()[-1]
        self._forget([(user, int(time)) for user, time in zip(users, times, strict=True) if time is not None])

    def _forget(self, erased: Sequence[tuple[str, int]]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for user, until in erased:
            self._users.forget(pipe, user, until)
        pipe.execute()  # nothing, if nobody is

    def add_history(self, events: Iterable[tuple[str, HistoryEvent]]) -> None:
        """Adds what users (by key) did to their histories."""
        by_user: dict[str, list[HistoryEvent]] = {}
        for user, event in events:
            by_user.setdefault(user, []).append(event)
        for batch in _batches(by_user.items()):
            pipe = self._redis.pipeline(transaction=False)
            for user, found in batch:
                self._users.add_history(pipe, user, found)
            self._write(pipe, [user for user, _ in batch])

    def items(self) -> Iterator[tuple[str, Item | UnreadableItem]]:
        """The whole catalogue, by item id."""
        for key, value in self._redis.hscan_iter(self._keys.catalogue, count=_BATCH):
            name = key.decode(errors="replace")
            yield name, _item(name, value)

    def get_items(self, items: Iterable[str]) -> list[Item | UnreadableItem | None]:
        """Items by id, None where there is none."""
        found: list[Item | UnreadableItem | None] = []
        for batch in _batches(items):
            values = self._redis.hmget(self._keys.catalogue, batch)
            found += [_item_or_none(*entry) for entry in zip(batch, values, strict=True)]
        return found

    def add_items(self, items: Iterable[Item]) -> None:
        """Creates items and announces it. Those that are there, or were put or deleted by way of the log, are left as
        they are."""
        for batch in _batches(items):
            self._add_items(self._keys.catalogue_keys, [_CHANGES_KEPT, *catalogue_writes.additions(batch)])

    def reconciled(self, log: str) -> int:
        """The first offset of the catalogue's log that reconcile has not got to."""
        held, _, offset = (self._redis.get(self._keys.reconciled) or b"").decode().rpartition(" ")
        return int(offset) if held == log else 0

    def reconcile(self, log: str, changes: Iterable[ItemChange], end: int) -> None:
        """Takes over what the log holds from `reconciled` to `end`, as AsyncOnlineStore.write_items does."""
        for batch in _batches(changes):
            self._write_items(self._keys.catalogue_keys, [_CHANGES_KEPT, log, *catalogue_writes.writes(batch)])
        # Behind the entries: a Redis that goes back to an older state goes back with its place.
        self._redis.set(self._keys.reconciled, f"{log} {end}")

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
        return last[0][0].decode() if last else NO_CHANGES

    def changes(self, position: str, block_ms: int) -> list[Change]:
        """Changes after the position, waiting up to block_ms for the first one.

        Raises ChangeGap if the entry at the position is gone: so may be those after it, by the stream's cap, or because
        the server went back to an older state. The first changes of all follow NO_CHANGES, and raise it too.
        """
        answer = self._redis.xread({self._keys.changes: position}, count=_BATCH, block=block_ms)
        changes = [_change(*entry) for _, entries in answer or [] for entry in entries]
        if changes and not self._redis.xrange(self._keys.changes, position, position, count=1):
            raise ChangeGap
        return changes


class AsyncOnlineStore:
    """The store for the event loop. Every method raises redis.RedisError or OSError if the server does not answer in
    time; many calls at once wait for their turn, and that is no failure."""

    def __init__(self, client: redis.asyncio.Redis, settings: RedisSettings) -> None:
        """The client should have ASYNC_CONNECTIONS."""
        self._redis = client
        self._settings = settings
        self._keys = _Keys(settings.prefix)
        self._users = UserCommands(settings)
        self._user_turns = Turns(_USER_CALLS, _USER_SECONDS)
        self._write_turns = Turns(_WRITE_CALLS, _WRITE_SECONDS)
        self._write_items = client.register_script(catalogue_writes.WRITE)

    async def user(self, user: str) -> UserFeatures:
        """A user's features in one round trip; empty ones for somebody unknown."""
        pipe = self._redis.pipeline(transaction=False)
        self._users.read(pipe, user)
        async with self._user_turns.one():
            return self._users.features(*await pipe.execute())

    async def mark_shown(self, user: str, items: Sequence[str], time: int) -> None:
        """Remembers that the items were shown to the user at the time (ms)."""
        pipe = self._redis.pipeline(transaction=False)
        self._users.add_shown(pipe, user, [(item, time) for item in items])
        async with self._user_turns.one():
            await pipe.execute()

    async def get_items(self, items: Sequence[str]) -> list[Item | UnreadableItem | None]:
        """Items by id, None where there is none."""
        async with self._write_turns.one():
            values = await self._redis.hmget(self._keys.catalogue, items)
        return [_item_or_none(*entry) for entry in zip(items, values, strict=True)]

    async def write_items(self, log: str, changes: Sequence[ItemChange]) -> None:
        """Takes over changes that the log holds, and announces them. What a later record of the same log has written
        already stays, so that every order of calls ends in the same entries. log: the id of the catalogue's log."""
        arguments = [_CHANGES_KEPT, log, *catalogue_writes.writes(changes)]
        async with self._write_turns.one():
            await self._write_items(self._keys.catalogue_keys, arguments)

    async def held(self, user: str) -> Held | None:
        """What is stored of a user, None for somebody unknown."""
        pipe = self._redis.pipeline(transaction=False)
        self._users.count(pipe, user)
        async with self._write_turns.one():
            return self._users.held(*await pipe.execute())

    async def put_profile(self, user: str, tokens: list[str], time: int) -> None:
        """Replaces a user's older profile with one that became known at the time (ms)."""
        pipe = self._redis.pipeline(transaction=False)
        self._users.put_profile(pipe, user, tokens, time)
        async with self._write_turns.one():
            await pipe.execute()

    async def erase_user(self, user: str, time: int) -> None:
        """Forgets a user: profile, history and shown items, and until when (ms) nobody may bring them back."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.zadd(self._keys.erased, {user: time}, gt=True)
        self._users.forget(pipe, user)
        async with self._write_turns.one():
            await pipe.execute()

    async def ping(self) -> None:
        """Raises redis.RedisError if the server does not answer."""
        await self._redis.execute_command("PING")


def _item(name: str, value: bytes) -> Item | UnreadableItem:
    try:
        item = _item_decoder.decode(value)
    except UNREADABLE as error:
        return UnreadableItem(name, str(error))
    return item if item.id == name else UnreadableItem(name, f"it holds item {item.id!r}")


def _item_or_none(name: str, value: bytes | None) -> Item | UnreadableItem | None:
    return None if value is None else _item(name, value)


def _change(position: bytes, fields: dict[bytes, bytes]) -> Change:
    kind, identity = (fields.get(name, b"").decode(errors="replace") for name in (b"kind", b"id"))
    return Change(position.decode(), kind, identity)


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
