"""The live catalogue and users' profiles: first into the log where they belong there, then into Redis."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import redis

from feature_store.contracts.catalogue import Item, UserProfile
from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.identity import Keyring
from feature_store.online import AsyncOnlineStore
from online_serving.bodies import NotFound, broken_rule
from online_serving.event_log import EventLog
from online_serving.schemas import ItemBody, ItemsRequest, UserBody
from online_serving.settings import ServingSettings
from streaming.catalogue_log import encode_deletion, encode_item


class Catalogue:
    """Items and users as clients write them. Every method raises Unavailable if Redis or the log does not answer."""

    def __init__(
        self, store: AsyncOnlineStore, log: EventLog, keyring: Keyring, settings: ServingSettings, clock: Clock
    ) -> None:
        self._store = store
        self._log = log
        self._keyring = keyring
        self._deadline = settings.feedback_deadline_ms / 1000
        self._clock = clock

    async def put(self, identity: str, body: ItemBody) -> tuple[Item, bool]:
        """Creates or replaces an item; True if it is new."""
        item = _item(identity, body)
        created = await self._write([item])
        return item, created == 1

    async def put_all(self, body: ItemsRequest) -> tuple[int, int]:
        """Creates or replaces items; how many were new and how many were there. Raises BrokenRules if one comes
        twice."""
        counts = Counter(item.id for item in body.items)
        if twice := next((identity for identity, count in counts.items() if count > 1), None):
            raise broken_rule("items", twice, "an id may come once in a batch")
        created = await self._write([_item(item.id, item) for item in body.items])
        return created, len(body.items) - created

    async def get(self, identity: str) -> Item:
        """Raises NotFound."""
        with _redis_answers():
            item = await self._store.get_item(identity)
        if item is None:
            raise NotFound(f"There is no item {identity!r}. Create it with PUT /v1/items/{{id}}.")
        return item

    async def delete(self, identity: str) -> None:
        """Raises NotFound."""
        await self.get(identity)
        await self._append([(identity, encode_deletion(identity, self._clock.now_ms()))])
        with _redis_answers():
            await self._store.delete_item(identity)

    async def put_user(self, user_id: str, body: UserBody) -> None:
        """Replaces a user's profile."""
        with _redis_answers():
            profile = UserProfile(attributes=dict(body.attributes))
            await self._store.put_profile(self._keyring.user_key(user_id), profile)

    async def erase_user(self, user_id: str) -> None:
        """Forgets a user's profile, history and shown items."""
        with _redis_answers():
            await self._store.erase_user(self._keyring.user_key(user_id))

    async def _write(self, items: Sequence[Item]) -> int:
        """Returns how many of the items are new."""
        with _redis_answers():
            before = await asyncio.gather(*(self._store.get_item(item.id) for item in items))
        now = self._clock.now_ms()
        await self._append([(item.id, encode_item(item, now)) for item in items])
        with _redis_answers():
            await self._store.put_items(items)
        return sum(item is None for item in before)

    async def _append(self, records: Sequence[tuple[str, bytes]]) -> None:
        sent = [self._log.append_catalogue(identity, value) for identity, value in records]
        done, waiting = await asyncio.wait(sent, timeout=self._deadline)
        if waiting or any(record.exception() for record in done):
            raise Unavailable("The log did not acknowledge the change of the catalogue in time. Send it again.")


class _redis_answers:  # noqa: N801 - reads as a phrase: with _redis_answers()
    """Turns what the Redis client raises into Unavailable."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, redis.RedisError | OSError):
            raise Unavailable(f"Redis does not answer ({error}). Try again.") from None


def _item(identity: str, body: ItemBody) -> Item:
    return Item(
        id=identity,
        title=body.title,
        categories=body.categories,
        attributes=dict(body.attributes),
        available=body.available,
    )
