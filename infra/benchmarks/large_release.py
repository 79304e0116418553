"""An installation with a large generated release: 64 dimensions, three edges for each item."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from feature_store.arrays import Float32
from feature_store.contracts.catalogue import Item
from feature_store.definitions import ITEM_TOKENS, token_ids
from feature_store.graph import Graph
from feature_store.item_ids import ItemIds
from feature_store.namespace import Namespace, Start, namespace_id
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from infra.benchmarks.large_graph import EDGES_PER_CLUSTER, Size, all_rows, build_graph
from infra.benchmarks.small_release import item_features, token_embedding, write_release
from infra.connections import event_log, redis_client
from infra.settings import Settings
from offline_training.release.index import EXACT_UP_TO
from online_serving.release_files import Contents, ItemTable

DIMENSIONS = 64
EDGES_PER_ITEM = 3
_PROBES = 16  # about what build_index finds enough, of four times as many lists
_SPREAD = 0.1  # of items around the middle of their list
_CATEGORIES = ("drama", "comedy", "space")
_ROWS_AT_ONCE = 100_000


class Installation(NamedTuple):
    """What was published."""

    graph: Graph
    log: str  # id
    namespaces: list[Active]  # of the one release; the first is active


class Kind(NamedTuple):
    """What a release is like beside its size. models: writes its models and item lists, as write_release has it."""

    active_clusters: int = 10
    history_length: int = 20
    models: Callable[[Path], None] | None = None


def publish(settings: Settings, items: int, seed: int, kind: Kind = Kind()) -> Installation:  # noqa: B008 - immutable
    """Makes a release of so many items with two namespaces that have learnt of all of it, and the catalogue, and
    activates the first namespace in the servers of the settings."""
    rng = np.random.default_rng(seed)
    size = Size(EDGES_PER_ITEM * items // EDGES_PER_CLUSTER, items)
    graph = build_graph(size, rng)
    log = event_log(settings)
    log.create_topics()
    vectors, index = _indexed(items, rng)
    tokens = np.tile(token_ids([], ITEM_TOKENS), (items, 1))  # serving embeds live items only
    table = ItemTable(ItemIds.of(graph.items), vectors, item_features(items))
    contents = Contents(table, _unit(rng.standard_normal((size.clusters, DIMENSIONS), np.float32)), graph, index)
    embedding = token_embedding(DIMENSIONS, rng)
    release = write_release(settings.home / "releases", contents, tokens, embedding, *kind[:2], models=kind.models)
    base, found = all_rows(graph, rng), []
    for number in range(2):
        namespace = Namespace(
            id=namespace_id(release, number),
            release=release,
            log=log.log_id(),
            offsets=[0] * settings.kafka.partitions,
            created=0,
            graph=graph,
            base=base,
            starts=[Start()] * settings.kafka.partitions,
        )
        namespace.save(settings.home / "namespaces")
        found.append(Active(release, namespace.id))
    with redis_client(settings) as client:
        online = OnlineStore(client, settings.redis)
        online.catalogue.add(item(name, number) for number, name in enumerate(graph.items))
        online.deployment.activate(found[0])
    return Installation(graph, log.log_id(), found)


def item(name: str, number: int) -> Item:
    """An entry of the catalogue."""
    return Item(id=name, title=f"Title {number}", categories=[_CATEGORIES[number % len(_CATEGORIES)]])


def _indexed(items: int, rng: np.random.Generator) -> tuple[Float32, faiss.Index]:
    """Vectors, and an index of the kind that training would have made. They lie around the middles of its lists, so
    that these need no k-means."""
    middles = _unit(rng.standard_normal((max(1, int(np.sqrt(items))), DIMENSIONS), np.float32))
    vectors = np.empty((items, DIMENSIONS), np.float32)
    for first in range(0, items, _ROWS_AT_ONCE):
        part = vectors[first : first + _ROWS_AT_ONCE]
        part[:] = middles[rng.integers(len(middles), size=len(part))]
        part += _SPREAD * rng.standard_normal(part.shape, np.float32)
        part[:] = _unit(part)
    index: Any = faiss.IndexFlatIP(DIMENSIONS)
    if items > EXACT_UP_TO:
        index.add(middles)
        index = faiss.IndexIVFFlat(index, DIMENSIONS, len(middles), faiss.METRIC_INNER_PRODUCT)
        index.train(middles)  # which finds the lists there
        index.nprobe = _PROBES
    index.add(vectors)
    return vectors, index


def _unit(vectors: Float32) -> Float32:
    unit: Float32 = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
