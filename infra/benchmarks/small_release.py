"""Small genuine releases for tests: real ONNX models with simple arithmetic, so that answers can be worked out by hand.

user tower   the sum of the history vectors plus a token embedding, L2-normalised
item tower   the mean of token embeddings, L2-normalised
ranker       sigmoid(2 * affinity + 0.2 * popularity - 2)
item lists   of item n the items n + 1, n + 2, ...; none if list_length is 0; the scorer goes by the lists' order
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from feature_store.arrays import Float32, Int64
from feature_store.contracts.catalogue import Item
from feature_store.contracts.manifest import Manifest, seal
from feature_store.definitions import (
    ITEM_FEATURES,
    ITEM_TOKENS,
    RANKER_FEATURES,
    TOKEN_BUCKETS,
    USER_TOKENS,
    features_hash,
    token_ids,
)
from feature_store.graph import Graph
from feature_store.item_ids import ItemIds
from feature_store.namespace import Namespace, Start, namespace_id
from feature_store.sums import NO_ROWS
from online_serving.item_lists import CROSS, TRIGGERS, ItemLists
from online_serving.release_files import (
    ITEM_TOWER,
    RANKER,
    SCORER,
    USER_TOWER,
    Contents,
    ItemTable,
    read_graph,
    write_contents,
)

_FLOAT, _INT = TensorProto.FLOAT, TensorProto.INT64


def items(count: int) -> list[Item]:
    """A catalogue of items i0, i1, ... in three categories."""
    return [
        Item(id=f"i{n}", title=f"Title {n}", categories=[("drama", "comedy", "space")[n % 3]]) for n in range(count)
    ]


def build_release(
    releases: Path,
    *,
    catalogue: Sequence[Item],
    dimensions: int = 8,
    clusters: int = 4,
    edges_per_cluster: int = 10,
    active_clusters: int = 3,
    history_length: int = 5,
    list_length: int = 0,
    seed: int = 0,
) -> str:
    """Writes a sealed release of the catalogue and returns its id. Earlier items are more popular."""
    rng = np.random.default_rng(seed)
    vectors = _unit(rng.standard_normal((len(catalogue), dimensions)))
    centroids = _unit(rng.standard_normal((clusters, dimensions)))
    names = [item.id for item in catalogue]
    index = faiss.IndexFlatIP(dimensions)
    index.add(vectors)
    nearest = np.argsort(-(centroids @ vectors.T), axis=1)[:, :edges_per_cluster]
    cluster = np.repeat(np.arange(clusters), nearest.shape[1])
    graph = Graph.build(names, nearest.ravel().astype(np.int64), cluster, clusters)
    tokens = np.array([token_ids(item.tokens(), ITEM_TOKENS) for item in catalogue])
    contents = Contents(ItemTable(ItemIds.of(names), vectors, item_features(len(names))), centroids, graph, index)
    embedding = token_embedding(dimensions, rng)
    return write_release(releases, contents, tokens, embedding, active_clusters, history_length, list_length)


def token_embedding(dimensions: int, rng: np.random.Generator) -> Float32:
    """(TOKEN_BUCKETS + 1, dimensions) what the towers of a release embed tokens as: anything."""
    embedding = rng.standard_normal((TOKEN_BUCKETS + 1, dimensions)).astype(np.float32)
    embedding[0] = 0
    return embedding


def item_features(count: int) -> Float32:
    """(count, len(ITEM_FEATURES)) of items that training knew, earlier ones more popular."""
    features = np.zeros((count, len(ITEM_FEATURES)), dtype=np.float32)
    features[:, 0] = np.log1p(np.arange(count, 0, -1))
    features[:, 2], features[:, 3] = 0.5, 1.0
    return features


def write_release(
    releases: Path,
    contents: Contents,
    tokens: Int64,
    embedding: Float32,
    active_clusters: int = 3,
    history_length: int = 5,
    list_length: int = 0,
    models: Callable[[Path], None] | None = None,
    ranker: tuple[float, float, float] = (2.0, 0.2, -2.0),
) -> str:
    """Writes a sealed release and returns its id. tokens (I, ITEM_TOKENS): of the items' content; embedding: from
    token_embedding. models: writes models and item lists into a directory, instead of those above. ranker: what it
    multiplies affinity and popularity with, and adds."""
    (count, dimensions), clusters = contents.items.vectors.shape, len(contents.centroids)
    draft = releases / ".draft"
    draft.mkdir(parents=True)
    write_contents(draft, contents, tokens)
    if models is None:
        _write_models(draft, count, embedding, history_length, list_length, ranker)
    else:
        models(draft)
    manifest = Manifest(
        created=0,
        features=features_hash(),
        dimensions=dimensions,
        clusters=clusters,
        history_length=history_length,
        active_clusters=active_clusters,
        context_temperature=0.5,
        items=count,
        parent=None,
        files={},
    )
    release = seal(draft, manifest)
    draft.rename(releases / release)
    return release


def _write_models(
    draft: Path,
    count: int,
    embedding: Float32,
    history_length: int,
    list_length: int,
    ranker: tuple[float, float, float],
) -> None:
    dimensions = embedding.shape[1]
    onnx.save(_user_tower(embedding, history_length), draft / USER_TOWER)
    onnx.save(_item_tower(embedding), draft / ITEM_TOWER)
    onnx.save(_ranker(dimensions, *ranker), draft / RANKER)
    if list_length:
        following = np.arange(count)[:, None] + np.arange(1, list_length + 1)
        following[following >= count] = -1
        scores = np.tile(np.linspace(0.9, 0.3, list_length, dtype=np.float32), (count, 1))
        ItemLists(following.astype(np.int32), scores).save(draft)
        onnx.save(_scorer(dimensions), draft / SCORER)


def build_namespace(namespaces: Path, releases: Path, release: str, log: str, partitions: int, number: int = 0) -> str:
    """Writes a namespace of the release that begins with nothing at the log's beginning, and returns its id."""
    namespace = Namespace(
        id=namespace_id(release, number),
        release=release,
        log=log,
        offsets=[0] * partitions,
        created=0,
        graph=read_graph(releases / release),
        base=NO_ROWS,
        starts=[Start()] * partitions,
    )
    namespace.save(namespaces)
    return namespace.id


