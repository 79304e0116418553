"""Diag-LinUCB: a linear bandit over user clusters that keeps only the diagonal of each arm's covariance.

Online Matching (Yi et al., RecSys 2023): E[r_uj] = <w_u, theta_j>, with w_u the user's sparse cluster weights (Eq.
10) and only the diagonal d_j of the covariance of arm j (Eqs. 7-9). Two forms of the score are here:

published  mean = sum_c w_c b_cj / (d_cj + prior);  bonus = alpha sqrt(sum_c w_c^2 / (served_cj + prior))
ratio      the offline prediction p, its odds multiplied by what was observed over what was expected, level by level:
               q, q_j    = p and the mean P_j / N_j expected of the item's trials, tilted as its group is:
                           odds times those of the group, log-odds from the group's centre times its slope
               lambda_j  = (R_j + a) / (N_j q_j + a)                                            the item
               e_cj      = lambda_j q_j / (P_j / N_j) f_cj                                      expected at the edge
               theta     = 1 + sum_c w_c (b_cj - e_cj) / (e_cj d_cj / s_cj + a_edge)            the edges
               odds mean = odds q * odds(lambda_j q_j) / odds(q_j) * exp((theta - 1) / (1 - lambda_j q_j)) * doubt_j
               doubt_j   = an upper quantile of lambda_j over its mean if the item is new, else 1
               bonus     = alpha mean (1 - mean) / sqrt(1 - lambda_j q_j) *
                               sqrt( phi / (R_j + a') + sum_c w_c^2 phi / (e_cj d_cj / s_cj + edge_prior) )
           p is as steep as rewards are before one person (slates.py); the groups' odds and slopes, a, a' (at most 2 for
           new items), a_edge and phi are fitted to the sums (prior.py). Small chances multiply, and none
           leaves [0, 1]. Derived in infra/decisions/bandit-form.md.

A trial is counted in `served` at once, and its reward when it is resolved. What is on its way counts as if it had come
out as expected: it invites no stampede, and an item or edge is not believed on the strength of its first few answers.
Pure functions over arrays; the kernels are compiled, and their test holds the plain NumPy form. Each walks the edges
itself: through a generator that both call a decision takes 2.5 times as long.
"""

import math
from statistics import NormalDist
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from feature_store.arrays import Bool, Float32, Float64, Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.graph import Adjacency
from feature_store.sums import EXPECTED, REWARD, SERVED, B, D, F, N, S
from streaming.bandit.lookup import place, places
from streaming.bandit.prior import NEAR, Prior, believed, check_rows, next_edge, odds_of, shifted, tilted
from streaming.settings import BanditSettings, ScoreForm

Uint64 = NDArray[np.uint64]

MAX_ACTIVE_CLUSTERS = 62  # bits of an edge mask, with room for a sign


class Table(NamedTuple):
    """The parameters as a reader holds them, by row number of a graph of one size."""

    adjacency: Adjacency
    edges: Float64  # (edges, 5) edge rows
    items: Float64  # (items, 5) item rows
    new: Bool  # (items,) training knew nothing of it
    total: Float64  # (5,) sum of all item rows
    prior: Prior  # fitted to them, not necessarily a moment ago
    trial_weight: float = 1.0  # what a trial of now adds to sums; pseudo-trials are trials of now

    def rows(self) -> tuple[Adjacency, Float64, Float64, Bool]:
        """What compiled code reads."""
        return self.adjacency, self.edges, self.items, self.new

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
    found, trial = (mean, bonus, edges), table.trial_weight
    alpha, prior = settings.alpha * math.sqrt(trial), settings.edge_prior * trial  # of trials of now, not of the sums'
    if settings.form is ScoreForm.PUBLISHED:
        _published(alpha, prior, clusters, weights, candidates, table.adjacency, table.edges, *found)
    else:
        optimism = NormalDist().inv_cdf(settings.new_item_quantile)
        _ratio(
            alpha, optimism, prior, clusters, weights, candidates, predicted, *table.rows(), table.prior, trial, *found
        )
    return Estimate(mean, bonus, edges)


@numba.njit(cache=True)
def _published(  # type: ignore[no-untyped-def]  # numba infers the types from the arrays
    alpha, prior, clusters, weights, candidates, adjacency, edge_rows, mean, bonus, edges
):
    mean[:] = 0.0
    bonus[:] = 0.0
    edges[:] = 0
    slots, shift = places(candidates)
    for k in range(len(clusters)):
        w, bit = weights[k], np.uint64(1) << np.uint64(k)
        at, newer = adjacency.start[clusters[k]], adjacency.newest[clusters[k]]
        while at < adjacency.start[clusters[k] + 1] or newer >= 0:
            j, edge, at, newer = next_edge(adjacency, clusters[k], at, newer)
            i = place(slots, shift, candidates, j)
            if i >= 0:
                row = edge_rows[edge]
                edges[i] |= bit
                mean[i] += w * row[B] / (row[D] + prior)
                bonus[i] += w * w / (row[SERVED] + prior)
    for i in range(len(candidates)):
        bonus[i] = alpha * math.sqrt(bonus[i])


