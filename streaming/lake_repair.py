"""Is the lake whole, and what can be done where it is not?"""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.contracts.errors import InvalidInput, Unavailable
from feature_store.home import Home
from feature_store.lake_path import LakePath
from feature_store.rewriting import rewriting
from streaming.kafka import Log
from streaming.lake_files import HELD, fitted, is_torn, mark_lost, partition_folders, read, write
from streaming.lake_rows import CATALOGUE_TOPIC, EVENT_TOPIC, Topic

_POLL_MS = 200
_SILENT_POLLS = 50
_ROWS = 20_000


class Damage(NamedTuple):
    """A range of a partition that the lake does not hold once, readable."""

    topic: str
    log: str
    partition: int
    start: int
    end: int  # exclusive
    what: str  # missing, held twice, torn


class Repair(NamedTuple):
    """What became of a damage."""

    damage: Damage
    outcome: str  # read again, removed the second, marked as lost, not in Kafka


def check(lake: LakePath) -> list[Damage]:
    """All damage, by what the files are called and by their footers."""
    return [
        damage
        for topic in (EVENT_TOPIC, CATALOGUE_TOPIC)
        for log, partition, folder in partition_folders(lake, topic.source)
        for damage in _damages(topic, log, partition, folder)
    ]


def repair(home: Home, log: Log, topics: Sequence[str], declare_lost: bool) -> list[Repair]:
    """Reads missing and torn ranges again from Kafka while Kafka has them, and leaves out of overlapping files what
    another one holds. topics: of events and catalogue, in Kafka. declare_lost: mark what Kafka does not have either,
    so that readers pass over it. Raises Unavailable while something else rewrites the lake."""
    done = []
    with rewriting(home):
        for topic, name in zip((EVENT_TOPIC, CATALOGUE_TOPIC), topics, strict=True):
            present = log.log_id(name)
            for found, partition, folder in partition_folders(home.lake, topic.source):
                for damage in _damages(topic, found, partition, folder):
                    done.append(Repair(damage, _mend(damage, topic, folder, log, name, present, declare_lost)))
    return done


def _damages(topic: Topic, log: str, partition: int, folder: LakePath) -> list[Damage]:
    chain, flaws = fitted(folder)
    torn = [one for one in chain if one.held and is_torn(one.path)]
    return [
        *(Damage(topic.source, log, partition, *flaw) for flaw in flaws),
        *(Damage(topic.source, log, partition, one.start, one.end, "torn") for one in torn),
    ]


def _mend(damage: Damage, topic: Topic, folder: LakePath, log: Log, name: str, present: str, declare_lost: bool) -> str:
    if damage.what == "held twice":
        _separate(damage, topic, folder)
        return "removed the second"
    try:
        if damage.log != present:
            raise Unavailable(f"Log {damage.log} is not the one that Kafka has now, {present}.")
        rows = _again(damage, topic, log, name)
    except Unavailable:
        if not declare_lost:
            return "not in Kafka"
        mark_lost(folder, damage.start, damage.end)
        if damage.what == "torn":
            (folder / f"{damage.start}-{damage.end}{HELD}").unlink()
        return "marked as lost"
    if damage.what == "torn":
        (folder / f"{damage.start}-{damage.end}{HELD}").unlink()  # what an object store has already would stay
    write(folder, damage.start, damage.end, pa.Table.from_pylist(rows, topic.schema))
    return "read again"


def _again(damage: Damage, topic: Topic, log: Log, name: str) -> list[dict[str, object]]:
    """The rows of a range, from Kafka. Raises Unavailable if it does not hold all of it."""
    rows: list[dict[str, object]] = []
    with contextlib.closing(log.reader(name, {damage.partition: damage.start})) as reader:
        at, silent = damage.start, 0
        while at < damage.end:
            records = reader.poll(_POLL_MS)
            silent = 0 if records else silent + 1
            if silent > _SILENT_POLLS:
                raise Unavailable(f"Partition {damage.partition} of {name} ends before offset {damage.end}.")
            for record in records:
                at = record.offset + 1
                if record.offset < damage.end:
                    with contextlib.suppress(InvalidInput):  # a dead letter: it was one the first time
                        rows += topic.rows(record)
    return rows


def _separate(damage: Damage, topic: Topic, folder: LakePath) -> None:
    """Leaves out of the later of two files what the earlier holds."""
    later = next(one for one in fitted(folder)[0] if one.start == damage.start)
    rows = read(later.path, topic.schema)
    write(folder, damage.end, later.end, rows.filter(pc.field("offset") >= damage.end))
    later.path.unlink()
