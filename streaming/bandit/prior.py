"""What is common to many edges, fitted to the sums themselves: the level of items, the level of clusters, and how far a
single edge may be trusted to differ from both.

Trials of all edges together follow  r = p + rho_j + sum_c w_c (beta_c + theta_cj) + noise:  an item's worth beyond its
prediction, what the users of a cluster give beyond that, and the edge. Item and cluster levels are the two main effects
of an additive model, each shrunk, fitted by turns (backfitting; Breiman & Friedman 1985) to the sums: because
sum_c w_c beta_c is linear in w, its total over an item's trials is sum_c beta_c s_cj, and no trial is looked at again.
The fit is a function of the sums alone: the same sums, however they came together, give the same prior.
"""

from typing import NamedTuple

import numba
import numpy as np

from feature_store.arrays import Float64
from feature_store.contracts.errors import InvalidInput
from feature_store.graph import Adjacency
from feature_store.sums import PREDICTED, REWARD, REWARD_SQ, B, D, F, N, S

_SWEEPS = 2
# Moments say how much edges differ in a log drawn at random. A policy that shows what it believes in, and so corrects
# what it overestimates at once, does better with far less shrinkage: measured in closed loops, by the regret bench's
# tuning seeds (infra/decisions/bandit-form.md).
_OPTIMISM = 0.001
_LEAST, _MOST = 0.01, 30.0  # pseudo-trials behind an edge
_MOST_ITEM = 100.0  # pseudo-trials behind an item; its level is exploited for long: moments are taken at their word

FIRST_FIT = 50.0  # trials: fewer say nothing about how edges differ


class Prior(NamedTuple):
    """What edges and items are shrunk to, and how strongly."""

    edge: float  # pseudo-trials behind an edge
    item: float  # pseudo-trials behind the level of an item
    general: float  # what an item of which nothing is known earns beyond its prediction
    cluster: Float64  # (C,) what a cluster's users give beyond prediction and item
    base: Float64  # (items,) the mean of what the clusters of its trials' users give; items after these have none

    @classmethod
    def unknown(cls, clusters: int) -> "Prior":
        """Before anything was seen."""
        return cls(_LEAST, _MOST_ITEM, 0.0, np.zeros(clusters), np.zeros(0))


def fit(
    adjacency: Adjacency,
    edges: Float64,
    items: Float64,
    total: Float64,
    item_prior: float,
    cluster_prior: float,
    trial: float = 1.0,
) -> Prior:
    """Fits the prior to edge rows (E, 5), item rows (n, 5) and their sum (5,). item_prior, cluster_prior: pseudo-trials
    behind the level of an item, at least, and of a cluster. trial: what a trial of now adds to the rows. Raises
    InvalidInput if there are not as many edge rows as edges."""
    check_rows(adjacency, edges)
    cluster, base = np.zeros(len(adjacency.newest)), np.zeros(len(items))
    edge, item, general = fit_into(adjacency, edges, items, total, item_prior, cluster_prior, cluster, base, trial)
    return Prior(edge, item, general, cluster, base)


def check_rows(adjacency: Adjacency, edges: Float64) -> None:
    """Raises InvalidInput unless there is one edge row for each edge: compiled code reads without looking."""
    if len(edges) != adjacency.n_edges:
        raise InvalidInput(f"There are {len(edges)} edge rows for {adjacency.n_edges} edges: they are of two graphs.")


@numba.njit(cache=True, nogil=True)
def refit_at(trials):  # type: ignore[no-untyped-def]  # numba infers it
    """How many trials there must be before a fit to so many is made anew: it goes over all edges."""
    return 1.1 * trials + 10.0


