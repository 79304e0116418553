"""What an installation keeps in Redis, with one of everything, as commands that put it there again.

`python -m tests.golden_redis REDIS_URL tests/golden/redis/N.msgpack` writes it as today's code does, into an empty
database: tests/golden keeps what each format wrote.
"""

import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import redis

from feature_store.bandit_state import BanditStore
from feature_store.catalogue_writes import ItemChange
from feature_store.contracts.events import Event, encode
from feature_store.contracts.experiments import Experiment, Ramp, Status, Variant
from feature_store.definitions import HistoryEvent
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.namespace import Namespace, Start
from feature_store.online.deployment import Active, Shadowing
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from feature_store.sums import NO_ROWS
from feature_store.user_features import UserRecord
from streaming.kafka import Record
from streaming.partition import PartitionUpdater
from streaming.settings import RewardSettings
from tests import golden_lake
from tests.events import KEYRING

SETTINGS = RedisSettings(
    prefix="golden", deltas_kept=10
)  # as few as may be: some commits lie in the snapshot, the last one behind it
NAMESPACE = Namespace(
    id="r-1",
    release="r",
    log=golden_lake.LOG,
    offsets=[0],
    created=golden_lake.NOON,
    graph=Graph(4),
    base=NO_ROWS,
    starts=[Start()],
)
BOB = UserRecord(
    KEYRING.user_key("bob"),
    ["age=41"],
    golden_lake.NOON - 1_000,
    [HistoryEvent("a", "rating+", golden_lake.NOON - 2_000), HistoryEvent("ü", "click+", golden_lake.NOON - 3_000)],
    [("b", golden_lake.NOON - 86_400_000)],
)
EXPERIMENT = Experiment(
    name="more",
    variants=(Variant(name="control"), Variant(name="more", bandit={"alpha": 2.0})),
    testers={KEYRING.user_key("eve"): "more"},
    status=Status.RUNNING,
    created=golden_lake.NOON,
    ramps=(Ramp(time=golden_lake.NOON, share=0.002, buckets=frozenset({3, 5})),),
    buckets=frozenset({3, 5}),
)

Command = list[bytes]


def write(client: redis.Redis, home: Path) -> None:
    """Writes it into an empty database. home: an empty folder."""
    online = OnlineStore(client, SETTINGS)
    online.deployment.check_secret(KEYRING)
    online.catalogue.add(golden_lake.IMPORTED_ITEMS)
    changes = [ItemChange(offset, *change) for offset, change in enumerate(golden_lake.CHANGES)]
    online.catalogue.reconcile(golden_lake.LOG, changes, len(changes))
    online.users.put([BOB])
    online.users.note_published("r")
    online.deployment.activate(Active("q", "q-1"))
    online.deployment.activate(Active("r", "r-1"))
    online.deployment.shadow(Shadowing("s", "s-1", 0.25))
    online.deployment.add_namespace("p-1")
    online.deployment.retire("p-1")
    online.experiments.change(EXPERIMENT.name, lambda _: EXPERIMENT)
    fold(client, home, 0, golden_lake.EVENTS)


def fold(client: redis.Redis, home: Path, first: int, events: Sequence[Event]) -> None:
    """Has an updater fold events at offsets from the first on, with a commit for each."""
    updater = PartitionUpdater(
        NAMESPACE, 0, golden_lake.LOG, BanditStore(client, SETTINGS), RewardSettings(), Home(home)
    )
    for offset, event in enumerate(events, first):
        updater.fold([Record(0, offset, None, encode([event]), golden_lake.NOON)])
        updater.commit(OnlineStore(client, SETTINGS))


def commands(client: redis.Redis) -> list[Command]:
    """What makes another database of this one, in the order of the keys; nothing expires there."""
    found: list[Command] = []
    for key in sorted(client.scan_iter()):
        match client.type(key):
            case b"string":
                found.append([b"SET", key, client.get(key)])
            case b"hash":
                found.append([b"HSET", key, *_flat(sorted(client.hgetall(key).items()))])
            case b"set":
                found.append([b"SADD", key, *sorted(client.smembers(key))])
            case b"zset":
                scored = client.zrange(key, 0, -1, withscores=True)
                found.append([b"ZADD", key, *_flat((repr(score).encode(), member) for member, score in scored)])
            case b"list":
                found.append([b"RPUSH", key, *client.lrange(key, 0, -1)])
            case b"stream":
                entries = client.xrange(key)
                found += [[b"XADD", key, name, *_flat(sorted(fields.items()))] for name, fields in entries]
    return found


def _flat(pairs: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    return [part for pair in pairs for part in pair]


if __name__ == "__main__":
    with redis.Redis.from_url(sys.argv[1]) as server, tempfile.TemporaryDirectory() as empty:
        write(server, Path(empty))
        Path(sys.argv[2]).write_bytes(msgspec.msgpack.encode(commands(server)))
