"""The item index: exact search for small catalogues, an inverted file for large ones, measured against exact search."""

import logging
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from feature_store.arrays import Float32
from offline_training.fitting import THREADS

EXACT_UP_TO = 50_000  # items: below, exact search takes a few tenths of a millisecond
RECALL_SIZE, RECALL_QUERIES = 100, 200
RECALL_FLOOR = 0.95
_POINTS_PER_LIST = 40  # that k-means looks at; with 256, 1M items take minutes, and no fewer lists are searched
_FIRST_PROBES = 8
_WORTH_IT = 8  # an inverted file that searches more than one list in so many is not much faster than exact search

logger = logging.getLogger(__name__)


class Index(NamedTuple):
    """A FAISS inner-product index; `probes` is the number of lists that it searches, 0: all items, exactly. recall:
    share of the exact RECALL_SIZE nearest items of users that it finds."""

    index: Any
    probes: int
    recall: float


def build_index(vectors: Float32, users: Float32) -> Index:
    """Index over item vectors (I, d) for user vectors (n, d), of which RECALL_QUERIES are asked.

    Exact up to EXACT_UP_TO items; then an inverted file of about 4 sqrt(I) lists, of which twice as many are searched
    until recall@RECALL_SIZE reaches RECALL_FLOOR. Exact again if that takes more than one list in _WORTH_IT, which the
    log says. Measured in infra/decisions/index.md.
    """
    points = np.ascontiguousarray(vectors, dtype=np.float32)
    exact = faiss.IndexFlatIP(points.shape[1])
    exact.add(points)
    if len(points) <= EXACT_UP_TO:
        return Index(exact, 0, 1.0)
    queries = np.ascontiguousarray(users[:: max(1, len(users) // RECALL_QUERIES)], dtype=np.float32)
    faiss.omp_set_num_threads(THREADS)
    lists = int(4 * np.sqrt(len(points)))
    inverted: Any = faiss.index_factory(points.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    inverted.cp.min_points_per_centroid, inverted.cp.max_points_per_centroid = 1, _POINTS_PER_LIST
    inverted.train(points)
    inverted.add(points)
    wanted = exact.search(queries, RECALL_SIZE)[1]
    inverted.nprobe, recall = _FIRST_PROBES, 0.0
    while inverted.nprobe <= lists // _WORTH_IT:
        recall = _overlap(wanted, inverted.search(queries, RECALL_SIZE)[1])
        if recall >= RECALL_FLOOR:
            return Index(inverted, inverted.nprobe, recall)
        inverted.nprobe *= 2
    logger.warning(
        "the index searches all %d items of the catalogue: an inverted file finds %.3f of users' %d nearest in one "
        "list of %d, at least %.2f are wanted",
        len(points),
        recall,
        RECALL_SIZE,
        _WORTH_IT,
        RECALL_FLOOR,
    )
    return Index(exact, 0, 1.0)


def _overlap(wanted: NDArray[np.int64], found: NDArray[np.int64]) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(wanted, found, strict=True)]))
