"""From the log to the state, on real servers: exactly once, whoever dies, and equal to a replay."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import redis

from feature_store.bandit_state import BanditStore, Commit, DeltaGap, Position, RowsSnapshot, Tail
from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import Fenced, LogMismatch, Unavailable
from feature_store.contracts.events import Event, Tick, encode
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.membership import Membership
from feature_store.namespace import Namespace, Start
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from feature_store.sums import NO_ROWS, Sums
from streaming import dead_letter, lake_events, sink
from streaming.kafka import Log, Reader, Record, Writer
from streaming.log_reader import LogReader
from streaming.partition import PartitionUpdater
from streaming.replay import compare
from streaming.settings import KafkaSettings, LakeSettings, RewardSettings
from tests.events import KEYRING, decision, feedback
from tests.rows import by_name, rows_of
from tests.updaters import start_updater

KAFKA = KafkaSettings(partitions=2)
REWARDS = RewardSettings()
Wait = Callable[[Callable[[], bool]], None]


@pytest.fixture
def wait() -> Wait:
    pause = threading.Event()

    def until(condition: Callable[[], bool]) -> None:
        for _ in range(6000):
            if condition():
                return
            pause.wait(0.02)
        raise AssertionError("the condition did not come true in 120 s")

    return until


class Installation:
    """A log, a state and a lake, and one namespace that starts at the log's present end."""

    def __init__(self, broker: str, redis_url: str, home: Path, name: str, starts: list[int]) -> None:
        self.broker, self.redis_url, self.home = broker, redis_url, home
        self.client = redis.Redis.from_url(redis_url)
        self.settings = settings = RedisSettings(prefix=name)
        self.store, self.online = BanditStore(self.client, settings), OnlineStore(self.client, settings)
        self.namespace = Namespace(
            id=f"{name}-1", release="r", log=Log(KAFKA, broker).log_id(), offsets=starts, created=0,
            graph=Graph(4), base=NO_ROWS, starts=[Start(), Start()],
        )  # fmt: skip
        self.namespace.save(home / "namespaces")
        self.online.deployment.add_namespace(self.namespace.id)
        self.writer = Writer(broker)

    def append(self, *events: Event) -> list[int]:
        """Appends each event as a record of its own and returns the next offset of each partition."""
        places = [self.writer.send("events", getattr(e, "user", "x"), encode([e])).result() for e in events]
        return [max((p.offset + 1 for p in places if p.partition == n), default=0) for n in range(2)]

    def reader(self, lake: Path | None = None) -> LogReader:
        return LogReader(lake or self.home / "lake", Log(KAFKA, self.broker))

    def folded(self) -> list[int]:
        states = [self.store.load(self.namespace.id, n).position for n in range(2)]
        return [p.offset if p else 0 for p in states]

    def updater(self, stop: threading.Event, group: str | None = None) -> threading.Thread:
        return start_updater(KAFKA, self.broker, self.client, self.settings, self.home, stop, group)

    def sink(self, stop: threading.Event) -> threading.Thread:
        settings = LakeSettings(flush_seconds=0.05)
        arguments = (KAFKA, self.broker, Home(self.home), self.online, settings, SystemClock(), stop)
        thread = threading.Thread(target=sink.run, args=arguments)
        thread.start()
        return thread


@pytest.fixture
def installation(broker: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Installation]:
    Log(KAFKA, broker).create_topics()
    probe = Writer(broker)
    starts = [probe.send("events", None, encode([Tick(time=0)]), n).result().offset + 1 for n in range(2)]
    probe.close()
    made = Installation(broker, redis_url, tmp_path, request.node.name.replace("_", "-")[:38], starts)
    yield made
    made.writer.close()


def _visits(count: int, salt: str) -> list[Event]:
    events: list[Event] = []
    for i in range(count):
        d = decision(f"{salt} {i}", 1000 + i, ["a", "b", "ü:\n"], clusters=[0, 3], weights=[0.25, 0.75])
        events += [d, feedback(d, "ü:\n"), feedback(d, "a", "view", event="v")]
    return events


