"""Item-to-item lists of a release, and what they recommend for what a user liked.

The lists of the newest liked items are united by summed scores, and a scorer says of every pair of trigger and target
how likely somebody goes from one to the other (PI2I, arXiv 2601.16815). Training takes its negatives from the same
pairs, so the scorer learns on exactly what it is asked about.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from feature_store.arrays import Bool, Float32, Int32, Int64
from feature_store.contracts.errors import ReleaseRefused
from online_serving.release_files import LIST_ITEMS, LIST_SCORES

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
    """The scorer: logits (B, P) of P pairs each of B users.

    triggers (B, TRIGGERS, d) vectors, newest first, zeros beyond the first length (B,); user (B, d); trigger (B, P);
    target (B, P, d) vectors; cross (B, P, CROSS).
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
        arrays = [np.load(directory / name, mmap_mode="r", allow_pickle=False) for name in (LIST_ITEMS, LIST_SCORES)]
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
        known = liked[liked < len(self)]
        _, first = np.unique(known, return_index=True)
        newest: Int64 = known[np.sort(first)[:TRIGGERS]]
        return newest

    def pairs(self, triggers: Int64, allowed: Bool) -> Pairs:
        """The TARGETS best of the allowed items that the lists of the triggers (k,) name. allowed: (I,) or longer."""
        items, scores = self.items[triggers], self.scores[triggers]
        parts = scores * (FADING ** np.arange(len(triggers), dtype=np.float32))[:, None]
        offered = np.flatnonzero((items >= 0) & allowed[items])
        offered = offered[np.argsort(-parts.ravel()[offered], kind="stable")]
        found, best, number = np.unique(items.ravel()[offered], return_index=True, return_inverse=True)
        total, named = np.bincount(number, parts.ravel()[offered]), np.bincount(number)
        order = np.argsort(-total, kind="stable")[:TARGETS]
        pair = offered[best[order]]
        trigger, rank = np.divmod(pair, items.shape[1])
        columns = [np.log(total[order]), np.log(parts.ravel()[pair]), np.log1p(rank), np.log1p(trigger), named[order]]
        cross = np.stack([*columns, np.log1p(np.arange(len(order)))], axis=1).astype(np.float32)
        return Pairs(trigger, found[order].astype(np.int64), cross)

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
        past[0, : len(triggers)] = vectors[triggers]
        length = np.array([len(triggers)])
        target = vectors[pairs.target][None]
        scores = scorer(past, length, user[None], pairs.trigger[None], target, pairs.cross[None])[0]
        best: Int64 = pairs.target[np.argsort(-scores, kind="stable")[:count]]
        return best
