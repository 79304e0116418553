"""What 3M edges take in a serving process: memory, and time until they can be scored. Run as a process of its own."""

import resource
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import redis

from benchmarks.bandit.world import choices
from feature_store.bandit_state import BanditStore, Commit, Position, RowsSnapshot
from feature_store.graph import Graph
from feature_store.namespace import Description, Namespace, Start
from feature_store.settings import RedisSettings
from feature_store.sums import Rows
from infra.benchmarks.large_graph import Size, all_rows, build_graph
from online_serving.state import load_parameters
from streaming.bandit.diag_linucb import score
from streaming.settings import BanditSettings

PARTITIONS = 2
_PREFIX = "bench-loading"
_MB = 1e6


class Loaded(msgspec.Struct, frozen=True):
    """What loading took."""

    edges: int
    rows_in_redis: int
    seconds: float
    cpu_seconds: float
    megabytes: float  # that the process holds more than before
    megabytes_at_most: float  # while it loaded


def prepare(home: Path, client: redis.Redis, size: Size, share: float, seed: int) -> str:
    """A namespace with a base row for every edge and item on disk, and in Redis rows for a share of the items: those
    that learnt since the base was made. Returns its id."""
    rng = np.random.default_rng(seed)
    graph = build_graph(size, rng)
    rows = all_rows(graph, rng)
    name = f"{size.clusters}-0"
    Namespace(
        id=name, release=str(size.clusters), log="log", offsets=[0] * PARTITIONS, created=0, graph=graph, base=rows,
        starts=[Start()] * PARTITIONS,
    ).save(home / "namespaces")  # fmt: skip
    store = BanditStore(client, RedisSettings(prefix=_PREFIX))
    learnt = int(share * size.items)
    part = slice(np.searchsorted(rows.item, learnt))
    stored = Rows(graph.items[:learnt], rows.item[part], rows.cluster[part], rows.values[part])
    for partition in range(PARTITIONS):
        commit = Commit(Position("log", 1), [], 0, True, stored, {}, [], RowsSnapshot(stored, 1))
        store.commit(name, partition, None, commit)
    return name


def measure(home: Path, redis_url: str, *namespaces: str) -> Loaded:
    """Loads in a fresh process what prepare() left. The first namespaces only warm it up."""
    command = [sys.executable, "-m", __name__, str(home), redis_url, *namespaces]
    done = subprocess.run(command, check=True, capture_output=True)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Loaded)


def _load(home: Path, store: BanditStore, name: str) -> Loaded:
    process = psutil.Process()
    before, started, cpu = process.memory_info().rss, time.perf_counter(), time.process_time()
    namespace = Description.load(home / "namespaces", name)
    graph = Graph.load(home / "namespaces" / name / "graph.parquet")
    parameters, _ = load_parameters(home / "namespaces", namespace, graph, store, np.arange(0))
    parameters.refit(0)
    choice = choices(graph, 1, np.random.default_rng(0))[0]
    assert score(BanditSettings(), *choice, parameters.table(0)).edges.all()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    after, peak = process.memory_info().rss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Loaded(
        edges=graph.n_edges,
        rows_in_redis=sum(len(store.load_rows(name, partition)[1].item) for partition in range(PARTITIONS)),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        megabytes=(after - before) / _MB,
        megabytes_at_most=(peak - before) / _MB,
    )


def _main(home: Path, redis_url: str, *namespaces: str) -> None:
    store = BanditStore(redis.Redis.from_url(redis_url), RedisSettings(prefix=_PREFIX))
    for name in namespaces:
        sys.stdout.buffer.write(msgspec.json.encode(_load(home, store, name)) + b"\n")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *sys.argv[2:])
