"""Choosing a slate, and knowing exactly how probable each choice was.

Slots are filled one after the other. With probability 1 - share a slot exploits: it takes the candidate of the
highest mean. With probability share it explores: it draws uniformly among the top_k candidates left by mean + bonus
(the randomisation of Online Matching that spreads traffic while feedback is on its way), out of those whose bonus is
above 0: the others have nothing to be learnt about. Where none of these is left, the slot exploits. Ties are broken
uniformly, at the boundary of the top_k too, and the probability logged for a slot is the marginal over the coin and the
ties, given the slots before it. The kernel is compiled, and its test holds the plain NumPy form of this law.
"""

from typing import NamedTuple

import numba
import numpy as np

from feature_store.arrays import Float64, Int64


class Exploration(NamedTuple):
    """How an exploring policy fills a slot."""

    top_k: int
    share: float  # 0: greedy


class Slate(NamedTuple):
    """Indexes into the candidates."""

    shown: Int64  # (slots,) in position order
    probabilities: Float64  # (slots,) of each shown item at its position, given the slots before it
    explored: Int64  # (m,) the rest of the exploration set: what had a chance of being shown, or is greedy, and was not
    # With rules among the items (ruled_slates.py) what greedy does under them, given the slots before; None: without.
    greedy: Float64 | None = None  # (slots,) its chance of the same item
    greedy_mean: Float64 | None = None  # (slots,) the mean of what it takes


def choose_slate(
    mean: Float64, bonus: Float64, slate_size: int, top_k: int, share: float, rng: np.random.Generator
) -> Slate:
    """Fills min(slate_size, n) slots from n candidates with mean (n,) and bonus (n,), at least 0. share = 0 is the
    greedy policy."""
    slots = min(slate_size, len(mean))
    shown, probabilities = np.empty(slots, dtype=np.int64), np.empty(slots)
    chance = np.zeros(len(mean), dtype=np.bool_)
    _fill(mean, bonus, top_k, share, rng.random(slots), shown, probabilities, chance)
    return Slate(shown, probabilities, np.flatnonzero(chance))


def slate_chances(mean: Float64, bonus: Float64, slate: Int64, exploration: Exploration) -> Float64:
    """(s, n) the chance that choose_slate puts each of the n candidates into each of s slots, given that the slots
    before were filled by `slate`: (s,) candidates, or -1 for something that is none of them."""
    chances = np.zeros((len(slate), len(mean)))
    _chances(mean, bonus, slate, exploration.top_k, exploration.share, chances)
    return chances


@numba.njit(cache=True)
def _chances(mean, bonus, slate, top_k, budget, chances):  # type: ignore[no-untyped-def]  # numba infers it
    slots = len(slate)
    left, explorable = np.ones(len(mean), dtype=np.bool_), bonus > 0
    upper = np.where(explorable, mean + bonus, -np.inf)
    by_mean, by_upper = highest(mean, slots), highest(upper, slots - 1 + top_k)
    members = np.empty(len(mean), dtype=np.int64)
    for slot in range(slots):
        explore = top_of(by_upper, upper, explorable, top_k, members)
        share = budget if explore[2] > 0 else 0.0
        _spread(explore, members, share, chances[slot])
        exploit = top_of(by_mean, mean, left, 1, members)
        _spread(exploit, members, 1 - share, chances[slot])
        if slate[slot] >= 0:
            left[slate[slot]] = explorable[slate[slot]] = False


@numba.njit(cache=True)
def _spread(top, members, weight, chances):  # type: ignore[no-untyped-def]  # numba infers it
    """Adds the chance that _place_of takes each member, times a weight."""
    k, inside, found = top
    for place in range(found):
        chances[members[place]] += weight * (1.0 / k if place < inside else (k - inside) / ((found - inside) * k))


@numba.njit(cache=True)
def _fill(mean, bonus, top_k, budget, uniform, shown, probabilities, chance):  # type: ignore[no-untyped-def]  # numba infers it
    slots = len(shown)
    left, explorable = np.ones(len(mean), dtype=np.bool_), bonus > 0
    upper = np.where(explorable, mean + bonus, -np.inf)
    by_mean, by_upper = highest(mean, slots), highest(upper, slots - 1 + top_k)
    best, top = np.empty(len(mean), dtype=np.int64), np.empty(len(mean), dtype=np.int64)
    for slot in range(slots):
        # Exploiting is drawing among the top 1 by mean, exploring among the top k by mean + bonus.
        exploit = top_of(by_mean, mean, left, 1, best)
        explore = top_of(by_upper, upper, explorable, top_k, top)
        share = budget if explore[2] > 0 else 0.0
        if share < 1:
            chance[best[: exploit[2]]] = True
        if share > 0:
            chance[top[: explore[2]]] = True
        chosen = drawn(exploit, best, explore, top, share, uniform[slot])
        shown[slot] = chosen
        probabilities[slot] = (1 - share) * chance_of(exploit, best, chosen) + share * chance_of(explore, top, chosen)
        left[chosen] = explorable[chosen] = False
    chance[by_mean[:slots]] = True  # the greedy slate: to evaluate that policy is what the set is logged for
    chance[shown] = False


@numba.njit(cache=True)
def highest(values, count):  # type: ignore[no-untyped-def]  # numba infers it
    """Indexes of the `count` highest values and of all that tie with the last of them: descending, ties ascending."""
    count = min(count, len(values))
    order = np.empty(len(values), dtype=np.int64)
    if count == 0:
        return order[:0]
    found = 0
    for i in range(len(values)):
        if found == count and values[i] <= values[order[count - 1]]:
            continue
        found = min(found + 1, count)
        at = found - 1
        while at > 0 and values[order[at - 1]] < values[i]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = i
    # An equal that found no place comes after those that did.
    for i in range(order[count - 1] + 1, len(values)):
        if values[i] == values[order[count - 1]]:
            order[found] = i
            found += 1
    return order[:found]


@numba.njit(cache=True)
def top_of(order, values, left, k, members):  # type: ignore[no-untyped-def]  # numba infers it
    """Fills members with the top k of what is left, ties at the boundary included. Returns (k or how many are left,
    members above the boundary, members)."""
    found = 0
    for i in order:
        if left[i]:
            if found >= k and values[i] < values[members[k - 1]]:
                break
            members[found] = i
            found += 1
    k = min(k, found)
    inside = 0
    if found == 0:
        return k, inside, found
    while values[members[inside]] > values[members[k - 1]]:
        inside += 1
    return k, inside, found


@numba.njit(cache=True)
def drawn(exploit, best, explore, top, share, u):  # type: ignore[no-untyped-def]  # numba infers it
    """What fills a slot, by u uniform in [0, 1): one to explore with the chance `share`, else one to exploit."""
    if u < 1 - share:
        return best[_place_of(exploit, u / (1 - share))]
    return top[_place_of(explore, (u - (1 - share)) / share)]


@numba.njit(cache=True)
def _place_of(top, u):  # type: ignore[no-untyped-def]  # numba infers it
    """A place among the members, by u uniform in [0, 1): each one above the boundary has the chance 1/k, those at it
    share the rest."""
    k, inside, members = top
    if u * k < inside:
        return int(u * k)
    return min(inside + int((u * k - inside) / (k - inside) * (members - inside)), members - 1)


@numba.njit(cache=True)
def chance_of(top, members, chosen):  # type: ignore[no-untyped-def]  # numba infers it
    """The chance that _place_of takes a candidate."""
    k, inside, found = top
    for place in range(found):
        if members[place] == chosen:
            return 1.0 / k if place < inside else (k - inside) / ((found - inside) * k)
    return 0.0
