"""The catalogue: items by id, and how far the log has been taken over."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec
import redis
import redis.asyncio

from feature_store import catalogue_writes
from feature_store.batches import BATCH, batches
from feature_store.catalogue_writes import ItemChange
from feature_store.contracts.catalogue import Item
from feature_store.contracts.errors import UNREADABLE, MatchLoopError
from feature_store.online.changes import CHANGES_KEPT
from feature_store.online.keys import Keys
from feature_store.turns import Turns

_item_decoder = msgspec.json.Decoder(Item)


class UnreadableItem(MatchLoopError):
    """An entry of the catalogue that is no item; the others are as good as ever."""

    def __init__(self, item: str, reason: str) -> None:
        super().__init__(
            f"The entry of item {item!r} in the catalogue cannot be read: {reason}. Replace it with "
            "PUT /v1/items/{id}, or delete it; until then it is not recommended."
        )
        self.item = item


class OnlineCatalogue:
    """The catalogue, for code that may block."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._redis = client
        self._keys = Keys(prefix)
        self._add = client.register_script(catalogue_writes.ADD)
        self._write = client.register_script(catalogue_writes.WRITE)

    def items(self) -> Iterator[tuple[str, Item | UnreadableItem]]:
        """The whole catalogue, by item id."""
        for key, value in self._redis.hscan_iter(self._keys.catalogue, count=BATCH):
            name = key.decode(errors="replace")
            yield name, _item(name, value)

    def get(self, items: Iterable[str]) -> list[Item | UnreadableItem | None]:
        """Items by id, None where there is none."""
        found: list[Item | UnreadableItem | None] = []
        for batch in batches(items):
            values = self._redis.hmget(self._keys.catalogue, batch)
            found += [_item_or_none(*entry) for entry in zip(batch, values, strict=True)]
        return found

    def add(self, items: Iterable[Item]) -> None:
        """Creates items and announces it. Those that are there, or were put or deleted by way of the log, are left as
        they are."""
        for batch in batches(items):
            self._add(self._keys.of_items, [CHANGES_KEPT, *catalogue_writes.additions(batch)])

    def reconciled(self, log: str) -> int:
        """The first offset of the catalogue's log that reconcile has not got to."""
        held, _, offset = (self._redis.get(self._keys.reconciled) or b"").decode().rpartition(" ")
        return int(offset) if held == log else 0

    def reconcile(self, log: str, changes: Iterable[ItemChange], end: int) -> None:
        """Takes over what the log holds from `reconciled` to `end`, as AsyncOnlineCatalogue.write does."""
        for batch in batches(changes):
            self._write(self._keys.of_items, [CHANGES_KEPT, log, *catalogue_writes.writes(batch)])
        # Behind the entries: a Redis that goes back to an older state goes back with its place.
        self._redis.set(self._keys.reconciled, f"{log} {end}")


class AsyncOnlineCatalogue:
    """The catalogue, for the event loop."""

    def __init__(self, client: redis.asyncio.Redis, prefix: str, turns: Turns) -> None:
        self._redis = client
        self._keys = Keys(prefix)
        self._turns = turns
        self._write = client.register_script(catalogue_writes.WRITE)

    async def get(self, items: Sequence[str]) -> list[Item | UnreadableItem | None]:
        """Items by id, None where there is none."""
        async with self._turns.one():
            values = await self._redis.hmget(self._keys.catalogue, items)
        return [_item_or_none(*entry) for entry in zip(items, values, strict=True)]

    async def page(self, cursor: int, count: int) -> tuple[int, list[Item | UnreadableItem]]:
        """About so many items, in no particular order, and the cursor behind them, 0: there are no more. Begins with
        cursor 0. What is there all the while comes at least once."""
        async with self._turns.one():
            behind, values = await self._redis.hscan(self._keys.catalogue, cursor, count=count)
        return int(behind), [_item(name.decode(errors="replace"), value) for name, value in values.items()]

    async def write(self, log: str, changes: Sequence[ItemChange]) -> None:
        """Takes over changes that the log holds, and announces them. What a later record of the same log has written
        already stays, so that every order of calls ends in the same entries. log: the id of the catalogue's log."""
        arguments = [CHANGES_KEPT, log, *catalogue_writes.writes(changes)]
        async with self._turns.one():
            await self._write(self._keys.of_items, arguments)


def _item(name: str, value: bytes) -> Item | UnreadableItem:
    try:
        item = _item_decoder.decode(value)
    except UNREADABLE as error:
        return UnreadableItem(name, str(error))
    return item if item.id == name else UnreadableItem(name, f"it holds item {item.id!r}")


def _item_or_none(name: str, value: bytes | None) -> Item | UnreadableItem | None:
    return None if value is None else _item(name, value)
