"""What a graph keeps, by hand and by laws."""

import numpy as np
import pytest

from offline_training.clusters import unit
from offline_training.evaluation.graph_quality import Asked, GraphQuality, graph_grid


def test_by_hand() -> None:
    # Two groups of ten users, along the axes; the last coordinate is popularity, which is no matter of taste. Clusters
    # are near items 0, 1 and 2, 3; there is room for three in each, and 4, which is a little nearer to item 2, joins.
    users = np.repeat(np.array([[1, 0, 1], [0, 1, 1]], dtype=np.float32), 10, axis=0)
    items = np.array([[1, 0.1, 0], [1, 0.2, 0], [0.1, 1, 0], [0.2, 1, 0], [0.8, 0.9, 0]], dtype=np.float32)
    seen, positives = np.zeros((2, 5), np.bool_), np.zeros((2, 5), np.bool_)
    seen[0, 0] = positives[0, 1] = positives[0, 4] = True  # half of what they like is connected
    positives[1, 0] = positives[1, 2] = True  # half: item 0 belongs to the others' cluster
    asked = Asked(np.eye(3, dtype=np.float32)[:2], seen, positives)
    one, both = graph_grid(items, users, asked, [2], [2], [1, 2], seed=0)
    expected = {"clusters": 2, "nearest_items": 2, "coverage": 1.0, "edges_per_item": 1.0}
    for quality in (one, both):
        assert {name: getattr(quality, name) for name in expected} == pytest.approx(expected)
    assert (one.active_clusters, one.read, one.offered) == pytest.approx((1, 2.5, 2.0))
    assert (one.reached, one.lift, one.recall, one.kept) == pytest.approx((0.5, 0.5 / (5 / 10), 0.5, 0.5))
    assert (both.active_clusters, both.read, both.offered) == pytest.approx((2, 5.0, 4.5))
    assert (both.reached, both.lift, both.recall, both.kept) == pytest.approx((1.0, 1 / (1 - 0.5**2), 1.0, 1.0))


@pytest.fixture(scope="module")
def grid() -> list[GraphQuality]:
    rng = np.random.default_rng(0)
    items, users, vectors = (unit(rng.normal(size=(n, 8)).astype(np.float32)) for n in (400, 200, 50))
    positives = rng.random((50, 400)) < 0.02
    positives[:, 0] = True
    return graph_grid(
        items,
        users,
        Asked(vectors, ~positives & (rng.random((50, 400)) < 0.1), positives),
        [1, 5, 20, 21],
        [40, 400, 401],
        [1, 3, 20],
        seed=0,
    )


def test_sizes_beyond_what_there_is_are_left_out(grid: list[GraphQuality]) -> None:
    sizes = {(q.clusters, q.nearest_items, q.active_clusters) for q in grid}
    assert sizes == {(c, w, k) for c in (1, 5, 20) for w in (40, 400) for k in (1, 3, 20) if k <= c}


def test_all_items_keep_everything(grid: list[GraphQuality]) -> None:
    whole = [q for q in grid if q.nearest_items == 400]
    assert [q.kept for q in whole] == [1.0] * len(whole)
    assert [q.coverage for q in whole] == [1.0] * len(whole)
    assert [q.edges_per_item for q in whole] == [float(q.clusters) for q in whole]


def test_more_active_clusters_offer_more(grid: list[GraphQuality]) -> None:
    narrow = [q for q in grid if (q.clusters, q.nearest_items) == (20, 40)]
    assert narrow[0].offered < narrow[1].offered < narrow[2].offered
    assert all(40 * 0.8 <= q.offered <= 400 for q in narrow)
    assert all(0 < q.recall <= 1 for q in narrow)