@numba.njit(cache=True, nogil=True)
def fit_into(adjacency, edges, items, total, item_prior, cluster_prior, cluster, base, trial=1.0):  # type: ignore[no-untyped-def]  # numba infers it
    """fit, for compiled code: fills cluster (C,) and base (items,), and returns (edge, item, general)."""
    n = total[N]
    if n <= 0.0:
        return _LEAST, _MOST_ITEM, 0.0
    least_item = item_prior
    item_prior, cluster_prior = item_prior * trial, cluster_prior * trial
    base[:] = 0.0
    level = np.empty(len(items))
    general = _general(items, base, item_prior)
    for _ in range(_SWEEPS):
        _levels(items, base, item_prior, general, level)
        given, weight, all_given, all_weight = np.zeros(len(cluster)), np.zeros(len(cluster)), 0.0, 0.0
        for c in range(len(cluster)):
            at, newer = adjacency.start[c], adjacency.newest[c]
            while at < adjacency.start[c + 1] or newer >= 0:
                j, row, at, newer = _next(adjacency, c, at, newer)
                given[c] += edges[row, B] - edges[row, F] - level[j] * edges[row, S]
                weight[c] += edges[row, S]
            cluster[c] = given[c] / (weight[c] + cluster_prior)
            all_given += cluster[c] * weight[c]
            all_weight += weight[c]
        if all_weight > 0.0:
            cluster -= all_given / all_weight  # the level of all is the items'
        base[:] = 0.0
        for c in range(len(cluster)):
            at, newer = adjacency.start[c], adjacency.newest[c]
            while at < adjacency.start[c + 1] or newer >= 0:
                j, row, at, newer = _next(adjacency, c, at, newer)
                base[j] += cluster[c] * edges[row, S]
        for j in range(len(items)):
            base[j] = base[j] / items[j, N] if items[j, N] > 0.0 else 0.0
        general = _general(items, base, item_prior)
    base_free = np.zeros(len(items))  # what edges show beyond their item, their clusters' share included
    _levels(items, base_free, item_prior, general, level)
    variance = max(total[REWARD_SQ] / n - (total[REWARD] / n) ** 2, 1e-9)
    # Var(b - f - rho s) = variance d + tau^2 d^2 over edges, and over items alike: method of moments. Of trials that
    # fade it is less, down to half the variance: then both are shrunk a little more than they need be.
    noise = variance * trial
    excess = squares = 0.0
    for j in range(len(items)):
        beyond = items[j, REWARD] - items[j, PREDICTED] - (general + base[j]) * items[j, N]
        excess += beyond * beyond - noise * items[j, N]
        squares += items[j, N] * items[j, N]
    item = _shrinkage(variance * squares, excess, least_item, _MOST_ITEM)
    excess = squares = 0.0
    for c in range(len(cluster)):
        at, newer = adjacency.start[c], adjacency.newest[c]
        while at < adjacency.start[c + 1] or newer >= 0:
            j, row, at, newer = _next(adjacency, c, at, newer)
            e = edges[row]
            excess += (e[B] - e[F] - level[j] * e[S]) ** 2 - noise * e[D]
            squares += e[D] * e[D]
    edge = _shrinkage(_OPTIMISM * variance * squares, excess, _LEAST, _MOST) if squares > 0.0 else _LEAST
    return edge, item, general


@numba.njit(cache=True, nogil=True)
def _shrinkage(noise, excess, least, most):  # type: ignore[no-untyped-def]  # numba infers it
    return most if excess <= 0.0 else min(max(noise / excess, least), most)


@numba.njit(cache=True, nogil=True)
def item_level(row, base, item_prior, general):  # type: ignore[no-untyped-def]  # numba infers it
    """rho of an item's row (5,): its worth beyond prediction and users, shrunk to the general one."""
    return (row[REWARD] - row[PREDICTED] - base * row[N] + item_prior * general) / (row[N] + item_prior)


@numba.njit(cache=True, nogil=True)
def _levels(items, base, item_prior, general, level):  # type: ignore[no-untyped-def]  # numba infers it
    for j in range(len(items)):
        level[j] = item_level(items[j], base[j], item_prior, general)


@numba.njit(cache=True, nogil=True)
def _general(items, base, item_prior):  # type: ignore[no-untyped-def]  # numba infers it
    """The mean over items, not over trials: a good policy's trials are of its best items, a new item is like any."""
    total, weight = 0.0, 1.0
    for j in range(len(items)):
        n = items[j, N]
        if n > 0.0:
            known = n / (n + item_prior)
            total += known * ((items[j, REWARD] - items[j, PREDICTED]) / n - base[j])
            weight += known
    return total / weight


@numba.njit(cache=True, nogil=True)
def _next(adjacency, cluster, at, newer):  # type: ignore[no-untyped-def]  # numba infers it
    """(item, row) of a cluster's next edge, and where to go on: the first edges, then those appended."""
    if at < adjacency.start[cluster + 1]:
        return np.int64(adjacency.items[at]), np.int64(at), at + 1, newer
    return np.int64(adjacency.appended[newer]), np.int64(len(adjacency.items) + newer), at, adjacency.older[newer]
