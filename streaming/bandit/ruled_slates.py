"""Choosing a slate whose items look at each other: at most so many of a kind, and no two too much alike.

The law is that of exploration.py, slot by slot, with two additions. What belongs to a group that is full is left out
of the slots behind, as if it were not there. And where diversity lambda is asked for, a slot compares values that fall
with how alike an item is to what the slate has already (maximal marginal relevance, Carbonell and Goldstein, SIGIR
1998, by factors in place of sums, so that it needs no scale of its own):

    value_i = x_i - lambda max(0, max_j cos(v_i, v_j)) |x_i|,   x the mean, or mean + bonus;  j in the slate so far

Both are known before a slot is drawn, so the logged probability is as exact as without them: the marginal over the
coin and the ties, given the slots before. Items that are pinned into the slate are no candidates; they take room and
count as alike from the beginning, wherever they stand.
"""

from typing import NamedTuple

import numba
import numpy as np

from feature_store.arrays import Float32, Float64, Int64
from streaming.bandit.exploration import Exploration, Slate, chance_of, drawn, highest, top_of


class SlateRules(NamedTuple):
    """What holds among the items of a slate of n candidates."""

    pinned: Int64  # (p,) candidates that are in the slate whatever is drawn
    start: Int64  # (n + 1,) where each candidate's groups begin ...
    groups: Int64  # ... here
    room: Int64  # (g,) how many items the slate may have of each group
    diversity: float  # lambda, in [0, 1]
    vectors: Float32  # (n, d) of unit length; (n, 0) without diversity


def choose_ruled_slate(
    mean: Float64, bonus: Float64, slate_size: int, law: Exploration, rules: SlateRules, rng: np.random.Generator
) -> Slate:
    """Fills up to slate_size slots as choose_slate does, but with nothing that is pinned, and fewer where the rules
    leave nothing."""
    slots = min(slate_size, len(mean))
    shown, chance = np.empty(slots, np.int64), np.zeros(len(mean), np.bool_)
    probabilities, greedy, greedy_mean = np.empty(slots), np.empty(slots), np.empty(slots)
    filled = _fill(
        mean, bonus, law.top_k, law.share, rng.random(slots), *rules, shown, probabilities, greedy, greedy_mean, chance
    )
    explored = np.flatnonzero(chance)
    return Slate(shown[:filled], probabilities[:filled], explored, greedy[:filled], greedy_mean[:filled])


@numba.njit(cache=True)
def _fill(  # type: ignore[no-untyped-def]  # numba infers the types from the arrays
    mean, bonus, top_k, budget, uniform, pinned, start, groups, room, diversity, vectors,
    shown, probabilities, greedy, greedy_mean, chance,
):  # fmt: skip
    n = len(mean)
    left, explorable, alike, room = np.ones(n, np.bool_), bonus > 0, np.zeros(n), room.copy()
    values, upper = np.empty(n), np.empty(n)
    best, top = np.empty(n, np.int64), np.empty(n, np.int64)
    for item in pinned:
        _put(item, left, alike, start, groups, room, diversity, vectors)
    _close(left, start, groups, room)
    slots = len(shown)
    for slot in range(slots):
        for i in range(n):
            explorable[i] &= left[i]
            lost = diversity * alike[i]
            values[i] = mean[i] - lost * abs(mean[i]) if left[i] else -np.inf
            bound = mean[i] + bonus[i]
            upper[i] = bound - lost * abs(bound) if explorable[i] else -np.inf
        exploit = top_of(highest(values, 1), values, left, 1, best)
        if exploit[2] == 0:
            slots = slot
            break
        explore = top_of(highest(upper, top_k), upper, explorable, top_k, top)
        share = budget if explore[2] > 0 else 0.0
        chance[best[: exploit[2]]] = True
        if share > 0:
            chance[top[: explore[2]]] = True
        chosen = drawn(exploit, best, explore, top, share, uniform[slot])
        shown[slot], greedy[slot] = chosen, chance_of(exploit, best, chosen)
        probabilities[slot] = (1 - share) * greedy[slot] + share * chance_of(explore, top, chosen)
        greedy_mean[slot] = mean[best[: exploit[2]]].mean()
        _put(chosen, left, alike, start, groups, room, diversity, vectors)
        _close(left, start, groups, room)
    chance[shown[:slots]] = False
    return slots


@numba.njit(cache=True)
def _put(item, left, alike, start, groups, room, diversity, vectors):  # type: ignore[no-untyped-def]  # numba infers it
    """Notes that an item is in the slate."""
    left[item] = False
    for group in groups[start[item] : start[item + 1]]:
        room[group] -= 1
    if diversity > 0:
        for i in range(len(left)):
            cosine = 0.0
            for k in range(vectors.shape[1]):
                cosine += vectors[i, k] * vectors[item, k]
            alike[i] = max(alike[i], min(cosine, 1.0))


@numba.njit(cache=True)
def _close(left, start, groups, room):  # type: ignore[no-untyped-def]  # numba infers it
    """Leaves out what a full group has."""
    for i in range(len(left)):
        if left[i]:
            for group in groups[start[i] : start[i + 1]]:
                if room[group] <= 0:
                    left[i] = False
                    break
