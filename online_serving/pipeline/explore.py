"""From estimates to a slate: the last stage, the only random one. Nothing reorders after it."""

import math
from typing import NamedTuple

import numba
import numpy as np

from feature_store.arrays import Bool, Float64, Int64
from feature_store.sums import EXPECTED, REWARD, REWARD_SQ, N
from streaming.bandit.diag_linucb import Estimate, Table, score
from streaming.bandit.exploration import Exploration, Slate, choose_slate
from streaming.bandit.ruled_slates import SlateRules, choose_ruled_slate
from streaming.settings import BanditMode, BanditSettings


class Levels(NamedTuple):
    """How estimates of items (n,) come about, level by level; each has what is before it in it."""

    group: Float64  # (n,) what known, or new, items with such predictions earn
    item: Float64  # (n,) with what the item earned of everybody
    mean: Float64  # (n,) with what it earned in the user's clusters, and no optimism
    edges: Float64  # (K, n) with what it earned in one of them alone
    deviation: Float64  # (n,) the standard deviation of the mean
    trials: Float64  # (n,) resolved trials of the item
    reward: Float64  # (n,) what they earned
    optimism: Float64  # (n,) by how much more new items are estimated than they are expected to earn
    boost: Float64  # (n,) what all of these estimates were multiplied by (rules.boosted)


def estimate(
    settings: BanditSettings,
    clusters: Int64,
    weights: Float64,
    candidates: Int64,
    predicted: Float64,
    table: Table,
) -> Estimate:
    """The policy's view of the candidates: the bandit's, or the offline prediction where the bandit is off. What is not
    worth exploring has a bonus of 0, which keeps exploration from it and tells the log so."""
    if settings.mode is BanditMode.OFF:
        nothing = np.zeros(len(candidates))
        return Estimate(predicted, nothing, np.zeros(len(candidates), dtype=np.uint64))
    view = score(settings, clusters, weights, candidates, predicted, table)
    items = table.items.take(candidates, axis=0) / table.trial_weight
    return view._replace(bonus=view.bonus * worth_exploring(settings, predicted, items))


def levels(
    settings: BanditSettings, clusters: Int64, weights: Float64, items: Int64, predicted: Float64, table: Table
) -> Levels:
    """What `estimate` thinks of items (n,) with predictions (n,), taken apart: the same score, of tables of which some
    is not there."""
    own = table.items[items] / table.trial_weight
    if settings.mode is BanditMode.OFF:
        edges, none = np.tile(predicted, (len(clusters), 1)), np.zeros(len(items))
        known = own[:, N], own[:, REWARD]
        return Levels(predicted, predicted, predicted, edges, none, *known, optimism=none, boost=np.ones(len(items)))
    expected = settings.model_copy(update={"alpha": 1.0, "new_item_quantile": 0.5})

    def scored(first: int, last: int, table: Table) -> Estimate:
        return score(expected, clusters[first:last], weights[first:last], items, predicted, table)

    nothing = table._replace(items=np.zeros(table.items.shape))  # memory that nobody touches is none
    whole = scored(0, len(clusters), table)
    return Levels(
        group=scored(0, 0, nothing).mean,
        item=scored(0, 0, table).mean,
        mean=whole.mean,
        edges=np.stack([scored(k, k + 1, table).mean for k in range(len(clusters))]),
        deviation=whole.bonus,
        trials=own[:, N],
        reward=own[:, REWARD],
        optimism=score(settings, clusters, weights, items, predicted, table).mean - whole.mean,
        boost=np.ones(len(items)),
    )


def worth_exploring(settings: BanditSettings, predicted: Float64, items: Float64) -> Bool:
    """(n,) whether showing an item to this user is worth it for what is learnt: predicted (n,), item rows (n, 5).

    Not if it has graduated, with as many resolved trials as settings.graduation_trials. And not if this user very
    probably likes it less than most (item-centric exploration, RecSys 2025): p < mu - sigmas sigma, with mu and sigma
    of the item's posterior, Beta(1 + R, 1 + N - R) for rewards of 0 and 1. p is the prediction with what the item
    earned beyond its predictions so far: an item that the model thinks too little of is not this user's dislike.
    """
    worth: Bool = _worth(settings.graduation_trials or np.inf, settings.item_centric_sigmas, predicted, items)
    return worth


@numba.njit(cache=True, nogil=True)
def _worth(graduation, sigmas, predicted, items):  # type: ignore[no-untyped-def]  # numba infers it
    worth = np.empty(len(items), np.bool_)
    for i in range(len(items)):
        trials, reward = items[i, N], items[i, REWARD]
        worth[i] = trials < graduation
        if worth[i] and sigmas:
            mu = (reward + 1) / (trials + 2)
            # mu (1 - mu) for rewards of 0 and 1, and right for others.
            variance = max((items[i, REWARD_SQ] + 1) / (trials + 2) - mu**2, 0.0)
            p = predicted[i] + (reward - items[i, EXPECTED]) / (trials + 2)
            worth[i] = p >= mu - sigmas * math.sqrt(variance / (trials + 3))
    return worth


def exploration(settings: BanditSettings, surface: str) -> Exploration:
    """How slots are filled; only the explore mode draws at random (and greedy between equals)."""
    share = settings.share_on(surface) if settings.mode is BanditMode.EXPLORE else 0.0
    return Exploration(settings.explore_top_k, share)


def draw(
    settings: BanditSettings,
    surface: str,
    view: Estimate,
    size: int,
    rng: np.random.Generator,
    rules: SlateRules | None = None,
) -> Slate:
    """Fills the slate."""
    law = exploration(settings, surface)
    if rules is None:
        return choose_slate(view.mean, view.bonus, size, *law, rng)
    return choose_ruled_slate(view.mean, view.bonus, size, law, rules, rng)
