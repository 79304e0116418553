"""Item-to-item lists of a release, and what they recommend for what a user liked.

The lists of the newest liked items are united by summed scores, and a scorer says of every pair of trigger and target
how likely somebody goes from one to the other (PI2I, arXiv 2601.16815). Training takes its negatives from the same
pairs, so the scorer learns on exactly what it is asked about.
"""

import math
from pathlib import Path
from typing import NamedTuple, Protocol

import numba
import numpy as np

from feature_store.arrays import Bool, Float32, Int32, Int64
from feature_store.contracts.errors import ReleaseRefused
from online_serving.largest import largest
from online_serving.release_files import LIST_ITEMS, LIST_SCORES, mapped

TRIGGERS = 20  # newest liked items whose lists are united
FADING = 0.8  # what the list of a trigger counts, relative to that of the trigger after it
TARGETS = 500  # items that are scored
CROSS = 6  # numbers that go with a pair
TOTAL = 0  # which of them is the logarithm of the target's summed scores

_PLACE = np.int64(0xFFFFF)  # bits of a place among the items of all lists


class Pairs(NamedTuple):
    """n items to go to, those with the largest sum of scores first, and each one's way there: trigger (n,) is the place
    of the trigger that says most for it, 0 for the newest; target (n,) its position; cross (n, CROSS): ln of the sum
    over triggers of FADING^place times the score, ln of the pair's own part of it, ln(1 + the rank in the list),
    ln(1 + place), how many triggers name the target, and ln(1 + the row)."""

    trigger: Int64
    target: Int64
    cross: Float32


class PairScores(Protocol):
    """The scorer: logits (1, P) of P pairs of one user.

    triggers (1, TRIGGERS, d) vectors, newest first, zeros beyond the first length (1,); user (1, d); trigger (1, P);
    target (1, P, d) vectors; cross (1, P, CROSS).
    """

    def __call__(
        self, triggers: Float32, length: Int64, user: Float32, trigger: Int64, target: Float32, cross: Float32
    ) -> Float32: ...


class ItemLists:
    """items (I, T): positions of each item's neighbours, best first, -1 beyond their end; scores (I, T) > 0."""

    def __init__(self, items: Int32, scores: Float32) -> None:
        self.items, self.scores = items, scores
        self._log1p = np.log1p(np.arange(max(items.shape[1], TARGETS), dtype=np.float32))

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def load(cls, directory: Path, items: int) -> "ItemLists | None":
        """The lists of a release with so many items, mapped into memory; None if the release has none. Raises
        ReleaseRefused if they are of other items."""
        if not (directory / LIST_ITEMS).is_file():
            return None
        arrays = [mapped(directory / name) for name in (LIST_ITEMS, LIST_SCORES)]
        if arrays[0].shape != arrays[1].shape or len(arrays[0]) != items:
            raise ReleaseRefused(
                f"{directory} has {items} items, but lists of shape {arrays[0].shape} and scores of {arrays[1].shape}. "
                "Train again."
            )
        return cls(*arrays)

    def cut(self, length: int) -> "ItemLists":
        """The lists up to that length."""
        return ItemLists(self.items[:, :length], self.scores[:, :length])

    def save(self, directory: Path) -> None:
        """Writes them into the directory."""
        np.save(directory / LIST_ITEMS, self.items, allow_pickle=False)
        np.save(directory / LIST_SCORES, self.scores, allow_pickle=False)

    def triggers(self, liked: Int64) -> Int64:
        """The newest TRIGGERS of the liked items (k,), newest first, that have a list; each once."""
        known = dict.fromkeys(j for j in liked.tolist() if j < len(self))
        return np.array(list(known)[:TRIGGERS], dtype=np.int64)

    def pairs(self, triggers: Int64, allowed: Bool) -> Pairs:
        """The TARGETS best of the allowed items that the lists of the triggers (k,) name. allowed: (I,) or longer."""
        fading = FADING ** np.arange(len(triggers), dtype=np.float32)
        return Pairs(*_pairs(self.items, self.scores, triggers, fading, allowed, self._log1p))

    def recommend(
        self, scorer: PairScores, vectors: Float32, user: Float32, liked: Int64, allowed: Bool, count: int
    ) -> Int64:
        """At most `count` allowed items of the lists of what was liked (k,), newest first: best first. vectors (I, d)
        or longer; user (d,)."""
        triggers = self.triggers(liked)
        pairs = self.pairs(triggers, allowed)
        if not len(pairs.target):
            return pairs.target
        past = np.zeros((1, TRIGGERS, len(user)), np.float32)
        past[0, : len(triggers)] = vectors.take(triggers, axis=0)
        length = np.array([len(triggers)])
        target = vectors.take(pairs.target, axis=0)[None]
        scores = scorer(past, length, user[None], pairs.trigger[None], target, pairs.cross[None])[0]
        best: Int64 = pairs.target[largest(scores, count)]
        return best