def test_state_equals_replay_also_after_crashes(installation: Installation, wait: Wait) -> None:
    """Updaters are abandoned mid-way, two work at once, and the sink stops early: the law holds on lake and tail."""
    stop_sink, first, second = threading.Event(), threading.Event(), threading.Event()
    sinking = installation.sink(stop_sink)
    running = [
        installation.updater(first, group) for group in ("one", "two")
    ]  # both believe to be alone: each fences the other
    installation.append(*_visits(30, "one"))
    wait(lambda: any(installation.folded()))
    first.set()
    for thread in running:
        thread.join()
    lake, log = installation.home / "lake", installation.namespace.log
    end = installation.append(*_visits(20, "two"))
    wait(lambda: all(lake_events.coverage(lake, log, n) >= end[n] for n in range(2)))
    stop_sink.set()
    sinking.join()
    running = [installation.updater(second)]
    end = [max(pair) for pair in zip(end, installation.append(*_visits(10, "three")), strict=True)]
    wait(lambda: all(f >= e for f, e in zip(installation.folded(), end, strict=True)))
    second.set()
    running[0].join()

    comparisons = compare(installation.namespace, installation.store, installation.reader(lake), REWARDS)
    assert [c.equal for c in comparisons] == [True, True]
    assert max(c.largest_difference for c in comparisons) < 1e-15
    states = [installation.store.load(installation.namespace.id, n) for n in range(2)]
    found = np.sum([Sums.of(s.rows).get("ü:\n") for s in states], axis=0)
    # One of three equals was wanted: 1.1 / (3 + .1 / .5) was to be expected of each.
    assert found == pytest.approx([60, 60, 60, 60, 60 * 11 / 32])
    assert np.sum([Sums.of(s.rows).get("a", 3) for s in states], axis=0) == pytest.approx(
        [33.75, 33.75, 45, 0, 45 * 11 / 32]
    )
    visitor = KEYRING.user_key("two 7")
    history = installation.client.zrange(f"{installation.settings.prefix}:user:{{{visitor}}}:history", 0, -1)
    assert history == ["ü:\n\0click+\x002007".encode()]


def test_a_tampered_state_is_noticed(installation: Installation, wait: Wait) -> None:
    stop = threading.Event()
    running = installation.updater(stop)
    end = installation.append(*_visits(5, "x"))
    wait(lambda: all(f >= e for f, e in zip(installation.folded(), end, strict=True)))
    stop.set()
    running.join()
    for n in range(2):
        state = installation.store.load(installation.namespace.id, n)
        if state.position and "a" in state.rows.items:
            rows = rows_of({":a": [1e-6, 0, 0, 0, 0]})
            installation.store.commit(
                installation.namespace.id, n, state.position,
                Commit(state.position, [], 0, True, rows, {}, []),
            )  # fmt: skip
    results = compare(installation.namespace, installation.store, installation.reader(), REWARDS)
    assert {key for result in results for key in result.differing} == {"a"}


def test_unprocessable_records_become_dead_letters(installation: Installation, wait: Wait) -> None:
    stop = threading.Event()
    running = installation.updater(stop)
    orphan = feedback(decision("nobody", 1000, ["a"]), "a")
    junk = [b"junk", b"", b"\xff" * (10 << 20)]
    places = [installation.writer.send("events", "k", value).result() for value in junk]
    end = installation.append(orphan)
    end = [max([end[n], *(p.offset + 1 for p in places if p.partition == n)]) for n in range(2)]
    wait(lambda: all(f >= e for f, e in zip(installation.folded(), end, strict=True)))
    stop.set()
    running.join()
    reader = Reader(installation.broker, "deadletter", {0: 0})
    letters: list[dead_letter.Letter] = []

    def both_came() -> bool:
        letters.extend(dead_letter.decode(r.value) for r in reader.poll(100))
        return len([letter for letter in letters if letter.namespace == installation.namespace.id]) >= 4

    wait(both_came)
    reader.close()
    mine = {letter.reason: letter for letter in letters if letter.namespace == installation.namespace.id}
    assert mine["its decision is not in the log before it"].event == orphan
    assert [letter.record for reason, letter in mine.items() if "bytes is not an event record" in reason] == [
        b"junk", b"", b"\xff" * dead_letter.MAX_BYTES,
    ]  # fmt: skip


