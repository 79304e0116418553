"""The files of a release: what they are called, and how they are written and read.

    items.parquet     per item, in the order of all other files: id, its digest (feature_store/shown.py), content
                      tokens, item features
    vectors.npy       of the items
    index.faiss       inner-product index over the vectors
    centroids.npy     of the user clusters
    graph.parquet     which items may be explored in which cluster (feature_store/graph.py)
    user_tower.onnx, item_tower.onnx, ranker.onnx                   models (online_serving/towers.py)
    list_items.npy, list_scores.npy, scorer.onnx                    item lists, if there are any

The manifest names them with their hashes (feature_store/contracts/manifest.py). Releases from before there were
vectors.npy and digests have the vectors in items.parquet.
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
from feature_store.item_ids import ItemIds
from feature_store.shown import Digests, digests
from feature_store.strings import to_strings

ITEMS = "items.parquet"
VECTORS = "vectors.npy"
INDEX = "index.faiss"
CENTROIDS = "centroids.npy"
GRAPH = "graph.parquet"
USER_TOWER = "user_tower.onnx"
ITEM_TOWER = "item_tower.onnx"
RANKER = "ranker.onnx"
SCORER = "scorer.onnx"
LIST_ITEMS = "list_items.npy"
LIST_SCORES = "list_scores.npy"

_faiss: Any = faiss  # its type information does not know of lists on disk
_DIGEST, _VECTOR = "digest", "vector"


class ItemTable(NamedTuple):
    """I items: ids, vectors (I, d), features (I, len(ITEM_FEATURES))."""

    ids: ItemIds
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
    ids = items.ids.strings(len(items.ids))
    columns = {
        "item": pa.array(ids, pa.string()),
        _DIGEST: pa.array(digests(ids)),
        "tokens": pa.array(tokens.tolist(), pa.list_(pa.int64())),
    }
    for place, feature in enumerate(ITEM_FEATURES):
        columns[feature.name] = pa.array(items.features[:, place], pa.float32())
    pq.write_table(pa.table(columns), directory / ITEMS)
    np.save(directory / VECTORS, items.vectors, allow_pickle=False)
    faiss.write_index(contents.index, str(directory / INDEX))
    np.save(directory / CENTROIDS, contents.centroids, allow_pickle=False)
    contents.graph.save(directory / GRAPH)


def read_contents(directory: Path, manifest: Manifest) -> Contents:
    """Reads what write_contents wrote. Raises ReleaseRefused if the files do not speak of the same items and
    clusters."""
    names, graph = [feature.name for feature in ITEM_FEATURES], read_graph(directory)
    table = _columns(directory, ["item", *names])
    features = np.column_stack([table.column(name).to_numpy().astype(np.float32) for name in names])
    vectors = _vectors(directory).reshape(-1, manifest.dimensions)
    items = ItemTable(graph.item_ids, vectors, features.reshape(len(table), len(names)))
    centroids = np.load(directory / CENTROIDS, allow_pickle=False).astype(np.float32)
    contents = Contents(items, centroids, graph, _index(directory))
    _check(directory, manifest, contents, table.column("item"))
    return contents


def read_digests(directory: Path) -> Digests:
    """(I,) of the items of a release."""
    if _DIGEST in pq.read_schema(directory / ITEMS).names:
        found: Digests = _columns(directory, [_DIGEST]).column(_DIGEST).to_numpy()
        return found
    return digests(to_strings(_columns(directory, ["item"]).column("item")))


def read_graph(directory: Path) -> Graph:
    """Only the graph of a release."""
    return Graph.load(directory / GRAPH)


def mapped(file: Path) -> Any:
    """An array that lies in the file, and in memory as far as it is read, once for all processes."""
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))


def _index(directory: Path) -> Any:
    """The lists of an inverted file stay in the file, mapped; a flat index is read."""
    index = _faiss.read_index(str(directory / INDEX), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    if isinstance(index, faiss.IndexIVF):
        # It would start threads for each search that read ahead, which costs four times as much as the search.
        _faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
    return index


def _vectors(directory: Path) -> Float32:
    if (directory / VECTORS).is_file():
        vectors: Float32 = mapped(directory / VECTORS)
        return vectors
    column = _columns(directory, [_VECTOR]).column(_VECTOR).combine_chunks()
    flat: Float32 = column.flatten().to_numpy().astype(np.float32)
    return flat


def _columns(directory: Path, names: list[str]) -> pa.Table:
    return pq.read_table(directory / ITEMS, columns=names, use_threads=False)  # each of Arrow's keeps memory to itself


def _check(directory: Path, manifest: Manifest, contents: Contents, names: pa.ChunkedArray) -> None:
    items, graph, indexed = contents.items, contents.graph, contents.index.ntotal
    wanted = (manifest.clusters, manifest.dimensions)
    if contents.centroids.shape != wanted:
        raise ReleaseRefused(
            f"{directory} has centroids of shape {contents.centroids.shape}, its manifest says {wanted}."
        )
    same = names.cast(pa.large_string()).equals(items.ids.column(graph.size))
    if not same or {len(items.vectors), indexed} != {graph.size} or graph.clusters != manifest.clusters:
        raise ReleaseRefused(
            f"{directory} disagrees with itself: {len(names)} items in {ITEMS}, {len(items.vectors)} vectors, "
            f"{graph.size} in the graph, {indexed} in the index; {graph.clusters} clusters in the graph, "
            f"{manifest.clusters} in the manifest. Train again."
        )
