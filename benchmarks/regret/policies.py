"""The policies as compiled functions over one state, so that all of them run in the same loop.

A policy scores candidates as mean + bonus, and the highest is shown; ties are broken at random. Scores that a policy
draws (Thompson) are its mean, without a bonus. All peers learn when feedback arrives; Diag-LinUCB also counts what it
has served, as the product does.
"""

import math
from typing import NamedTuple

import numba
import numpy as np

from benchmarks.regret.world import Environment
from feature_store.arrays import Bool, Float64, Int64
from feature_store.graph import Adjacency, Graph
from feature_store.sums import COLUMNS, EXPECTED, REWARD, REWARD_SQ, SERVED, B, D, F, N, S
from streaming.bandit.diag_linucb import _published, _ratio
from streaming.bandit.prior import FIRST_FIT, Group, Prior, fit_compiled, refit_at

(
    RANDOM,
    ORACLE,  # knows the expected rewards
    OFFLINE,  # greedy by the offline prediction
    POPULARITY,  # most reward collected so far; parameter: share of random rounds
    EPSILON_GREEDY,  # highest mean; parameter: share of random rounds
    UCB1,  # Auer et al. 2002, Fig. 1; parameter: factor of the bonus
    BETA_THOMPSON,  # parameters: the two counts of the Beta prior
    GAUSSIAN_THOMPSON,  # parameters: deviation of a reward, mean of the prior (worth one trial)
    LINUCB,  # Li et al. 2010, Alg. 1, on the dense vector of cluster weights; parameters: alpha, ridge
    LINTS,  # Agrawal & Goyal 2013, one model for each item; parameters: v, ridge
    PUBLISHED,  # parameters: alpha, edge_prior
    OURS,  # parameters: alpha, edge_prior
) = range(12)


class Learnt(NamedTuple):
    """What a policy has learnt. Arrays that it does not use have no rows."""

    adjacency: Adjacency  # of the world's graph
    rows: Int64  # (edges,) the row of each of the world's edges
    edges: Float64  # (edges, 5) rows of sums, as the product keeps them
    items: Float64  # (items, 5)
    total: Float64  # (5,)
    inverse: Float64  # (items, C, C) of ridge I + sum x x'
    theta: Float64  # (items, C) ridge regression of the reward on x
    new: Bool  # (items,) none: no world here tells new items from known ones
    fitted: Float64  # (15,) the prior's numbers, and the trials at which it is fitted anew


def new_state(kind: int, parameters: Float64, world: Environment) -> Learnt:
    """The state before the first round."""
    items, c = len(world.arrival), world.cluster_count
    dense, sparse = kind in (LINUCB, LINTS), kind in (PUBLISHED, OURS)
    unknown = Prior.unknown()
    graph = Graph(c, [str(j) for j in range(items)], world.item_start, world.edge_cluster)
    return Learnt(
        adjacency=graph.adjacency,
        rows=np.array(
            [graph.row(int(c), j) for j in range(items * sparse) for c in graph.clusters_of(j)], dtype=np.int64
        ),
        edges=np.zeros((len(world.edge_cluster) * sparse, COLUMNS)),
        items=np.zeros((items, COLUMNS)),
        total=np.zeros(COLUMNS),
        inverse=np.tile(np.eye(c) / (parameters[1] if dense else 1.0), (items * dense, 1, 1)),
        theta=np.zeros((items * dense, c)),
        new=np.zeros(items, np.bool_),
        fitted=np.array([*unknown.known, *unknown.new, *unknown[2:], FIRST_FIT]),
    )


# Not cached, nor what calls it: a cache does not notice that the product's kernel has changed.
@numba.njit
def score(kind, parameters, state, world, user, now, candidates, predicted, mean, bonus, masks):  # type: ignore[no-untyped-def]  # numba infers it
    """Fills mean and bonus (n,) of candidates (n,) for a user in round `now`. predicted (n,), masks (n,) uint64."""
    bonus[:] = 0.0
    if kind == PUBLISHED:
        _published(
            parameters[0],
            parameters[1],
            world.clusters[user],
            world.weights[user],
            candidates,
            state.adjacency,
            state.edges,
            mean,
            bonus,
            masks,
        )
    elif kind == OURS:
        if state.total[N] >= state.fitted[14]:
            _fit(state)
        f = state.fitted
        _ratio(
            parameters[0],
            0.0,  # no item is new
            parameters[1],
            world.clusters[user],
            world.weights[user],
            candidates,
            predicted,
            state.adjacency,
            state.edges,
            state.items,
            state.new,
            Prior(Group(f[0], f[1], f[2], f[3], f[4]), Group(f[5], f[6], f[7], f[8], f[9]), f[10], f[11], f[12], f[13]),
            1.0,
            mean,
            bonus,
            masks,
        )
    elif kind in (LINUCB, LINTS):
        clusters, weights = world.clusters[user], world.weights[user]
        for i in range(len(candidates)):
            mean[i], variance = ridge_estimate(state, candidates[i], clusters, weights)
            if kind == LINUCB:
                bonus[i] = parameters[0] * math.sqrt(variance)
            else:
                mean[i] += parameters[0] * math.sqrt(variance) * np.random.standard_normal()  # noqa: NPY002 - seeded
    elif kind == RANDOM:
        mean[:] = 0.0
    elif kind == ORACLE:
        for i in range(len(candidates)):
            mean[i] = world.reward[user, candidates[i]]
    elif kind == OFFLINE:
        mean[:] = predicted
    else:
        _score_items(kind, parameters, state, now, candidates, mean, bonus)