def test_a_record_from_the_future_is_kept_and_closes_nobody_s_window(installation: Installation, wait: Wait) -> None:
    """Nothing is lost when a broker's clock is behind: state, lake and replay hold the same."""
    stop_updater, stop_sink = threading.Event(), threading.Event()
    running, sinking = installation.updater(stop_updater), installation.sink(stop_sink)
    now = SystemClock().now_ms()
    honest = decision("ada", now, ["a", "b"])
    ahead = decision("ada", now + 86_400_000, ["c"])
    end = installation.append(honest, ahead, feedback(ahead, "c"), feedback(honest, "a"))
    wait(lambda: all(f >= e for f, e in zip(installation.folded(), end, strict=True)))
    lake, log = installation.home / "lake", installation.namespace.log
    wait(lambda: all(lake_events.coverage(lake, log, n) >= end[n] for n in range(2)))
    for stop, thread in ((stop_updater, running), (stop_sink, sinking)):
        stop.set()
        thread.join()
    states = [installation.store.load(installation.namespace.id, n) for n in range(2)]
    rows = [Sums.of(state.rows) for state in states]
    assert [sum(found.get(item)[1] for found in rows) for item in "abc"] == [1, 0, 1]  # b waits for its window
    assert max(state.stream_time for state in states) < now + 600_000
    partition = max(range(2), key=lambda n: end[n])
    stored = [
        event for _, event in lake_events.read_events(lake, log, partition, installation.namespace.offsets[partition])
    ]
    assert [getattr(event, "id", None) for event in stored] == [honest.id, ahead.id, "e", "e"]
    (lake / "unused").mkdir()
    for source in (lake, lake / "unused"):  # from the lake, and from the broker
        found = compare(installation.namespace, installation.store, installation.reader(source), REWARDS)
        assert [comparison.equal for comparison in found] == [True] * len(found)


def test_a_stale_writer_is_fenced_and_nothing_of_it_is_written(installation: Installation) -> None:
    store, name = installation.store, installation.namespace.id

    def commit(expected: Position | None, offset: int, value: float) -> None:
        rows = rows_of({":k": [value] * 5})
        store.commit(name, 0, expected, Commit(Position("log", offset), [], 0, True, rows, {"d": b"x"}, []))

    commit(None, 5, 1.0)
    commit(Position("log", 5), 9, 2.0)
    for stale in (None, Position("log", 5), Position("other", 9)):
        with pytest.raises(Fenced, match="stands at log@9"):
            commit(stale, 12, 3.0)
    state = store.load(name, 0)
    assert state.position == Position("log", 9)
    assert by_name(Sums.of(state.rows).rows()) == {":k": [3.0] * 5}


def test_readers_follow_deltas_and_notice_gaps(installation: Installation) -> None:
    store, name = installation.store, installation.namespace.id

    def commit(expected: Position | None, offset: int) -> Position:
        position = Position("log", offset)
        changes = rows_of({":k": [float(offset)] * 5})
        store.commit(name, 0, expected, Commit(position, [], 0, True, changes, {}, []))
        return position

    position, rows, stream = store.load_rows(name, 0)
    assert (position, len(rows.item), stream) == (None, 0, "0-0")
    first = commit(None, 3)
    second = commit(first, 4)
    deltas = store.follow(name, 0, stream, position, 10)
    assert [d.position.offset for _, d in deltas] == [3, 4]
    assert by_name(deltas[-1][1].changes) == {":k": [4.0] * 5}
    stream = deltas[-1][0]
    assert store.follow(name, 0, stream, second, 10) == []
    with pytest.raises(DeltaGap):  # a reader that missed the first
        store.follow(name, 0, deltas[0][0], None, 10)
    position, rows, stream = store.load_rows(name, 0)
    assert (position, Sums.of(rows).get("k").tolist()) == (second, [7.0] * 5)


