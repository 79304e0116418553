"""What the next namespace begins with, from a lake with real decisions in it."""

import dataclasses
import math
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from feature_store.arrays import Float64
from feature_store.bandit_state import BanditStore, Position
from feature_store.contracts.clock import ManualClock
from feature_store.contracts.columns import EVENTS
from feature_store.contracts.events import Event, Switch, encode
from feature_store.decay import Decay
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.namespace import Namespace, Start, namespace_id
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from feature_store.sums import EXPECTED, ITEM, NO_ROWS, REWARD, SERVED, N, Sums
from feature_store.translation import Translation
from offline_training.jobs.job import TrainJob
from offline_training.jobs.retrain import next_namespace
from offline_training.jobs.train import starts
from offline_training.promotion.registry import Registry
from offline_training.release.write import write_release
from offline_training.retrieval.dataset import Impressions
from offline_training.settings import MlflowSettings, SparkSettings, TrainingSettings
from offline_training.train_models import Trained
from streaming.kafka import Record, partition_of
from streaming.lake_rows import event_rows
from streaming.log_reader import LogReader
from streaming.open_decisions import repartitioned
from streaming.replay import replay
from streaming.settings import RewardSettings
from tests.events import KEYRING, decision, feedback
from tests.rows import by_name

LOG = "the-log"
NOTHING = Impressions.none()


def fill_lake(lake: Path, graph: Graph, release: str, log: str = LOG, nonce: bytes = b"1234567") -> list[int]:
    """Three decisions, one edge each; the first is clicked. Returns the offsets after them, of two partitions."""
    item = graph.items[graph.items_of(0)[0]]
    shown = [decision("u", time, [item], release=release, nonce=nonce[:7] + bytes([time])) for time in (1, 2, 3)]
    events: list[Event] = [*shown, *(feedback(of, item, "click" if of is shown[0] else "view") for of in shown)]
    records = [Record(0, offset, b"", encode([event]), 0) for offset, event in enumerate(events)]
    rows = [row for record in records for row in event_rows(record)]
    folder = lake / "events" / f"log={log}" / "partition=0"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=EVENTS), folder / f"0-{len(events)}.parquet")
    return [len(events), 0]


@pytest.fixture
def job(tmp_path: Path, settings: TrainingSettings) -> TrainJob:
    client = redis.Redis()  # connects when it is asked something, which no test does
    online, state = OnlineStore(client, RedisSettings()), BanditStore(client, RedisSettings())
    registry = Registry(MlflowSettings(), "http://127.0.0.1:9")
    return TrainJob(
        Home(tmp_path),
        settings,
        SparkSettings(),
        RewardSettings(),
        registry,
        online,
        state,
        ManualClock(9),
        LOG,
        2,
    )


def dense(translation: Translation) -> Float64:
    return translation.rows(range(translation.clusters))


def parent_of(job: TrainJob, trained: Trained) -> Namespace:
    job.home.releases.mkdir()
    release = write_release(job.home.releases, trained, job.training, None, 1)
    graph = Graph.load(job.home.releases / release / "graph.parquet")
    return Namespace(
        id=namespace_id(release, 1),
        release=release,
        log=LOG,
        offsets=[0, 0],
        created=1,
        graph=graph,
        base=NO_ROWS,
        starts=[Start(), Start()],
    )


def test_what_was_learnt_is_carried_over_and_mixed(job: TrainJob, trained: Trained) -> None:
    parent = parent_of(job, trained)
    end = fill_lake(job.home.aside, parent.graph, parent.release)
    ends = [[Position(LOG, offset)] for offset in end]
    before, starts = replay(parent, LogReader(job.home.aside), job.rewards, ends)
    release = write_release(job.home.releases, trained, job.training, parent.release, 2)
    after = next_namespace(job, parent, ends, trained, NOTHING, release, 9)

    assert (after.release, after.log, after.offsets, after.created) == (release, LOG, end, 9)
    # The same towers: everybody stays in their cluster, so the edges are those of before.
    assert after.starts == starts
    assert dense(after.translations[parent.release]) == pytest.approx(np.eye(parent.graph.clusters))
    learnt = Sums.of(after.base)
    assert sorted(by_name(after.base)) == sorted(by_name(before))
    keep, omega = job.training.ensemble_keep, job.training.ensemble_omega
    (edge,) = np.flatnonzero(before.cluster != ITEM)
    name = before.items[before.item[edge]]
    served, d, s, b, f = learnt.get(name, int(before.cluster[edge]))
    assert [served, d, s] == pytest.approx([3 * keep, 3 * keep, 3 * keep])
    assert b - f == pytest.approx(omega * (1 / 3 - f / s) * s)
    item = learnt.get(name)
    assert item[N] == pytest.approx(3 * keep)
    assert item[REWARD] == pytest.approx(b, rel=1e-9), "the item has this one edge, so its value is the edge's"


