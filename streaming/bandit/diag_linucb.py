"""Diag-LinUCB: a linear bandit over user clusters that keeps only the diagonal of each arm's covariance.

Online Matching (Yi et al., RecSys 2023): E[r_uj] = <w_u, theta_j>, with w_u the user's sparse cluster weights (Eq.
10) and only the diagonal d_j of the covariance of arm j (Eqs. 7-9). Two forms of the score are here:

published  mean = sum_c w_c b_cj / (d_cj + prior);  bonus = alpha sqrt(sum_c w_c^2 / (served_cj + prior))
residual   the offline prediction p, corrected by what was observed beyond it, level by level:
               rho_j  = (R_j - P_j - base_j N_j + l g) / (N_j + l)                              the item
               mean   = p + rho_j + sum_c w_c ( beta_c + (b_cj - f_cj - (rho_j + beta_c) s_cj) / (served_cj + lambda) )
               bonus  = alpha sd sqrt( 1 / (served_j + item_prior) + sum_c w_c^2 / (served_cj + edge_prior) )
           with sd the standard deviation of all rewards; g, l, beta, base and lambda are fitted to the sums (prior.py).
           Derived in infra/decisions/bandit-form.md.

A trial is counted in `served` at once, and its reward when it is resolved. In the bonus, feedback that is on its way
invites no stampede; in the mean, it stands for what the item gives elsewhere, until it says otherwise. Pure functions
over arrays; the kernel is compiled, and its test holds the plain NumPy form.
"""

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from feature_store.arrays import Float32, Float64, Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.graph import Adjacency
from feature_store.sums import REWARD, REWARD_SQ, SERVED, B, D, F, N, S
from streaming.bandit.lookup import place, places
from streaming.bandit.prior import Prior, check_rows, item_level
from streaming.settings import BanditSettings, ScoreForm

Uint64 = NDArray[np.uint64]

MAX_ACTIVE_CLUSTERS = 62  # bits of an edge mask, with room for a sign
_DEFAULT_SD = 0.5  # of rewards in [0, 1], until some were seen


class Table(NamedTuple):
    """The parameters as a reader holds them, by row number of a graph of one size."""

    adjacency: Adjacency
    edges: Float64  # (edges, 5) edge rows
    items: Float64  # (items, 5) item rows
    total: Float64  # (5,) sum of all item rows
    prior: Prior  # fitted to them, not necessarily a moment ago
    trial_weight: float = 1.0  # what a trial of now adds to sums; pseudo-trials are trials of now

    def copy(self) -> "Table":
        """A table of its own, which nothing changes."""
        return self._replace(edges=self.edges.copy(), items=self.items.copy(), total=self.total.copy())


class Estimate(NamedTuple):
    """What the policy thinks of each candidate; all (n,)."""

    mean: Float64
    bonus: Float64
    edges: Uint64  # bit k: the edge to the k-th active cluster exists


def context(user: Float32, centroids: Float32, active: int, temperature: float) -> tuple[Int64, Float64]:
    """A user's sparse context: Online Matching, Eq. 10.

    user (d,), centroids (C, d). Returns the `active` nearest clusters by inner product, ascending by number, and their
    weights w_c = exp(<u, mu_c> / tau') / sum over these clusters; weights lie in (0, 1] and add up to 1.
    """
    similarity = (centroids @ user).astype(np.float64)
    k = min(active, len(similarity), MAX_ACTIVE_CLUSTERS)
    nearest = np.sort(np.argpartition(-similarity, k - 1)[:k])
    exponent = (similarity[nearest] - similarity[nearest].max()) / temperature
    # Below the floor a weight would vanish from double precision sums anyway, and 0 is not a weight.
    weights = np.exp(np.maximum(exponent, -30.0))
    return nearest.astype(np.int64), weights / weights.sum()


