"""Few large files in place of many small ones, the present format in place of an older one, and an end to what is too
old.

All of it is a rewriting of the home (feature_store/rewriting.py): who reads the lake goes on with the files that were
there, and whoever comes later sees the new ones.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store import lake_format
from feature_store.contracts.columns import EVENTS
from feature_store.contracts.errors import ReleaseRefused
from feature_store.definitions import DAY_MS
from feature_store.home import Home
from feature_store.lake_path import LakePath, size
from feature_store.namespace import Description
from feature_store.rewriting import Rewrite, rewriting
from streaming.lake_files import (
    EXPIRED,
    HELD,
    Stretch,
    all_stretches,
    is_old,
    partition_folders,
    read,
    stretches,
    tables,
)
from streaming.lake_rows import CATALOGUE_TOPIC, EVENT_TOPIC
from streaming.settings import LakeSettings

_FEWEST = 8  # files that are worth becoming one
_GROUP_ROWS = 50_000  # rows in memory, and in a row group


class Compacted(NamedTuple):
    """What was done."""

    merged: int  # files that became fewer
    into: int
    renewed: int  # files of an older format that were not among them
    expired: int  # files that went by their age


def compact(home: Home, settings: LakeSettings, now: int) -> Compacted:
    """Merges runs of small neighbours, and removes what is older than lake.keep_days and what no namespace begins
    before. now: ms since the epoch. Raises Unavailable while a training, a rollback or another rewriting is under way,
    LakeDamaged if the lake has a hole."""
    merged = into = renewed = expired = 0
    with rewriting(home) as rewrite:
        for topic in (EVENT_TOPIC, CATALOGUE_TOPIC):
            for log, partition, folder in partition_folders(home.lake, topic.source):
                left = stretches(folder)
                _remove_replaced(folder, left)
                if topic is EVENT_TOPIC and settings.keep_days is not None:
                    since = now - int(settings.keep_days * DAY_MS)
                    old = _expired(left, since, _needed_from(home, log, partition))
                    if old:
                        expired += sum(stretch.held for stretch in old)
                        rewrite.draft_of_many(
                            folder / f"0-{old[-1].end}{EXPIRED}", [stretch.path for stretch in old]
                        ).touch()
                        left = left[len(old) :]
                runs = list(_runs(left, settings.file_mb << 20))
                for run in runs:
                    _merge(run, topic.schema, rewrite)
                    merged, into = merged + len(run), into + 1
                taken = {one.path for run in runs for one in run}
                for one in left:
                    if one.held and one.path not in taken and is_old(one.path):
                        _merge([one], topic.schema, rewrite)
                        renewed += 1
        if len(rewrite):
            rewrite.publish()
    return Compacted(merged, into, renewed, expired)


def _runs(chain: Sequence[Stretch], most: int) -> Iterator[list[Stretch]]:
    """Neighbours that become one file of about the size (bytes) at most. What is half as large already is left."""
    run: list[Stretch] = []
    total = 0
    for stretch in chain:
        bytes_ = size(stretch.path)
        if not stretch.held or bytes_ > most // 2 or total + bytes_ > most:
            if len(run) >= _FEWEST:
                yield run
            run, total = [], 0
        if stretch.held and bytes_ <= most // 2:
            run, total = [*run, stretch], total + bytes_
    if len(run) >= _FEWEST:
        yield run


def _merge(run: Sequence[Stretch], schema: pa.Schema, rewrite: Rewrite) -> None:
    path = run[0].path.with_name(f"{run[0].start}-{run[-1].end}{HELD}")
    draft = rewrite.draft_of_many(path, [one.path for one in run if one.path != path])
    with pq.ParquetWriter(draft, lake_format.stored_schema(schema), compression="zstd") as writer:
        waiting: list[pa.Table] = []
        for rows in itertools.chain.from_iterable(tables(stretch.path, schema) for stretch in run):
            waiting.append(rows)
            if sum(map(len, waiting)) >= _GROUP_ROWS:
                writer.write_table(lake_format.stored(pa.concat_tables(waiting)))
                waiting = []
        if waiting:
            writer.write_table(lake_format.stored(pa.concat_tables(waiting)))


def _expired(chain: Sequence[Stretch], since: int, needed: int) -> list[Stretch]:
    """The beginning of a partition whose events are all from before then (ms), and that nobody needs."""
    old: list[Stretch] = []
    for stretch in chain:
        if stretch.end > needed or (stretch.held and _newest(stretch.path) >= since):
            break
        old.append(stretch)
    return old if any(stretch.held for stretch in old) else []


def _newest(path: LakePath) -> int:
    """Time (ms) of the newest event in a file."""
    return pc.max(read(path, EVENTS, ["time"])["time"]).as_py() or 0


def _needed_from(home: Home, log: str, partition: int) -> int:
    """The first offset from which a namespace that is still there may be folded anew."""
    offsets = []
    for folder in home.namespaces.glob("[!.]*"):
        try:
            made = Description.load(home.namespaces, folder.name)
        except (ReleaseRefused, msgspec.MsgspecError):
            return 0  # nobody knows what it needs
        if made.log == log and partition < len(made.offsets):
            offsets.append(made.offsets[partition])
    return min(offsets, default=1 << 62)


def _remove_replaced(folder: LakePath, chain: Sequence[Stretch]) -> None:
    """Removes what a wider file holds too, left by a process that was killed."""
    kept = {stretch.path for stretch in chain}
    for stretch in all_stretches(folder):
        if stretch.path not in kept:
            stretch.path.unlink(missing_ok=True)
