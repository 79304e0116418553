"""What an answer says about its items beside their ids, as the catalogue has it at that moment."""

import logging
from collections.abc import Collection, Sequence
from typing import Any

import redis

from feature_store.contracts.catalogue import Item
from feature_store.online.catalogue import AsyncOnlineCatalogue

_log = logging.getLogger(__name__)

TITLE, CATEGORIES = "title", "categories"  # all other names are attributes


class Descriptions:
    """Adds them to answers, in one round trip for a slate."""

    def __init__(self, catalogue: AsyncOnlineCatalogue) -> None:
        self._catalogue = catalogue

    async def add(self, items: Sequence[dict[str, Any]], wanted: Collection[str]) -> bool:
        """Adds what is wanted of the items by their ids; False if the catalogue does not answer. An item that it has
        not, or an attribute that an item has not, is passed over."""
        if not (wanted and items):
            return True
        try:
            found = await self._catalogue.get([item["id"] for item in items])
        except (redis.RedisError, OSError) as error:
            _log.warning("answering without descriptions: %r", error)
            return False
        for item, known in zip(items, found, strict=True):
            if isinstance(known, Item):
                item.update(_described(known, wanted))
        return True


def _described(item: Item, wanted: Collection[str]) -> dict[str, Any]:
    described: dict[str, Any] = {}
    if TITLE in wanted:
        described[TITLE] = item.title
    if CATEGORIES in wanted:
        described[CATEGORIES] = item.categories
    if chosen := {name: value for name, value in item.attributes.items() if name in wanted}:
        described["attributes"] = chosen
    return described