def test_snapshots_change_nothing_for_readers(installation: Installation) -> None:
    """Commits with and without snapshots: what is loaded is always the sum, and what the snapshot before made
    superfluous is gone from the stream, not what a follower may still need."""
    store, name = installation.store, installation.namespace.id
    key, stream = f"{store._settings.prefix}:{{0}}:{name}:deltas", "0-0"
    at, standing, total, deltas = None, None, Sums(), 0
    for offset in range(1, 12):
        changes = rows_of({":k": [1.0] * 5, f"{offset}:item {offset}": [0.5] * 5})
        total.merge(changes)
        deltas += 1
        snapshot = RowsSnapshot(total.rows(), deltas) if offset in (3, 4, 9) else None
        position = Position("log", offset)
        store.commit(name, 0, at, Commit(position, [], 0, True, changes, {}, [], snapshot))
        at, deltas = position, 0 if snapshot else deltas
        for found, rows in (store.load_rows(name, 0)[:2], (store.load(name, 0).position, store.load(name, 0).rows)):
            assert found == position
            assert by_name(Sums.of(rows).rows()) == by_name(total.rows())
        assert store.load(name, 0).tail == Tail(deltas, 2 * deltas)
        for entry, delta in store.follow(name, 0, stream, standing, 10):
            stream, standing = entry, delta.position
        assert standing == position
    assert installation.client.xlen(key) == 7  # 5 to 9, which led to the last snapshot, and 10 and 11
    with pytest.raises(DeltaGap):
        store.follow(name, 0, "0-0", None, 10)
    installation.client.xtrim(key, maxlen=1, approximate=False)
    with pytest.raises(Unavailable, match=r"has a gap in Redis: its changes lead to log@9, it was at log@11"):
        store.load_rows(name, 0)


def test_the_updater_writes_snapshots(installation: Installation, wait: Wait) -> None:
    store = BanditStore(installation.client, RedisSettings(prefix=installation.store._settings.prefix, deltas_kept=10))
    online, name = installation.online, installation.namespace.id
    partition = PartitionUpdater(
        installation.namespace, 0, installation.namespace.log, store, REWARDS, Home(installation.home)
    )
    for offset, event in enumerate(_visits(8, "s"), installation.namespace.offsets[0]):
        assert partition.fold([Record(0, offset, None, encode([event]), 2000)]) == []
        partition.commit(online)
    assert store.load(name, 0).tail.deltas == 24 - 20
    again = PartitionUpdater(
        installation.namespace, 0, installation.namespace.log, store, REWARDS, Home(installation.home)
    )
    assert again._tail == partition._tail
    assert by_name(again._fold.sums.rows()) == by_name(partition._fold.sums.rows())
    assert store.wants_snapshot(Tail(1, 70_000), 69_999)
    assert not store.wants_snapshot(Tail(1, 70_000), 70_000)


def test_a_log_that_begins_anew_is_noticed(installation: Installation, wait: Wait) -> None:
    """The stored position belongs to a log that is gone: state is kept, folding goes on from the new log's start."""
    old = Position("11111111-0000-0000-0000-000000000000", 7)
    for n in range(2):
        rows = rows_of({":kept": [2.0] * 5})
        commit = Commit(old, [], 0, True, rows, {}, [])
        installation.store.commit(installation.namespace.id, n, None, commit)
    stop = threading.Event()
    running = installation.updater(stop)
    end = installation.append(*_visits(3, "anew"))
    wait(lambda: all(f >= e for f, e in zip(installation.folded(), end, strict=True)))
    stop.set()
    running.join()
    states = [installation.store.load(installation.namespace.id, n) for n in range(2)]
    assert {s.position.log for s in states if s.position} == {installation.namespace.log}
    assert [s.logs for s in states] == [[str(old)]] * 2
    assert [Sums.of(s.rows).get("kept").tolist() for s in states] == [[2.0] * 5] * 2