def _unit(vectors: NDArray[np.float64]) -> Float32:
    unit: Float32 = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _user_tower(embedding: Float32, history_length: int) -> onnx.ModelProto:
    dimensions = embedding.shape[1]
    nodes = [
        helper.make_node("ReduceSum", ["history", "axis1"], ["summed"], keepdims=0),
        helper.make_node("Gather", ["embedding", "tokens"], ["embedded"]),
        helper.make_node("ReduceSum", ["embedded", "axis1"], ["profile"], keepdims=0),
        helper.make_node("Add", ["summed", "profile"], ["both"]),
        helper.make_node("Add", ["both", "bias"], ["biased"]),
        helper.make_node("LpNormalization", ["biased"], ["vector"], axis=-1, p=2),
    ]
    bias = np.full(dimensions, 0.01, dtype=np.float32)
    inputs = [
        helper.make_tensor_value_info("history", _FLOAT, ["batch", history_length, dimensions]),
        helper.make_tensor_value_info("kinds", _INT, ["batch", history_length]),
        helper.make_tensor_value_info("gaps", _INT, ["batch", history_length]),
        helper.make_tensor_value_info("length", _INT, ["batch"]),
        helper.make_tensor_value_info("tokens", _INT, ["batch", USER_TOKENS]),
    ]
    constants = {"embedding": embedding, "bias": bias, "axis1": np.array([1]), "last": np.array([-1])}
    return _model(nodes, inputs, helper.make_tensor_value_info("vector", _FLOAT, ["batch", dimensions]), constants)


def _item_tower(embedding: Float32) -> onnx.ModelProto:
    dimensions = embedding.shape[1]
    nodes = [
        helper.make_node("Gather", ["embedding", "tokens"], ["embedded"]),
        helper.make_node("ReduceSum", ["embedded", "axis1"], ["content"], keepdims=0),
        helper.make_node("Cast", ["id"], ["number"], to=_FLOAT),
        helper.make_node("Mul", ["number", "zero"], ["nothing"]),
        helper.make_node("Unsqueeze", ["nothing", "axis1"], ["column"]),
        helper.make_node("Add", ["content", "column"], ["both"]),
        helper.make_node("LpNormalization", ["both"], ["vector"], axis=-1, p=2),
    ]
    inputs = [
        helper.make_tensor_value_info("id", _INT, ["batch"]),
        helper.make_tensor_value_info("tokens", _INT, ["batch", ITEM_TOKENS]),
    ]
    constants = {"embedding": embedding, "axis1": np.array([1]), "zero": np.zeros(1, dtype=np.float32)}
    return _model(nodes, inputs, helper.make_tensor_value_info("vector", _FLOAT, ["batch", dimensions]), constants)


def _ranker(dimensions: int, affinity: float, popularity: float, added: float) -> onnx.ModelProto:
    names = [feature.name for feature in RANKER_FEATURES]
    weights = np.zeros((len(names) + dimensions, 1), dtype=np.float32)
    weights[names.index("affinity")], weights[names.index("popularity")] = affinity, popularity
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["weighed"]),
        helper.make_node("Add", ["weighed", "bias"], ["biased"]),
        helper.make_node("Sigmoid", ["biased"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis1"], ["probability"]),
    ]
    inputs = [helper.make_tensor_value_info("features", _FLOAT, ["n", len(names) + dimensions])]
    constants = {"weights": weights, "bias": np.array([added], dtype=np.float32), "axis1": np.array([1])}
    return _model(nodes, inputs, helper.make_tensor_value_info("probability", _FLOAT, ["n"]), constants)


def _scorer(dimensions: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Gather", ["cross", "first"], ["logit"], axis=2)]
    inputs = [
        helper.make_tensor_value_info("triggers", _FLOAT, ["batch", TRIGGERS, dimensions]),
        helper.make_tensor_value_info("length", _INT, ["batch"]),
        helper.make_tensor_value_info("user", _FLOAT, ["batch", dimensions]),
        helper.make_tensor_value_info("trigger", _INT, ["batch", "pairs"]),
        helper.make_tensor_value_info("target", _FLOAT, ["batch", "pairs", dimensions]),
        helper.make_tensor_value_info("cross", _FLOAT, ["batch", "pairs", CROSS]),
    ]
    output = helper.make_tensor_value_info("logit", _FLOAT, ["batch", "pairs"])
    return _model(nodes, inputs, output, {"first": np.array(0)})


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
    constants: dict[str, NDArray[np.float32] | NDArray[np.int64]],
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "model", inputs, [output], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
