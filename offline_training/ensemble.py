"""V1D3 across a rebuilt graph: what was learnt online is carried to the new clusters and mixed with the new offline
value.

Pure functions over rows of sums (feature_store.sums). V1D3 (Tang et al., KDD 2021), its change-point ensemble:
V <- omega V_online + (1 - omega) V_offline with omega = 0.2.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from feature_store.graph import Graph
from feature_store.sums import (
    COLUMNS,
    PREDICTED,
    REWARD,
    REWARD_SQ,
    SERVED,
    B,
    D,
    F,
    N,
    S,
    Sums,
    edge_key,
    item_key,
    split_key,
)

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def translation(old: Int64, new: Int64, old_clusters: int, new_clusters: int) -> Float64:
    """Row-stochastic matrix (old_clusters, new_clusters): M[c, c'] is the share of the users of old cluster c who are
    in new cluster c'.

    old, new: (U,) the cluster of each user under either clustering. An old cluster without users says nothing about
    where it went: its row is the distribution of all users over the new clusters, and uniform if there are no users at
    all.
    """
    counts = np.zeros((old_clusters, new_clusters))
    np.add.at(counts, (old, new), 1.0)
    everybody = counts.sum(axis=0)
    fallback = everybody / everybody.sum() if everybody.sum() else np.full(new_clusters, 1 / new_clusters)
    users = counts.sum(axis=1, keepdims=True)
    return np.where(users > 0, counts / np.maximum(users, 1.0), fallback)


def transport(sums: Sums, matrix: Float64, graph: Graph) -> Sums:
    """Carries edge rows to new clusters: row'(c', j) = sum_c M[c, c'] row(c, j), for the edges that the new graph has.

    matrix: (old clusters, new clusters), row-stochastic. What falls on edges that the graph lacks is dropped; rows of
    items are no business of clusters and stay as they are.
    """
    carried = Sums()
    by_item: dict[str, list[tuple[int, Float64]]] = {}
    for key, row in zip(sums.keys(), sums.rows(), strict=True):
        cluster, item = split_key(key)
        if cluster is None:
            carried.put([key], row[None])
        elif item in graph.index:
            by_item.setdefault(item, []).append((cluster, row))
    for item, rows in by_item.items():
        targets = graph.clusters_of(graph.index[item])
        moved = matrix[[cluster for cluster, _ in rows]][:, targets].T @ np.stack([row for _, row in rows])
        moving = np.flatnonzero(moved.any(axis=1))
        if len(moving):
            carried.put([edge_key(int(targets[k]), item) for k in moving], moved[moving])
    return carried


def mix(sums: Sums, offline: Mapping[str, float], omega: float, keep: float) -> Sums:
    """The ensemble at a change point, on sufficient statistics (V1D3, as worked out for Diag-LinUCB).

    offline: by row key, the mean prediction of the new offline model there; a row it does not name keeps its own mean
    prediction. Every row keeps the share `keep` of its trials, so that certainty is not faked and the past fades. The
    mean of the resolved ones, V = b/s (reward/n for an item), becomes omega V + (1 - omega) offline, and their
    prediction becomes the new one: the residual b - f that remains is omega (V - offline) s. An item's variance of
    rewards is kept.
    """
    mixed = Sums()
    keys, rows = sums.keys(), sums.rows()
    if not keys:
        return mixed
    out = np.zeros((len(keys), COLUMNS))
    for at, (key, row) in enumerate(zip(keys, rows, strict=True)):
        is_edge = split_key(key)[0] is not None
        rule = _mixed_edge if is_edge else _mixed_item
        out[at] = rule(row, offline.get(key), omega, keep)
    mixed.put(keys, out)
    return mixed


def item_values(sums: Sums, offline: Mapping[str, float]) -> dict[str, float]:
    """Offline values of item rows: the mean of their edges' values, weighted with the edges' resolved weight s, because
    an item's trials happened in these clusters. Items without such edges are left out."""
    value: dict[str, float] = {}
    weight: dict[str, float] = {}
    for key, row in zip(sums.keys(), sums.rows(), strict=True):
        cluster, item = split_key(key)
        if cluster is not None and key in offline and row[S] > 0:
            value[item] = value.get(item, 0.0) + row[S] * offline[key]
            weight[item] = weight.get(item, 0.0) + row[S]
    return {item_key(item): float(value[item] / weight[item]) for item in value}


def _mixed_edge(row: Float64, offline: float | None, omega: float, keep: float) -> Float64:
    out = np.zeros(COLUMNS)
    out[[SERVED, D, S]] = keep * row[[SERVED, D, S]]
    if row[S] > 0:
        theta = row[F] / row[S] if offline is None else offline
        out[B] = (omega * row[B] / row[S] + (1 - omega) * theta) * out[S]
        out[F] = theta * out[S]
    return out


def _mixed_item(row: Float64, offline: float | None, omega: float, keep: float) -> Float64:
    out = np.zeros(COLUMNS)
    out[[SERVED, N]] = keep * row[[SERVED, N]]
    if row[N] > 0:
        online = row[REWARD] / row[N]
        theta = row[PREDICTED] / row[N] if offline is None else offline
        mean = omega * online + (1 - omega) * theta
        variance = max(row[REWARD_SQ] / row[N] - online**2, 0.0)
        out[REWARD] = mean * out[N]
        out[REWARD_SQ] = (variance + mean**2) * out[N]
        out[PREDICTED] = theta * out[N]
    return out
