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

from feature_store.arrays import Bool, Float32, Float64, Int32, Int64
from feature_store.contracts.errors import ReleaseRefused
from online_serving.release_files import LIST_ITEMS, LIST_SCORES, mapped

TRIGGERS = 20  # newest liked items whose lists are united
FADING = 0.8  # what the list of a trigger counts, relative to that of the trigger after it
TARGETS = 500  # items that are scored
CROSS = 6  # numbers that go with a pair
TOTAL = 0  # which of them is the logarithm of the target's summed scores


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
        total, found, pair, named = _united(self.items, self.scores, triggers, fading, allowed)
        order = _largest(total, found, TARGETS)
        trigger, rank = np.divmod(pair[order], self.items.shape[1])
        cross = np.empty((len(order), CROSS), np.float32)
        _cross(total[order], self.scores[triggers[trigger], rank] * fading[trigger], rank, trigger, named[order], cross)
        return Pairs(trigger, found[order], cross)

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
        best: Int64 = pairs.target[np.argsort(-scores, kind="stable")[:count]]
        return best


def _largest(total: Float64, found: Int64, count: int) -> Int64:
    """Places of the largest sums (n,), at most `count`, largest first, of equals the one with the first item. Puts no
    others in order."""
    if len(total) <= count:
        return np.lexsort((found, -total))
    among = np.flatnonzero(total >= np.partition(total, -count)[-count])
    largest: Int64 = among[np.lexsort((found[among], -total[among]))[:count]]
    return largest


@numba.njit(cache=True, nogil=True)
def _united(items, scores, triggers, fading, allowed):  # type: ignore[no-untyped-def]  # numba infers it
    """The allowed items that the lists of the triggers (k,) name, in the order in which they are met: the sum of their
    scores by fading (k,), the item, its strongest pair as place of the trigger times list length + rank, and how many
    triggers name it."""
    length, room = items.shape[1], 2
    while room < 2 * len(triggers) * length:
        room *= 2
    slots = np.full(room, -1, np.int32)  # a hash table by open addressing, as streaming.bandit.lookup's
    total, found = np.zeros(room // 2), np.empty(room // 2, np.int64)
    best, pair, named = np.empty(room // 2, np.float32), np.empty(room // 2, np.int64), np.zeros(room // 2, np.int64)
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
    return total[:count], found[:count], pair[:count], named[:count]


@numba.njit(cache=True, nogil=True)
def _cross(total, part, rank, trigger, named, cross):  # type: ignore[no-untyped-def]  # numba infers it
    """Fills Pairs.cross (n, CROSS)."""
    for i in range(len(total)):
        cross[i, 0], cross[i, 1] = math.log(total[i]), math.log(part[i])
        cross[i, 2], cross[i, 3] = math.log1p(rank[i]), math.log1p(trigger[i])
        cross[i, 4], cross[i, 5] = named[i], math.log1p(i)