def test_what_was_learnt_counts_for_as_much_as_a_moment_before(job: TrainJob, trained: Trained) -> None:
    """The parent's trials of 1, 2 and 3 ms have faded until 9 ms, the job's time, and fade on by the job's memory."""
    memory = 8 / 86_400_000  # 8 ms
    parent = msgspec.structs.replace(parent_of(job, trained), memory_days=memory)
    ends = [[Position(LOG, offset)] for offset in fill_lake(job.home.aside, parent.graph, parent.release)]
    release = write_release(job.home.releases, trained, job.training, parent.release, 2)
    after = next_namespace(TrainJob(**{**vars(job), "memory_days": 30.0}), parent, ends, trained, NOTHING, release, 9)
    assert after.decay == Decay(30.0, 9)
    learnt = Sums.of(after.base).get(after.base.items[0])
    counts = [math.exp(-(9 - time) / 8) for time in (1, 2, 3)]
    assert learnt[[SERVED, N]] == pytest.approx([job.training.ensemble_keep * sum(counts)] * 2)
    residual = job.training.ensemble_omega * (counts[0] / sum(counts) - learnt[EXPECTED] / learnt[N])
    assert learnt[REWARD] - learnt[EXPECTED] == pytest.approx(residual * learnt[N])


def test_translations_are_composed(job: TrainJob, trained: Trained) -> None:
    parent = parent_of(job, trained)
    clusters = parent.graph.clusters
    oldest = np.full((2, clusters), 1 / clusters)
    parent = Namespace(
        id=parent.id,
        release=parent.release,
        log=LOG,
        offsets=[7, 0],
        created=1,
        graph=parent.graph,
        base=NO_ROWS,
        starts=[Start(), Start()],
        translations={"oldest": Translation.of(oldest)},
    )
    release = write_release(job.home.releases, trained, job.training, parent.release, 2)
    after = next_namespace(job, parent, [[Position(LOG, 7)], [Position(LOG, 0)]], trained, NOTHING, release, 9)
    assert dense(after.translations["oldest"]) == pytest.approx(oldest @ dense(after.translations[parent.release]))
    assert after.offsets == [7, 0], "a lake that is behind the base adds nothing"
    assert after.base.items == []


def test_translations_end_with_the_windows_of_the_decisions_that_need_them(job: TrainJob, trained: Trained) -> None:
    """A retrain every ten hours: the release before the last one served until ten hours ago, and the one before it
    until twenty, so far as is known; a day and the window after that nothing comes of it any more."""
    parent = parent_of(job, trained)
    ends, releases, kept = [[Position(LOG, 0)], [Position(LOG, 0)]], [parent.release], []
    for n in range(1, 5):
        releases.append(write_release(job.home.releases, trained, job.training, parent.release, n + 1))
        parent = next_namespace(job, parent, ends, trained, NOTHING, releases[-1], n * 10 * 3_600_000)
        kept.append([releases.index(release) for release in parent.translations])
    assert list(map(sorted, kept)) == [[0], [0, 1], [0, 1, 2], [1, 2, 3]]


def test_all_logs_of_a_log_that_began_anew_twice_go_into_the_base(job: TrainJob, trained: Trained) -> None:
    parent = parent_of(job, trained)
    first = fill_lake(job.home.aside, parent.graph, parent.release)
    second = fill_lake(job.home.aside, parent.graph, parent.release, "second", b"another")
    anew = TrainJob(**{**vars(job), "log": "third"})
    ends = [
        [Position(LOG, first[partition]), Position("second", second[partition]), Position("third", 0)]
        for partition in range(2)
    ]
    release = write_release(job.home.releases, trained, job.training, parent.release, 2)
    after = next_namespace(anew, parent, ends, trained, NOTHING, release, 9)
    assert (after.log, after.offsets) == ("third", [0, 0])
    (item,) = np.flatnonzero(after.base.cluster == ITEM)
    assert after.base.values[item, N] == pytest.approx(6 * job.training.ensemble_keep)


def test_a_first_namespace_does_not_learn_while_learning_is_switched_off(job: TrainJob) -> None:
    rows = event_rows(Record(1, 4, b"", encode([Switch(learning=False, time=1)]), 0))
    folder = job.home.aside / "events" / f"log={LOG}" / "partition=1"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=EVENTS), folder / "0-5.parquet")
    assert [start.learning for start in starts(job, [0, 0])] == [True, True]
    assert [start.learning for start in starts(job, [5, 5])] == [True, False]


@pytest.mark.parametrize("partitions", [1, 2, 5])
def test_the_log_may_have_another_number_of_partitions(partitions: int, job: TrainJob, trained: Trained) -> None:
    """What was learnt stays, and what is open goes where the user's events go now."""
    parent = parent_of(job, trained)
    end = fill_lake(job.home.aside, parent.graph, parent.release)
    ends = [[Position(LOG, offset)] for offset in end]
    release = write_release(job.home.releases, trained, job.training, parent.release, 2)
    same = next_namespace(job, parent, ends, trained, NOTHING, release, 9)
    after = next_namespace(dataclasses.replace(job, partitions=partitions), parent, ends, trained, NOTHING, release, 9)
    assert by_name(after.base) == by_name(same.base)
    assert after.offsets == [*end, 0, 0, 0][:partitions]
    home = partition_of(KEYRING.user_key("u"), partitions) if partitions != 2 else 0
    assert [len(start.opened) for start in after.starts] == [3 * (n == home) for n in range(partitions)]
    assert {name for start in after.starts for name in start.opened} == set(same.starts[0].opened)
    assert after.starts[0].stream_time == same.starts[0].stream_time


def test_a_new_partition_does_not_learn_while_learning_is_switched_off() -> None:
    on, off = Start(stream_time=7), Start(stream_time=8, learning=False)
    assert repartitioned([on, on], 3) == [on, on, Start()]
    assert repartitioned([on, off], 3) == [on, off, Start(learning=False)]