def score(
    settings: BanditSettings, clusters: Int64, weights: Float64, candidates: Int64, predicted: Float64, table: Table
) -> Estimate:
    """Scores candidates for one user.

    clusters (K,) ascending with weights (K,) in (0, 1]; candidates (n,) distinct item indexes; predicted (n,) the
    offline model's probability of a reward. Raises InvalidInput for more than MAX_ACTIVE_CLUSTERS clusters, weights
    outside their range or a table of two graphs.
    """
    _check(clusters, weights)
    check_rows(table.adjacency, table.edges)
    mean, bonus = np.empty(len(candidates)), np.empty(len(candidates))
    edges = np.empty(len(candidates), dtype=np.uint64)
    trial = table.trial_weight
    _score(
        settings.form is ScoreForm.PUBLISHED,
        settings.alpha * math.sqrt(trial),  # the bonus is of 1 / trials: of now, not of the sums'
        settings.edge_prior * trial,
        settings.item_prior * trial,
        reward_deviation(table.total, trial),
        clusters,
        weights,
        candidates,
        predicted,
        table.adjacency,
        table.edges,
        table.items,
        table.prior._replace(edge=table.prior.edge * trial, item=table.prior.item * trial),
        mean,
        bonus,
        edges,
    )
    return Estimate(mean, bonus, edges)


def reward_deviation(total: Float64, trial: float = 1.0) -> float:
    """Standard deviation of the rewards summed in an item row, with two pseudo-trials of a fair coin. trial: what a
    trial of now adds to the row."""
    n = total[N] + 2.0 * trial
    mean = (total[REWARD] + trial) / n
    return math.sqrt(max((total[REWARD_SQ] + trial) / n - mean * mean, 0.0)) or _DEFAULT_SD


@numba.njit(cache=True)
def _score(  # type: ignore[no-untyped-def]  # numba infers the types from the arrays
    published,
    alpha,
    edge_prior,
    item_prior,
    deviation,
    clusters,
    weights,
    candidates,
    predicted,
    adjacency,
    edge_rows,
    item_rows,
    prior,
    mean,
    bonus,
    edges,
):
    n = len(candidates)
    users = 0.0  # what this user's clusters give
    for k in range(len(clusters)):
        users += weights[k] * prior.cluster[clusters[k]]
    level, width = np.empty(n), np.empty(n)
    for i in range(n):
        j = candidates[i]
        base = prior.base[j] if j < len(prior.base) else 0.0
        level[i] = item_level(item_rows[j], base, prior.item, prior.general)
        mean[i] = 0.0 if published else predicted[i] + level[i] + users
        width[i] = 0.0 if published else 1.0 / (item_rows[j, SERVED] + item_prior)
        edges[i] = 0
    # By cluster: what is read does not depend on how many clusters an item is connected to.
    slots, shift = places(candidates)
    for k in range(len(clusters)):
        w, bit = weights[k], np.uint64(1) << np.uint64(k)
        at = adjacency.start[clusters[k]]
        end = adjacency.start[clusters[k] + 1]
        newer = adjacency.newest[clusters[k]]
        while at < end or newer >= 0:
            if at < end:
                j, edge = adjacency.items[at], at
                at += 1
            else:
                j, edge = adjacency.appended[newer], len(adjacency.items) + newer
                newer = adjacency.older[newer]
            i = place(slots, shift, candidates, j)
            if i < 0:
                continue
            row = edge_rows[edge]
            edges[i] |= bit
            if published:
                mean[i] += w * row[B] / (row[D] + edge_prior)
            else:
                common = level[i] + prior.cluster[clusters[k]]
                mean[i] += w * (row[B] - row[F] - common * row[S]) / (row[SERVED] + prior.edge)
            width[i] += w * w / (row[SERVED] + edge_prior)
    for i in range(n):
        bonus[i] = alpha * math.sqrt(width[i]) * (1.0 if published else deviation)


def _check(clusters: Int64, weights: Float64) -> None:
    if len(clusters) > MAX_ACTIVE_CLUSTERS:
        raise InvalidInput(f"A context has {len(clusters)} clusters, at most {MAX_ACTIVE_CLUSTERS} can be active.")
    if not all(0.0 < w <= 1.0 for w in weights.tolist()):
        raise InvalidInput(f"Context weights lie in {weights.min()}..{weights.max()}, they must lie in (0, 1].")
