"""Entries of the catalogue that cannot be served: they are left out, told about, and hold nothing else up."""

import logging
from collections.abc import Iterable

from feature_store.contracts.catalogue import Item
from feature_store.online.catalogue import UnreadableItem
from online_serving import metrics
from online_serving.snapshot import CatalogueChange, Snapshot

_log = logging.getLogger(__name__)

_AT_ONCE = 20_000  # changes; each step costs a copy of a byte per item

Entry = tuple[str, Item | UnreadableItem | None]  # item id; None: deleted


class Quarantine:
    """The items that are left out. One leaves when its entry is good, or gone."""

    def __init__(self) -> None:
        self.items: set[str] = set()

    def changed(self, snapshot: Snapshot, entries: Iterable[Entry]) -> Snapshot:
        """The snapshot after changes of the catalogue. An item that cannot be read, or that cannot be embedded, is
        masked."""
        batch: list[CatalogueChange] = []
        for name, entry in entries:
            batch.append((name, self._readable(name, entry)))
            if len(batch) == _AT_ONCE:
                snapshot, batch = self._with_items(snapshot, batch), []
        snapshot = self._with_items(snapshot, batch)
        metrics.UNREADABLE_ITEMS.set(len(self.items))
        return snapshot

    def _readable(self, name: str, entry: Item | UnreadableItem | None) -> Item | None:
        if isinstance(entry, UnreadableItem):
            self._add(name, str(entry))
            return None
        self.items.discard(name)
        return entry

    def _with_items(self, snapshot: Snapshot, changes: list[CatalogueChange]) -> Snapshot:
        try:
            return snapshot.with_items(changes)
        except Exception as error:
            if all(item is None for _, item in changes):
                raise
            if len(changes) == 1:
                ((name, _),) = changes
                self._add(name, f"Item {name!r} cannot be served: {error!r}. Put it again with other content.")
                return snapshot.with_items([(name, None)])
            middle = len(changes) // 2
            return self._with_items(self._with_items(snapshot, changes[:middle]), changes[middle:])

    def _add(self, name: str, problem: str) -> None:
        if name not in self.items:
            self.items.add(name)
            _log.error("%s", problem)
