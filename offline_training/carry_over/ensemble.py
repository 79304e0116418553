"""V1D3 across a rebuilt graph: what was learnt online is carried to the new clusters and held against the new offline
value.

Pure functions over rows of sums (feature_store.sums). V1D3 (Tang et al., KDD 2021), its change-point ensemble:
V <- omega V_online + (1 - omega) V_offline with omega = 0.2. Here omega is 1 unless set otherwise: the score mixes the
two by itself, by evidence (infra/decisions/ensemble.md).
"""

import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.graph import Graph
from feature_store.sums import EXPECTED, ITEM, REWARD, REWARD_SQ, SERVED, B, D, F, N, Rows, S, Sums
from feature_store.translation import Translation


def translation(old: Int64, new: Int64, old_clusters: int, new_clusters: int) -> Translation:
    """Row-stochastic (old_clusters, new_clusters): M[c, c'] is the share of the users of old cluster c who are in new
    cluster c'.

    old, new: (U,) the cluster of each user under either clustering. An old cluster without users says nothing about
    where it went: its row is the distribution of all users over the new clusters, and uniform if there are no users at
    all.
    """
    pairs, counts = np.unique(old * new_clusters + new, return_counts=True)
    row, column = np.divmod(pairs, new_clusters)
    everybody = np.bincount(new, minlength=new_clusters).astype(np.float64)
    rest = everybody / everybody.sum() if everybody.sum() else np.full(new_clusters, 1 / new_clusters)
    users = np.bincount(old, minlength=old_clusters)
    start = np.searchsorted(row, np.arange(old_clusters + 1)).astype(np.int64)
    return Translation(start, column, counts / users[row], rest)


def transport(rows: Rows, matrix: Translation, graph: Graph) -> Rows:
    """Carries edge rows to new clusters: row'(c', j) = sum_c M[c, c'] row(c, j), for the edges that the new graph has.

    matrix: from the old clusters to the new ones. What falls on edges that the graph lacks is dropped; rows of
    items do not depend on clusters and stay as they are.
    """
    carried = Sums()
    numbers = carried.numbers.of(rows.items)
    own = rows.cluster == ITEM
    carried.add(numbers[rows.item[own]], rows.cluster[own], rows.values[own])
    edges = np.flatnonzero(~own)
    edges = edges[np.argsort(rows.item[edges], kind="stable")]
    for group in np.split(edges, np.flatnonzero(np.diff(rows.item[edges])) + 1):
        position = graph.position(rows.items[rows.item[group[0]]]) if len(group) else None
        if position is None:
            continue
        targets = graph.clusters_of(position)
        moved = matrix.rows(rows.cluster[group])[:, targets].T @ rows.values[group]
        moving = moved.any(axis=1)
        number = np.full(moving.sum(), numbers[rows.item[group[0]]], np.int32)
        carried.add(number, targets[moving], moved[moving])
    return carried.rows()


def mix(rows: Rows, offline: Float64, omega: float, keep: float) -> Rows:
    """The ensemble at a change point, on sufficient statistics (V1D3, as worked out for Diag-LinUCB).

    offline: (n,) what the new offline model expects of a trial of each row, on average; where it is NaN, the row keeps
    its own mean expectation. Every row keeps the share `keep` of its trials, so that certainty is not faked and the
    past fades. The mean of the resolved ones, V = b/s (reward/n for an item), becomes omega V + (1 - omega) offline,
    and what is expected of them becomes the new value: the residual b - f that remains is omega (V - offline) s. An
    item's variance of rewards is kept.
    """
    own = rows.cluster == ITEM
    values = np.empty_like(rows.values)
    values[own] = _mixed_items(rows.values[own], offline[own], omega, keep)
    values[~own] = _mixed_edges(rows.values[~own], offline[~own], omega, keep)
    return rows._replace(values=values)


def _mixed_edges(rows: Float64, offline: Float64, omega: float, keep: float) -> Float64:
    out = np.zeros_like(rows)
    out[:, [SERVED, D, S]] = keep * rows[:, [SERVED, D, S]]
    some = rows[:, S] > 0
    online, theta = rows[some, B] / rows[some, S], rows[some, F] / rows[some, S]
    theta = np.where(np.isnan(offline[some]), theta, offline[some])
    out[some, B] = (omega * online + (1 - omega) * theta) * out[some, S]
    out[some, F] = theta * out[some, S]
    return out


def _mixed_items(rows: Float64, offline: Float64, omega: float, keep: float) -> Float64:
    out = np.zeros_like(rows)
    out[:, [SERVED, N]] = keep * rows[:, [SERVED, N]]
    some = rows[:, N] > 0
    n, kept = rows[some, N], out[some, N]
    online, theta = rows[some, REWARD] / n, rows[some, EXPECTED] / n
    theta = np.where(np.isnan(offline[some]), theta, offline[some])
    mean = omega * online + (1 - omega) * theta
    variance = np.maximum(rows[some, REWARD_SQ] / n - online**2, 0.0)
    out[some, REWARD] = mean * kept
    out[some, REWARD_SQ] = (variance + mean**2) * kept
    out[some, EXPECTED] = theta * kept
    return out