@numba.njit(cache=True)
def benefit_of_doubt(k, z):  # type: ignore[no-untyped-def]  # numba infers it
    """A quantile of a Gamma distribution of shape k over its mean, at least 1 (Wilson & Hilferty 1931). z: the same
    quantile of the normal distribution; 0 and below: 1."""
    root = 1.0 - 1.0 / (9.0 * k) + z / (3.0 * math.sqrt(k))
    return max(root * root * root, 1.0) if z > 0.0 else 1.0


@numba.njit(cache=True)
def _ratio(  # type: ignore[no-untyped-def]  # numba infers the types from the arrays
    alpha, optimism, edge_prior, clusters, weights, candidates, predicted, adjacency, edge_rows, item_rows, new, prior,
    trial, mean, bonus, edges,
):  # fmt: skip
    n = len(candidates)
    ceiling, edge_trust = prior.ceiling, prior.edge * trial
    chance, usual = np.empty(n), np.empty(n)  # what the group expects, and the mean of what was of the item's trials
    level, own = np.empty(n), np.empty(n)  # what the item earns in such trials, and the odds of that over the group's
    doubt = np.empty(n)  # the odds that it is given over those that are expected
    differs, spread = np.zeros(n), np.empty(n)  # theta - 1, and the variance of theta lambda relative to its square
    for i in range(n):
        row = item_rows[candidates[i]]
        group = prior.new if new[candidates[i]] else prior.known
        trials = row[N]
        chance[i] = believed(predicted[i], prior.least)
        usual[i] = believed(row[EXPECTED] / trials, prior.least) if trials > 0.0 else chance[i]
        expected, chance[i] = tilted(usual[i], group), tilted(chance[i], group)
        waiting, reward = max(row[SERVED] - trials, 0.0) * expected, max(row[REWARD] / ceiling, 0.0)
        trust = group.trust * trial + waiting
        level[i] = (reward + trust) / (trials * expected + trust) * expected
        own[i] = odds_of(level[i]) / odds_of(expected)
        spread[i] = 1.0 / (reward + group.evidence * trial + waiting)
        doubt[i] = benefit_of_doubt((reward + trust) / trial, optimism) if new[candidates[i]] else 1.0
        edges[i] = 0
    # By cluster: what is read does not depend on how many clusters an item is connected to.
    slots, shift = places(candidates)
    for k in range(len(clusters)):
        w, bit = weights[k], np.uint64(1) << np.uint64(k)
        at, newer = adjacency.start[clusters[k]], adjacency.newest[clusters[k]]
        while at < adjacency.start[clusters[k] + 1] or newer >= 0:
            j, edge, at, newer = next_edge(adjacency, clusters[k], at, newer)
            i = place(slots, shift, candidates, j)
            if i < 0:
                continue
            row = edge_rows[edge]
            edges[i] |= bit
            expected = level[i] / usual[i] * (prior.least * row[S] + (1.0 - prior.least) * row[F])
            weight = row[D] / row[S] if row[S] > 0.0 else 0.0
            known = expected * weight + max(row[SERVED] - row[D], 0.0) * level[i]
            differs[i] += w * (row[B] / ceiling - expected) / (known + edge_trust)
            spread[i] += w * w / (known + edge_prior)
    for i in range(n):
        rest = max(1.0 - level[i], NEAR)
        value = shifted(chance[i], own[i] * math.exp(min(differs[i] / rest, 30.0)))
        mean[i] = ceiling * shifted(value, doubt[i])
        steepness = value * (1.0 - value) / rest
        bonus[i] = alpha * ceiling * steepness * math.sqrt(prior.dispersion * rest * spread[i])


def _check(clusters: Int64, weights: Float64) -> None:
    if len(clusters) > MAX_ACTIVE_CLUSTERS:
        raise InvalidInput(f"A context has {len(clusters)} clusters, at most {MAX_ACTIVE_CLUSTERS} can be active.")
    if not all(0.0 < w <= 1.0 for w in weights.tolist()):
        raise InvalidInput(f"Context weights lie in {weights.min()}..{weights.max()}, they must lie in (0, 1].")