def test_another_number_of_partitions_is_refused(broker: str, installation: Installation) -> None:
    with pytest.raises(LogMismatch, match=r"has 2 partitions, kafka.partitions says 3"):
        Log(KafkaSettings(partitions=3), broker).create_topics()


def test_updaters_share_the_partitions_and_take_over_from_one_that_leaves(
    installation: Installation, wait: Wait
) -> None:
    def shares() -> list[list[int]]:
        return sorted(member.partitions(2) for member in members)

    members = [Membership(installation.client, installation.settings, session_seconds=0.5) for _ in range(3)]
    with members[0]:
        assert members[0].partitions(2) == [0, 1]
        with members[1], members[2]:
            wait(lambda: shares() == [[], [0], [1]])
            # A member that a busy machine kept waiting is taken for gone until it is heard of again.
            wait(lambda: sorted(p for member in members for p in member.partitions(7)) == list(range(7)))
        wait(lambda: members[0].partitions(2) == [0, 1])


@pytest.fixture
def processes(installation: Installation) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Two updater processes that share the partitions; a silent one is taken over from after a second."""
    environment = {
        "MATCHLOOP_HOME": str(installation.home),
        "MATCHLOOP_KAFKA_BOOTSTRAP": installation.broker,
        "MATCHLOOP_REDIS_URL": installation.redis_url,
        "MATCHLOOP_REDIS_PREFIX": installation.settings.prefix,
        "MATCHLOOP_UPDATER_SESSION_SECONDS": "1",
    }
    running = []
    try:
        for number in range(2):
            with (installation.home / f"updater-{number}.log").open("wb") as log:
                running.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "infra.cli", "update", "--metrics-port", "0"],
                        env={**os.environ, **environment},
                        stderr=log,
                    )
                )
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def _members(installation: Installation) -> int:
    return int(installation.client.zcard(f"{installation.settings.prefix}:updaters"))


def _all_folded(installation: Installation, ends: Sequence[int]) -> Callable[[], bool]:
    return lambda: all(f >= e for f, e in zip(installation.folded(), ends, strict=True))


def _equal(installation: Installation) -> list[bool]:
    found = compare(installation.namespace, installation.store, installation.reader(), REWARDS)
    return [comparison.equal for comparison in found]


def test_a_killed_updater_is_taken_over_from(
    installation: Installation, processes: list["subprocess.Popen[bytes]"], wait: Wait
) -> None:
    wait(lambda: _members(installation) == 2)
    end = installation.append(*_visits(20, "both"))
    processes[0].kill()
    end = [max(pair) for pair in zip(end, installation.append(*_visits(20, "one")), strict=True)]
    wait(_all_folded(installation, end))
    assert _equal(installation) == [True, True]


def _has_folded_more(installation: Installation, than: int) -> bool:
    return sum(installation.folded()) > than


def test_a_paused_updater_is_taken_over_from_and_refused_when_it_resumes(
    installation: Installation, processes: list["subprocess.Popen[bytes]"], wait: Wait
) -> None:
    wait(lambda: _members(installation) == 2)
    wait(_all_folded(installation, installation.append(*_visits(20, "both"))))
    log = installation.home / "updater-0.log"
    started = log.stat().st_size
    for attempt in range(50):  # until it was paused with records in hand
        begun, visits = sum(installation.folded()), _visits(600, f"many {attempt}")
        sent = [installation.writer.send("events", e.user, encode([e])) for e in visits if hasattr(e, "user")]
        wait(partial(_has_folded_more, installation, begun))
        processes[0].send_signal(signal.SIGSTOP)
        places = [place.result() for place in sent]
        wait(_all_folded(installation, [max(p.offset + 1 for p in places if p.partition == n) for n in range(2)]))
        processes[0].send_signal(signal.SIGCONT)
        wait(lambda: _members(installation) == 2)
        if "this writer expected" in log.read_text()[started:]:
            break
    assert "this writer expected" in log.read_text()[started:]
    wait(_all_folded(installation, installation.append(*_visits(20, "resumed"))))
    assert _equal(installation) == [True, True]
    assert all(process.poll() is None for process in processes)
