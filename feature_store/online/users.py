"""What is known of users, and who is to be forgotten."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import redis
import redis.asyncio

from feature_store.batches import BATCH, batches
from feature_store.contracts.events import Erasure, Merge
from feature_store.definitions import HistoryEvent
from feature_store.online.keys import Keys
from feature_store.settings import RedisSettings
from feature_store.shared_connection import SharedConnection
from feature_store.turns import Turns
from feature_store.user_features import Held, ItemTime, UserCommands, UserFeatures, UserRecord


class OnlineUsers:
    """Users, for code that may block."""

    def __init__(self, client: redis.Redis, settings: RedisSettings) -> None:
        self._redis = client
        self._erased = Keys(settings.prefix).erased
        self._published = Keys(settings.prefix).published
        self._kept = f" {settings.history_kept} {settings.shown_kept}"
        self._commands = UserCommands(settings)

    def published(self) -> str | None:
        """The release whose users were all published last, None if it was with other limits: then less is there."""
        release, kept, _ = (self._redis.get(self._published) or b"").decode().partition(self._kept)
        return release if kept else None

    def note_published(self, release: str) -> None:
        """All users of the release are published."""
        self._redis.set(self._published, f"{release}{self._kept}")

    def forget_published(self) -> None:
        """Nobody can say any more whose users are published."""
        self._redis.delete(self._published)

    def add_shown(self, shown: Iterable[tuple[str, Sequence[ItemTime]]]) -> None:
        """Adds what users (by key) were shown, each item with its time (ms), from before what is there."""
        for batch in batches(shown):
            pipe = self._redis.pipeline(transaction=False)
            for user, items in batch:
                self._commands.add_shown(pipe, user, items)
            self._write(pipe, [user for user, _ in batch])

    def put(self, users: Iterable[UserRecord]) -> None:
        """Publishes users' features: older profiles are replaced, history and shown items are added to. Of those who
        were erased what was known until then stays forgotten."""
        for batch in batches(users):
            pipe = self._redis.pipeline(transaction=False)
            for record in batch:
                if record.profile:
                    self._commands.put_profile(pipe, record.user, record.profile, record.profile_time)
                self._commands.add_history(pipe, record.user, record.history)
                self._commands.add_shown(pipe, record.user, record.shown)
            self._write(pipe, [record.user for record in batch])

    def put_profiles(self, profiles: Iterable[tuple[str, list[str], int]]) -> None:
        """Replaces older profiles: of users (by key), tokens, and when (ms) they became known."""
        for batch in batches(profiles):
            pipe = self._redis.pipeline(transaction=False)
            for user, tokens, known in batch:
                self._commands.put_profile(pipe, user, tokens, known)
            self._write(pipe, [user for user, _, _ in batch])

    def add_history(self, events: Iterable[tuple[str, HistoryEvent]]) -> None:
        """Adds what users (by key) did to their histories."""
        by_user: dict[str, list[HistoryEvent]] = {}
        for user, event in events:
            by_user.setdefault(user, []).append(event)
        for batch in batches(by_user.items()):
            pipe = self._redis.pipeline(transaction=False)
            for user, found in batch:
                self._commands.add_history(pipe, user, found)
            self._write(pipe, [user for user, _ in batch])

    def erase(self, erased: Iterable[tuple[str, int]]) -> None:
        """Forgets what was known of users (by key) until a time (ms), whoever publishes it again."""
        for batch in batches(erased):
            self._redis.zadd(self._erased, dict(sorted(batch, key=lambda one: one[1])), gt=True)
            self._forget(batch)

    def depart(self, departures: Iterable[Erasure | Merge]) -> None:
        """Forgets users, or has what is known of them go over to others, in this order; whoever publishes it again."""
        for kind, alike in itertools.groupby(departures, type):
            if kind is Erasure:
                self.erase((erasure.user, erasure.time) for erasure in alike)
                continue
            for batch in batches(one for one in alike if isinstance(one, Merge)):
                pipe = self._redis.pipeline(transaction=False)
                for merge in batch:
                    self._commands.merge(pipe, merge, self._erased, for_good=True)
                pipe.execute()

    def erased(self) -> dict[str, int]:
        """The users (by key) who are to be forgotten, and until when (ms)."""
        return {user.decode(): int(time) for user, time in self._redis.zscan_iter(self._erased, count=BATCH)}

    def end_erasures(self, before: int) -> None:
        """Remembers no longer the erasures from before a time (ms): nothing is left that could bring them back."""
        self._redis.zremrangebyscore(self._erased, "-inf", f"({before}")

    def _write(self, pipe: Any, users: Sequence[str]) -> None:
        """Writes what is known of users, and has what an erasure covers forgotten. Erasures are looked up behind the
        writing: one that comes meanwhile is either found here, or deletes after it."""
        pipe.zmscore(self._erased, users)
        times = pipe.execute()[-1]
        self._forget([(user, int(time)) for user, time in zip(users, times, strict=True) if time is not None])

    def _forget(self, erased: Sequence[tuple[str, int]]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for user, until in erased:
            self._commands.forget(pipe, user, until)
        pipe.execute()  # nothing, if nobody is


class AsyncOnlineUsers:
    """Users, for the event loop. shared: for what a recommendation asks; writes: the turns of what clients do."""

    def __init__(
        self, client: redis.asyncio.Redis, settings: RedisSettings, shared: SharedConnection, writes: Turns
    ) -> None:
        self._redis = client
        self._shared = shared
        self._erased = Keys(settings.prefix).erased
        self._commands = UserCommands(settings)
        self._writes = writes

    async def get(self, user: str) -> UserFeatures:
        """A user's features in one round trip; empty ones for somebody unknown."""
        return self._commands.features(*await self._shared.call(self._commands.read(user)))

    async def mark_shown(self, user: str, packed: bytes) -> None:
        """Remembers that items, packed with their times, were shown to the user."""
        await self._shared.call(self._commands.mark_shown(user, packed))

    async def held(self, user: str) -> Held | None:
        """What is stored of a user, None for somebody unknown."""
        pipe = self._redis.pipeline(transaction=False)
        self._commands.count(pipe, user)
        async with self._writes.one():
            return self._commands.held(*await pipe.execute())

    async def page(self, cursor: int, count: int) -> tuple[int, list[tuple[str, Held]]]:
        """What is stored of some users (by key), of about so many keys in Redis, and the cursor behind them, 0: there
        are no more. Begins with cursor 0. Who is there all the while comes at least once."""
        async with self._writes.one():
            behind, names = await self._redis.scan(cursor, match=self._commands.pattern(), count=count)
            users = [self._commands.user_of(name) for name in names]
            pipe = self._redis.pipeline(transaction=False)
            for user in users:
                self._commands.count(pipe, user)
            answers = await pipe.execute()
        found = [self._commands.held(*answers[4 * n : 4 * n + 4]) for n in range(len(users))]
        listed = zip(names, users, found, strict=True)
        return int(behind), [
            (user, held) for name, user, held in listed if held and self._commands.first_of(name, held)
        ]

    async def put_profile(self, user: str, tokens: list[str], time: int) -> None:
        """Replaces a user's older profile with one that became known at the time (ms)."""
        pipe = self._redis.pipeline(transaction=False)
        self._commands.put_profile(pipe, user, tokens, time)
        async with self._writes.one():
            await pipe.execute()

    async def merge(self, merge: Merge) -> None:
        """Has what is known of a visitor go over to a user. What is folded later, from before it, follows then."""
        pipe = self._redis.pipeline(transaction=False)
        self._commands.merge(pipe, merge, self._erased, for_good=False)
        async with self._writes.one():
            await pipe.execute()

    async def erase(self, user: str, time: int) -> None:
        """Forgets a user: profile, history and shown items, and until when (ms) nobody may bring them back."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.zadd(self._erased, {user: time}, gt=True)
        self._commands.forget(pipe, user)
        async with self._writes.one():
            await pipe.execute()
