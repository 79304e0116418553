"""The greedy policy seen from the log of the exploring one: the probabilities that off-policy evaluation weighs by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput
from offline_training.off_policy.slate_log import SlateLog
from streaming.bandit.exploration import Exploration


@dataclass(frozen=True, slots=True)
class LoggedSlate:
    """One decision of the exploring policy and what came of it. m items in the exploration set, s of them shown."""

    user: str
    mean: Float64  # (m,) estimates, the slate first, in position order
    bonus: Float64  # (m,) 0: not explored
    probabilities: Float64  # (s,) of each shown item at its position given the slots before it
    rewards: Float64  # (s,)
    exploration: Exploration
    greedy: Float64 | None = None  # (s,) as events.SlateColumns has it, where there were rules within the slate
    greedy_mean: Float64 | None = None  # (s,)


class Logged(Protocol):
    """What the log says of a slate: LoggedSlate, or experiment.impressions.RewardedDecision."""

    @property
    def mean(self) -> Float64: ...

    @property
    def probabilities(self) -> Float64: ...

    @property
    def greedy(self) -> Float64 | None: ...

    @property
    def greedy_mean(self) -> Float64 | None: ...


def logged_choice(slate: Logged) -> tuple[Float64, Float64]:
    """As greedy_choice has it, under the rules that the request had within its slate."""
    if slate.greedy is not None and slate.greedy_mean is not None:
        return slate.greedy, slate.greedy_mean
    return greedy_choice(slate.mean, len(slate.probabilities))


def greedy_choice(mean: Float64, slots: int) -> tuple[Float64, Float64]:
    """What the greedy policy would do at each position, given the slots that were in fact filled before it.

    mean (m,): the slate first, in position order. Returns (slots,) the chance that it would have shown the same item (1
    / ties if that item has the highest mean of those left, else 0), and (slots,) that highest mean.
    """
    best = np.array([mean[slot:].max() for slot in range(slots)])
    ties = np.array([np.count_nonzero(mean[slot:] == best[slot]) for slot in range(slots)])
    return np.where(mean[:slots] == best, 1.0 / ties, 0.0), best


def greedy_slate(mean: Float64, slots: int, rng: np.random.Generator) -> Int64:
    """The items (slots,) that the greedy policy shows, as indexes into mean (m,); ties fall as drawn."""
    return np.lexsort((rng.random(len(mean)), -mean))[:slots].astype(np.int64)


def logging_marginals(
    mean: Float64, bonus: Float64, slate: Int64, exploration: Exploration, rollouts: int, rng: np.random.Generator
) -> Float64:
    """The chance that the exploring policy shows slate[k] at position k, whatever it showed before.

    mean, bonus (m,): the exploration set. slate (s,): indexes into it. Returns (s,), each the mean over `rollouts`
    simulated slates of the exact chance given the simulated slots before it; ties count as ordered. The set that was
    logged holds the items that had a chance after the slots that were in fact filled, so for other slots before it is a
    close approximation.
    """
    m, s = len(mean), len(slate)
    upper_order = np.argsort(-(mean + bonus), kind="stable")
    upper_rank = np.empty(m, dtype=np.int64)
    upper_rank[upper_order] = np.arange(m)
    left = np.ones((rollouts, m), dtype=bool)  # in descending order of mean + bonus
    mean_by_upper, explorable = mean[upper_order], bonus[upper_order] > 0
    tied = len(np.unique(mean)) < m
    rows = np.arange(rollouts)
    marginals = np.empty(s)
    for position in range(s):
        pool = left & explorable
        among = np.cumsum(pool, axis=1)
        k = np.minimum(exploration.top_k, among[:, -1])
        share = np.where(k > 0, exploration.share, 0.0)
        k = np.maximum(k, 1)
        remaining = np.where(left, mean_by_upper, -np.inf)
        is_best = remaining == remaining.max(axis=1, keepdims=True)
        best = (is_best * (1 + rng.random((rollouts, m))) if tied else is_best).argmax(axis=1)
        wanted = upper_rank[slate[position]]
        exploit = is_best[:, wanted] / is_best.sum(axis=1)
        explore = pool[:, wanted] & (among[:, wanted] <= k)
        marginals[position] = np.mean((1 - share) * exploit + share / k * explore)
        drawn = (among == rng.integers(1, k + 1)[:, None]).argmax(axis=1)
        chosen = np.where(rng.random(rollouts) < share, drawn, best)
        left[rows, chosen] = False
    return marginals


def slate_log(slates: Sequence[LoggedSlate], rollouts: int, rng: np.random.Generator) -> SlateLog:
    """The log of an exploring policy as the evaluation of the greedy one needs it.

    rollouts: per slate, for the item-position weights; 0 leaves these out, and so do rules within a slate, which no
    simulation knows. Raises InvalidInput if a slate has fewer estimates than shown items.
    """
    if any(slate.greedy is not None for slate in slates):
        rollouts = 0
    n, width = len(slates), max((len(slate.rewards) for slate in slates), default=0)
    codes = {user: code for code, user in enumerate(dict.fromkeys(slate.user for slate in slates))}
    present = np.zeros((n, width), dtype=bool)
    rewards, target, model, best = (np.zeros((n, width)) for _ in range(4))
    logging, here, there = np.ones((n, width)), np.zeros((n, width)), np.ones((n, width))
    for row, slate in enumerate(slates):
        s = len(slate.rewards)
        if len(slate.mean) < s or len(slate.probabilities) != s:
            raise InvalidInput(
                f"A logged slate has {s} rewards, {len(slate.probabilities)} probabilities, {len(slate.mean)} means. "
                "The log is damaged, or was written by another version."
            )
        present[row, :s] = True
        rewards[row, :s], logging[row, :s], model[row, :s] = slate.rewards, slate.probabilities, slate.mean[:s]
        target[row, :s], best[row, :s] = logged_choice(slate)
        if rollouts:
            wanted = greedy_slate(slate.mean, s, rng)
            here[row, :s] = wanted == np.arange(s)
            simulated = logging_marginals(slate.mean, slate.bonus, wanted, slate.exploration, rollouts, rng)
            # What did happen counts as one more rollout, so that nothing that was shown had no chance.
            there[row, :s] = np.where(
                here[row, :s] > 0, (rollouts * simulated + slate.probabilities) / (rollouts + 1), simulated
            )
    return SlateLog(
        users=np.array([codes[slate.user] for slate in slates], dtype=np.int64),
        present=present,
        rewards=rewards,
        target=target,
        logging=logging,
        model=model,
        model_target=best,
        target_marginal=here if rollouts else None,
        logging_marginal=there if rollouts else None,
    )