@numba.njit
def _fit(state):  # type: ignore[no-untyped-def]  # numba infers it
    prior, f = fit_compiled(state.adjacency, state.edges, state.items, state.new, state.total), state.fitted
    for at, group in ((0, prior.known), (5, prior.new)):
        f[at], f[at + 1], f[at + 2], f[at + 3], f[at + 4] = (
            group.odds, group.trust, group.evidence, group.slope, group.centre
        )  # fmt: skip
    f[10], f[11], f[12], f[13] = prior.edge, prior.least, prior.dispersion, prior.ceiling
    f[14] = refit_at(state.total[N])


@numba.njit(cache=True)
def _score_items(kind, parameters, state, now, candidates, mean, bonus):  # type: ignore[no-untyped-def]  # numba infers it
    if kind in (POPULARITY, EPSILON_GREEDY) and np.random.random() < parameters[0]:  # noqa: NPY002 - seeded
        mean[:] = 0.0
        return
    general = state.total[REWARD] / state.total[N] if state.total[N] else 0.0
    for i in range(len(candidates)):
        row = state.items[candidates[i]]
        n, reward = row[N], row[REWARD]
        if kind == POPULARITY:
            mean[i] = reward
        elif kind == BETA_THOMPSON:
            mean[i] = np.random.beta(parameters[0] + reward, parameters[1] + n - reward)  # noqa: NPY002 - seeded
        elif kind == GAUSSIAN_THOMPSON:
            noise = parameters[0] / math.sqrt(n + 1) * np.random.standard_normal()  # noqa: NPY002 - seeded
            mean[i] = (reward + parameters[1]) / (n + 1) + noise
        elif n == 0:  # epsilon-greedy and UCB1
            mean[i] = general
            bonus[i] = np.inf if kind == UCB1 else 0.0
        else:
            mean[i] = reward / n
            bonus[i] = parameters[0] * math.sqrt(2 * math.log(now + 1) / n) if kind == UCB1 else 0.0


@numba.njit(cache=True)
def ridge_estimate(state, item, clusters, weights):  # type: ignore[no-untyped-def]  # numba infers it
    """(x'theta, x'A^-1 x) of an item for the context x with `weights` at `clusters`."""
    inverse, theta = state.inverse[item], state.theta[item]
    mean = variance = 0.0
    for k in range(len(clusters)):
        row, half = inverse[clusters[k]], 0.5 * weights[k] * inverse[clusters[k], clusters[k]]
        for m in range(k):
            half += weights[m] * row[clusters[m]]
        mean += weights[k] * theta[clusters[k]]
        variance += 2.0 * weights[k] * half
    return mean, variance


@numba.njit(cache=True)
def serve(kind, state, world, user, item):  # type: ignore[no-untyped-def]  # numba infers it
    """Counts a trial when the item is shown."""
    state.items[item, SERVED] += 1.0
    state.total[SERVED] += 1.0
    if kind in (PUBLISHED, OURS):
        at, end = world.item_start[item], world.item_start[item + 1]
        for k in range(world.clusters.shape[1]):
            at += np.searchsorted(world.edge_cluster[at:end], world.clusters[user, k])
            if at < end and world.edge_cluster[at] == world.clusters[user, k]:
                state.edges[state.rows[at], SERVED] += world.weights[user, k] ** 2


@numba.njit(cache=True)
def learn(kind, state, world, user, item, reward):  # type: ignore[no-untyped-def]  # numba infers it
    """Takes in the reward of a trial when its feedback arrives."""
    predicted = world.predicted[user, item]
    for row in (state.items[item], state.total):
        row[N] += 1.0
        row[REWARD] += reward
        row[REWARD_SQ] += reward * reward
        row[EXPECTED] += predicted
    if kind in (PUBLISHED, OURS):
        at, end = world.item_start[item], world.item_start[item + 1]
        for k in range(world.clusters.shape[1]):
            at += np.searchsorted(world.edge_cluster[at:end], world.clusters[user, k])
            if at < end and world.edge_cluster[at] == world.clusters[user, k]:
                w, row = world.weights[user, k], state.edges[state.rows[at]]
                row[D] += w * w
                row[S] += w
                row[B] += w * reward
                row[F] += w * predicted
    elif kind in (LINUCB, LINTS):
        learn_ridge(state, item, world.clusters[user], world.weights[user], reward)


@numba.njit(cache=True)
def learn_ridge(state, item, clusters, weights, reward):  # type: ignore[no-untyped-def]  # numba infers it
    """A <- A + x x' and b <- b + r x, on A^-1 (Sherman-Morrison) and theta = A^-1 b themselves."""
    inverse, theta = state.inverse[item], state.theta[item]
    c = len(theta)
    direction = np.zeros(c)  # A^-1 x
    for k in range(len(clusters)):
        for i in range(c):
            direction[i] += weights[k] * inverse[clusters[k], i]
    denominator, error = 1.0, reward
    for k in range(len(clusters)):
        denominator += weights[k] * direction[clusters[k]]
        error -= weights[k] * theta[clusters[k]]
    for i in range(c):
        step = direction[i] / denominator
        theta[i] += step * error
        for j in range(c):
            inverse[i, j] -= step * direction[j]
