"""The live catalogue: first into the log, then into Redis."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

import redis

from feature_store.catalogue_writes import ItemChange
from feature_store.contracts.catalogue import Item
from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import Unavailable
from feature_store.online.catalogue import UnreadableItem
from feature_store.online.store import AsyncOnlineStore
from online_serving.errors import NotFound
from online_serving.event_log import EventLog
from online_serving.schemas import ItemBody, ItemsRequest
from online_serving.settings import ServingSettings
from streaming.catalogue_log import encode_deletion, encode_item
from streaming.kafka import Appended

_log = logging.getLogger(__name__)

_APPENDED_AT_ONCE = 50


class Catalogue:
    """Items as clients write them. Every method raises Unavailable if Redis or the log does not answer.

    Redis follows the log: writes of one item at once, in this process or in several, end as the log's last record says.
    """

    def __init__(self, online: AsyncOnlineStore, log: EventLog, settings: ServingSettings, clock: Clock) -> None:
        self._online = online
        self._log = log
        self._deadline = settings.feedback_deadline_ms / 1000
        self._clock = clock
        self._late: set[asyncio.Task[None]] = set()

    async def put(self, identity: str, body: ItemBody) -> tuple[Item, bool]:
        """Creates or replaces an item; True if it is new."""
        item = _item(identity, body)
        return item, await self._put([item]) == 1

    async def put_all(self, body: ItemsRequest) -> tuple[int, int]:
        """Creates or replaces items; how many were new and how many were there. If an id comes more than once, its last
        item counts."""
        items = list({item.id: _item(item.id, item) for item in body.items}.values())
        created = await self._put(items)
        return created, len(items) - created

    async def get(self, identity: str) -> Item:
        """Raises NotFound, or UnreadableItem."""
        item = await self._find(identity)
        if isinstance(item, UnreadableItem):
            raise item
        return item

    async def page(self, cursor: int, count: int) -> tuple[list[Item], int]:
        """About so many items, and the cursor behind them, 0: there are no more. Entries that cannot be read are passed
        over."""
        with redis_answers():
            behind, found = await self._online.catalogue.page(cursor, count)
        return [item for item in found if isinstance(item, Item)], behind

    async def delete(self, identity: str) -> None:
        """Raises NotFound."""
        await self._find(identity)
        await self._change({identity: None})

    async def _find(self, identity: str) -> Item | UnreadableItem:
        with redis_answers():
            (item,) = await self._online.catalogue.get([identity])
        if item is None:
            raise NotFound(f"There is no item {identity!r}. Create it with PUT /v1/items/{{id}}.")
        return item

    async def _put(self, items: Sequence[Item]) -> int:
        """Returns how many of the items are new."""
        with redis_answers():  # before the log: nothing is written while Redis cannot follow
            before = await self._online.catalogue.get([item.id for item in items])
        await self._change({item.id: item for item in items})
        return before.count(None)

    async def _change(self, items: Mapping[str, Item | None]) -> None:
        """Writes items, None: deleted, into the log and then, with their places in it, into Redis."""
        now = self._clock.now_ms()
        sent: dict[asyncio.Future[Appended], tuple[str, Item | None]] = {}
        for number, (identity, item) in enumerate(items.items(), 1):
            record = encode_deletion(identity, now) if item is None else encode_item(item, now)
            sent[self._log.append_catalogue(identity, record)] = identity, item
            if number % _APPENDED_AT_ONCE == 0:
                await asyncio.sleep(0)  # other requests go in between: a thousand items take 60 ms
        done, waiting = await asyncio.wait(sent, timeout=self._deadline)
        taken = [future for future in done if future.exception() is None]
        if waiting:
            self._go_on({future: sent[future] for future in waiting})
        if taken:
            with redis_answers():
                await self._follow({future: sent[future] for future in taken})
        if len(taken) < len(sent):
            raise Unavailable("The log did not acknowledge the change of the catalogue in time. Send it again.")

    async def _follow(self, taken: "Mapping[asyncio.Future[Appended], tuple[str, Item | None]]") -> None:
        changes = [ItemChange(future.result().offset, *change) for future, change in taken.items()]
        await self._online.catalogue.write(self._log.catalogue_id, changes)

    def _go_on(self, waiting: "Mapping[asyncio.Future[Appended], tuple[str, Item | None]]") -> None:
        """What the log takes too late is in the log all the same, so Redis takes it too."""

        async def follow() -> None:
            done, _ = await asyncio.wait(waiting)
            taken = {future: waiting[future] for future in done if future.exception() is None}
            try:
                if taken:
                    await self._follow(taken)
            except (redis.RedisError, OSError) as error:
                _log.warning("%d late changes of the catalogue are in the log and not in Redis: %r", len(taken), error)

        task = asyncio.create_task(follow())
        self._late.add(task)
        task.add_done_callback(self._late.discard)


class redis_answers:  # noqa: N801 - reads as a phrase: with redis_answers()
    """Turns what the Redis client raises into Unavailable."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, redis.RedisError | OSError):
            raise Unavailable(f"Redis does not answer ({error or 'no answer in time'}). Try again.") from None


def _item(identity: str, body: ItemBody) -> Item:
    return Item(
        id=identity,
        title=body.title,
        categories=body.categories,
        attributes=dict(body.attributes),
        available=body.available,
        available_from=body.available_from,
        available_until=body.available_until,
    )