@numba.njit(cache=True, nogil=True)
def _pairs(items, scores, triggers, fading, allowed, log1p):  # type: ignore[no-untyped-def]  # numba infers it
    """ItemLists.pairs; fading (k,): what the lists of the triggers (k,) count."""
    length, room = items.shape[1], 2
    while room < 2 * len(triggers) * length:
        room *= 2
    slots = np.full(room, -1, np.int32)  # a hash table by open addressing, as streaming.bandit.lookup's
    total, found, named = np.zeros(room // 2), np.empty(room // 2, np.int64), np.zeros(room // 2, np.int64)
    best, pair = np.empty(room // 2, np.float32), np.empty(room // 2, np.int64)  # the strongest: place * length + rank
    count = 0
    for place in range(len(triggers)):
        for rank in range(length):
            item = items[triggers[place], rank]
            if item < 0 or not allowed[item]:
                continue
            part = scores[triggers[place], rank] * fading[place]
            at = (item * 0x9E3779B1) & (room - 1)
            while slots[at] >= 0 and found[slots[at]] != item:
                at = (at + 1) & (room - 1)
            i = slots[at]
            if i < 0:
                i = slots[at] = count
                found[i], best[i] = item, -1.0
                count += 1
            total[i] += part
            named[i] += 1
            if part > best[i]:
                best[i], pair[i] = part, place * length + rank
    order = _largest(total[:count], found[:count], TARGETS)
    trigger, target = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    cross = np.empty((len(order), CROSS), np.float32)
    for row in range(len(order)):
        i = order[row]
        place, rank = pair[i] // length, pair[i] % length
        trigger[row], target[row] = place, found[i]
        cross[row, 0], cross[row, 1] = math.log(total[i]), math.log(best[i])
        cross[row, 2], cross[row, 3] = log1p[rank], log1p[place]
        cross[row, 4], cross[row, 5] = named[i], log1p[row]
    return trigger, target, cross


@numba.njit(cache=True, nogil=True)
def _largest(total, found, most):  # type: ignore[no-untyped-def]  # numba infers it
    """Places of the largest sums (n,), at most so many, largest first, of equals the one with the first item. Puts no
    others in order."""
    # Numbers above 0 are in the order of their bits, of which the lowest ones make room for the place.
    keys = (total.view(np.int64) & ~_PLACE) | np.arange(len(total))
    if len(keys) > most:
        keys = keys[keys >= np.partition(keys, len(keys) - most)[len(keys) - most] & ~_PLACE]
    among = np.sort(keys)[::-1] & _PLACE
    for place in range(1, len(among)):  # what only the lowest bits tell apart
        one, at = among[place], place
        while at and _before(total, found, one, among[at - 1]):
            among[at] = among[at - 1]
            at -= 1
        among[at] = one
    return among[:most]


@numba.njit(cache=True, inline="always")
def _before(total, found, one, other):  # type: ignore[no-untyped-def]  # numba infers it
    return total[one] > total[other] or (total[one] == total[other] and found[one] < found[other])
