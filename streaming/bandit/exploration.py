"""Choosing a slate, and knowing exactly how probable each choice was.

Slots are filled one after the other. With probability 1 - share a slot exploits: it takes the candidate of the
highest mean. With probability share it explores: it draws uniformly among the top_k candidates left by mean + bonus
(the randomisation of Online Matching that spreads traffic while feedback is on its way). Ties are broken uniformly,
at the boundary of the top_k too, and the probability logged for a slot is the marginal over the coin and the ties,
given the slots before it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class Slate(NamedTuple):
    """Indexes into the candidates."""

    shown: Int64  # (slots,) in position order
    probabilities: Float64  # (slots,) of each shown item at its position, given the slots before it
    explored: Int64  # (m,) the rest of the exploration set: what had a chance of being shown, or is greedy, and was not


def choose_slate(
    mean: Float64, bonus: Float64, slate_size: int, top_k: int, share: float, rng: np.random.Generator
) -> Slate:
    """Fills min(slate_size, n) slots from n candidates with mean (n,) and bonus (n,). share = 0 is the greedy
    policy."""
    n = len(mean)
    slots = min(slate_size, n)
    upper = mean + bonus
    shown, probabilities = np.empty(slots, dtype=np.int64), np.empty(slots)
    chance = np.zeros(n, dtype=bool)
    left = np.ones(n, dtype=bool)
    by_mean, by_upper = np.argsort(-mean, kind="stable"), np.argsort(-upper, kind="stable")
    for slot in range(slots):
        p = slot_probabilities(mean, upper, left, by_mean, by_upper, top_k, share)
        support = np.flatnonzero(p)
        point = int(np.searchsorted(np.cumsum(p[support]), rng.random(), side="right"))
        chosen = int(support[min(point, len(support) - 1)])  # rounding may leave the last sum below 1
        chance[support] = True
        shown[slot], probabilities[slot] = chosen, p[chosen]
        left[chosen] = False
    chance[by_mean[:slots]] = True  # the greedy slate: to evaluate that policy is what the set is logged for
    chance[shown] = False
    return Slate(shown, probabilities, np.flatnonzero(chance))


def slot_probabilities(
    mean: Float64, upper: Float64, left: NDArray[np.bool_], by_mean: Int64, by_upper: Int64, top_k: int, share: float
) -> Float64:
    """(n,) the chance of each candidate to fill the next slot. left (n,): not shown yet; by_mean, by_upper (n,):
    candidates in descending order of mean and of mean + bonus."""
    p = np.zeros(len(mean))
    if share < 1:
        ranked = by_mean[left[by_mean]]
        best = ranked[mean[ranked] == mean[ranked[0]]]
        p[best] += (1 - share) / len(best)
    if share > 0:
        ranked = by_upper[left[by_upper]]
        k = min(top_k, len(ranked))
        boundary = upper[ranked[k - 1]]
        inside, tied = ranked[upper[ranked] > boundary], ranked[upper[ranked] == boundary]
        p[inside] += share / k
        p[tied] += share * (k - len(inside)) / len(tied) / k
    return p
