"""One partition's updater: dead letters come from the place that they name, and before the commit."""

from concurrent.futures import Future
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from feature_store.bandit_state import BanditStore, Commit, PartitionState, Position
from feature_store.contracts.columns import EVENTS
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.events import Event, encode
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.namespace import Namespace, Start
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from feature_store.sums import NO_ROWS
from streaming import partition
from streaming.dead_letter import Letter, Outbox
from streaming.kafka import Appended, Record, Writer
from streaming.lake_rows import event_rows
from streaming.partition import PartitionUpdater
from streaming.settings import RewardSettings
from tests.events import decision, feedback

NOW = 1_700_000_000_000
NAMESPACE = Namespace(
    id="r-1", release="r", log="old", offsets=[0], created=0, graph=Graph(4), base=NO_ROWS, starts=[Start()]
)
ORPHAN = feedback(decision("nobody", NOW, ["a"]), "a")


class Memory(BanditStore):
    """A store in memory, without its fence."""

    def __init__(self, position: Position | None) -> None:
        super().__init__(None, RedisSettings())
        self.position_, self.commits = position, 0

    def load(self, namespace: str, partition: int) -> PartitionState:
        return PartitionState(self.position_, [], NOW, True, NO_ROWS, {})

    def commit(self, namespace: str, partition: int, expected: Position | None, commit: Commit) -> None:
        self.position_, self.commits = commit.position, self.commits + 1


class Slow(Writer):
    """A log that acknowledges when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Future[Appended]] = []

    def send(self, topic: str, key: str | None, value: bytes, partition: int | None = None) -> Future[Appended]:
        self.sent.append(Future())
        return self.sent[-1]


def _updater(store: Memory, log: str, home: Path) -> PartitionUpdater:
    return PartitionUpdater(NAMESPACE, 0, log, store, RewardSettings(), Home(home))


def test_letters_of_a_log_that_is_gone_name_that_log_and_their_offset_in_it(tmp_path: Path) -> None:
    record = Record(0, 7, None, encode([ORPHAN]), NOW)
    folder = tmp_path / "lake" / "events" / "log=old" / "partition=0"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(event_rows(record), EVENTS), folder / "5-8.parquet")
    updater = _updater(Memory(Position("old", 5)), "new", tmp_path)
    letters = updater.fold([Record(0, 3, None, encode([ORPHAN]), NOW)])
    assert [(letter.log, letter.offset, letter.event) for letter in letters] == [("old", 7, ORPHAN), ("new", 3, ORPHAN)]
    assert updater.fold([]) == []


def test_nothing_is_committed_before_its_letters_have_arrived(tmp_path: Path) -> None:
    store, slow = Memory(None), Slow()
    online, outbox = OnlineStore(redis.Redis(), RedisSettings()), Outbox(slow, "dead")
    updater = _updater(store, "old", tmp_path)
    for offset in range(2):
        updater.post(updater.fold([Record(0, offset, None, b"junk", NOW)]), outbox)
        assert not updater.commit(online)
    slow.sent[1].set_result(Appended(0, 1))
    assert not updater.commit(online)
    slow.sent[0].set_result(Appended(0, 0))
    assert updater.commit(online)
    assert (store.commits, store.position_) == (1, Position("old", 2))


def test_a_letter_that_the_log_does_not_take_prevents_the_commit(tmp_path: Path) -> None:
    store, slow = Memory(None), Slow()
    updater = _updater(store, "old", tmp_path)
    updater.post(updater.fold([Record(0, 0, None, b"junk", NOW)]), Outbox(slow, "dead"))
    slow.sent[0].set_exception(Unavailable("It was not taken."))
    with pytest.raises(Unavailable):
        updater.commit(OnlineStore(redis.Redis(), RedisSettings()))
    assert store.commits == 0


def test_namespaces_that_fold_the_same_record_send_one_letter() -> None:
    slow = Slow()
    outbox = Outbox(slow, "dead")
    first, second = (
        Letter(log="l", partition=0, offset=3, namespace=name, reason="none", event=ORPHAN, record=None)
        for name in ("r-1", "r-2")
    )
    elsewhere = Letter(log="l", partition=0, offset=4, namespace="r-1", reason="none", event=ORPHAN, record=None)
    assert outbox.post(first) is outbox.post(second)
    assert outbox.post(elsewhere) is not outbox.post(first)
    assert len(slow.sent) == 2
    slow.sent[0].set_exception(Unavailable("It was not taken."))
    assert outbox.post(second) is slow.sent[2]


def _put(home: Path, start: int, *records: Record) -> None:
    folder = home / "lake" / "events" / "log=old" / "partition=0"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for record in records for row in event_rows(record)]
    pq.write_table(pa.Table.from_pylist(rows, EVENTS), folder / f"{start}-{start + len(records)}.parquet")


def test_where_the_log_begins_later_the_lake_is_folded_as_the_log_would_have_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log holds offsets from 8 on. The lake has 0 to 5, and 6 and 7 are lost."""
    monkeypatch.setattr(partition, "_LAKE_EVENTS", 3)
    made = [decision(f"user {n}", NOW + n, ["a", "b"]) for n in range(3)]
    events: list[list[Event]] = [
        [made[0], made[1]],
        [feedback(made[0], "a")],
        [made[2], feedback(made[1], "b")],
        [ORPHAN],
        [made[0]],
        [],
    ]
    records = [Record(0, offset, None, encode(found), NOW) for offset, found in enumerate(events) if found]
    _put(tmp_path, 0, *records[:3])
    _put(tmp_path, 3, *records[3:])
    (tmp_path / "lake" / "events" / "log=old" / "partition=0" / "5-8.lost").touch()
    lake, log = (_updater(Memory(None), "old", tmp_path) for _ in range(2))

    offsets, letters = [], []
    while lake.fold_lake():
        offsets.append(lake.offset)
        letters += lake.fold([])
    assert offsets == [2, 4, 8]  # whole records, of three events at least
    assert [(letter.offset, letter.event) for letter in letters] == [(3, ORPHAN)]
    assert letters == log.fold(records)
    assert lake._fold.outcomes == log._fold.outcomes
    ours, theirs = lake._fold.sums.rows(), log._fold.sums.rows()
    assert ours.items == theirs.items
    assert (ours.values == theirs.values).all()
    assert lake._fold.start() == log._fold.start()


def test_where_neither_lake_nor_log_goes_on_nothing_is_folded(tmp_path: Path) -> None:
    updater = _updater(Memory(Position("old", 5)), "old", tmp_path)
    assert not updater.fold_lake()
    assert updater.offset == 5
