"""The files of a release: what they are called, and how they are written and read.

    items.parquet     per item, in the order of all other files: id, vector, content tokens, item features
    index.faiss       inner-product index over the vectors
    centroids.npy     of the user clusters
    graph.parquet     which items may be explored in which cluster (feature_store/graph.py)
    user_tower.onnx, item_tower.onnx, ranker.onnx                   models (online_serving/towers.py)
    list_items.npy, list_scores.npy, scorer.onnx                    item lists, if there are any

The manifest names them with their hashes (feature_store/contracts/manifest.py).
"""

from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.arrays import Float32, Int64
from feature_store.contracts.errors import ReleaseRefused
from feature_store.contracts.manifest import Manifest
from feature_store.definitions import ITEM_FEATURES
from feature_store.graph import Graph
from feature_store.strings import to_strings

ITEMS = "items.parquet"
INDEX = "index.faiss"
CENTROIDS = "centroids.npy"
GRAPH = "graph.parquet"
USER_TOWER = "user_tower.onnx"
ITEM_TOWER = "item_tower.onnx"
RANKER = "ranker.onnx"
SCORER = "scorer.onnx"
LIST_ITEMS = "list_items.npy"
LIST_SCORES = "list_scores.npy"


class ItemTable(NamedTuple):
    """I items: ids, vectors (I, d), features (I, len(ITEM_FEATURES))."""

    ids: list[str]
    vectors: Float32
    features: Float32


class Contents(NamedTuple):
    """Everything in a release but its models and item lists. centroids (C, d); index: FAISS."""

    items: ItemTable
    centroids: Float32
    graph: Graph
    index: Any


def write_contents(directory: Path, contents: Contents, tokens: Int64) -> None:
    """Writes them into the directory. tokens (I, ITEM_TOKENS): of the items' content."""
    items = contents.items
    flat = pa.array(np.ascontiguousarray(items.vectors).ravel(), pa.float32())
    columns = {
        "item": pa.array(items.ids, pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(flat, items.vectors.shape[1]),
        "tokens": pa.array(tokens.tolist(), pa.list_(pa.int64())),
    }
    for place, feature in enumerate(ITEM_FEATURES):
        columns[feature.name] = pa.array(items.features[:, place], pa.float32())
    pq.write_table(pa.table(columns), directory / ITEMS)
    faiss.write_index(contents.index, str(directory / INDEX))
    np.save(directory / CENTROIDS, contents.centroids, allow_pickle=False)
    contents.graph.save(directory / GRAPH)


def read_contents(directory: Path, manifest: Manifest) -> Contents:
    """Reads what write_contents wrote. Raises ReleaseRefused if the files do not speak of the same items and
    clusters."""
    table = pq.read_table(directory / ITEMS)
    ids = to_strings(table.column("item"))
    vectors = table.column("vector").combine_chunks().flatten().to_numpy().astype(np.float32)
    columns = [table.column(feature.name).to_numpy().astype(np.float32) for feature in ITEM_FEATURES]
    items = ItemTable(
        ids=ids,
        vectors=vectors.reshape(-1, manifest.dimensions),
        features=np.column_stack(columns).reshape(len(ids), len(ITEM_FEATURES)),
    )
    centroids = np.load(directory / CENTROIDS, allow_pickle=False).astype(np.float32)
    contents = Contents(items, centroids, read_graph(directory), faiss.read_index(str(directory / INDEX)))
    _check(directory, manifest, contents)
    return contents


def read_graph(directory: Path) -> Graph:
    """Only the graph of a release."""
    return Graph.load(directory / GRAPH)


def _check(directory: Path, manifest: Manifest, contents: Contents) -> None:
    items, graph, indexed = contents.items.ids, contents.graph, contents.index.ntotal
    wanted = (manifest.clusters, manifest.dimensions)
    if contents.centroids.shape != wanted:
        raise ReleaseRefused(
            f"{directory} has centroids of shape {contents.centroids.shape}, its manifest says {wanted}."
        )
    if graph.items != items or indexed != len(items) or graph.clusters != manifest.clusters:
        raise ReleaseRefused(
            f"{directory} disagrees with itself: {len(items)} items in {ITEMS}, {graph.size} in the graph, "
            f"{indexed} in the index; {graph.clusters} clusters in the graph, {manifest.clusters} in the manifest. "
            "Train again."
        )
