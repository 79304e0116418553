"""Redis agrees with the catalogue's log in the end, also if whoever wrote to the log died before writing to Redis."""

import time

import redis

from feature_store.catalogue_writes import ItemChange
from feature_store.contracts.columns import CATALOGUE
from feature_store.contracts.errors import Unavailable
from feature_store.home import Home
from feature_store.online.store import OnlineStore
from feature_store.rewriting import reading
from streaming.health import Health, Part
from streaming.lake_files import files, partition_folder, read
from streaming.lake_rows import CATALOGUE_TOPIC, change_of

PART = Part("catalogue in Redis", 0)
_STEP_SECONDS = 1.0


class CatalogueReconciler:
    """Writes to Redis what the lake holds of the catalogue, from where Redis says that it was done last. Mostly Redis
    has it already, and nothing changes."""

    def __init__(self, home: Home, online: OnlineStore, health: Health) -> None:
        self._home = home
        self._online = online
        self._health = health

    def step(self, log_id: str, end: int) -> None:
        """Goes on towards the offset `end` of the log, which the lake has reached, for about a second. While that
        fails it is in quarantine, and the rest of the sink works."""
        if not self._health.may_work(PART):
            return
        try:
            self._reconcile(log_id, end)
        except (redis.RedisError, OSError) as error:
            self._health.failed(PART, Unavailable(f"Changes of the catalogue do not reach Redis: {error}."))
        except Exception as error:  # noqa: BLE001 - whatever it is, the lake is written
            self._health.failed(PART, error)
        else:
            self._health.worked(PART, progressed=True)

    def _reconcile(self, log_id: str, end: int) -> None:
        done = self._online.catalogue.reconciled(log_id)
        if done >= end:
            return
        deadline = time.monotonic() + _STEP_SECONDS
        with reading(self._home):
            for _, file_end, path in files(partition_folder(self._home.lake / CATALOGUE_TOPIC.source, log_id, 0), done):
                rows = read(path, CATALOGUE).to_pylist()
                changes = [ItemChange(row["offset"], *change_of(row)) for row in rows]
                self._online.catalogue.reconcile(log_id, changes, file_end)
                if time.monotonic() > deadline:
                    return
