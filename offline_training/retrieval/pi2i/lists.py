"""Reads the item lists that Spark made, and says how long they should be."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds

from offline_training.retrieval.pi2i.moments import Moments
from online_serving.item_lists import ItemLists

KNEE = 0.01  # what doubling the lists must add to the hit rate to be worth it
MEASURED = 3_000  # moments that the hit rate is measured on
AT_VALIDATION, AT_END = "item_lists_at_validation", "item_lists"

# Makes the lists of AT_VALIDATION or AT_END, up to a length; called when they are needed, for they may take gigabytes.
MakeLists = Callable[[str, int], ItemLists]


def read_item_lists(directory: Path, index: Mapping[str, int], length: int) -> ItemLists:
    """Reads `item_lists/` or `item_lists_at_validation/`; items that the index of the catalogue does not hold are left
    out."""
    items = np.full((len(index), length), -1, np.int32)
    scores = np.zeros(items.shape, np.float32)
    for batch in ds.dataset(directory).to_batches():
        entry = np.repeat(np.arange(len(batch)), pc.list_value_length(batch["items"]).to_numpy())
        row = np.array([index.get(name, -1) for name in batch["item"].to_pylist()], np.int64)[entry]
        other = np.array([index.get(name, -1) for name in batch["items"].flatten().to_pylist()], np.int64)
        kept = (row >= 0) & (other >= 0)
        entry = entry[kept]
        place = np.arange(len(entry)) - np.searchsorted(entry, entry)
        fits = place < length
        at = row[kept][fits], place[fits]
        items[at], scores[at] = other[kept][fits], batch["scores"].flatten().to_numpy()[kept][fits]
    return ItemLists(items, scores)


def hit_rates(lists: ItemLists, moments: Moments) -> dict[int, float]:
    """The ceiling of what any scorer can find: by length T = 1, 2, 4, ... the share of moments whose wanted item is
    among those that are scored when lists end after T. Of many moments, at most MEASURED are looked at."""
    width = lists.items.shape[1]
    lengths = [*(1 << k for k in range(width.bit_length()) if 1 << k < width), width]
    some = moments.take(np.arange(len(moments))[:: 1 + len(moments) // MEASURED])
    cut, hits = {length: lists.cut(length) for length in lengths}, dict.fromkeys(lengths, 0)
    for row, allowed in enumerate(some.allowed(len(lists))):
        triggers = lists.triggers(some.liked[row])
        for length in lengths:
            hits[length] += bool((cut[length].pairs(triggers, allowed).target == some.wanted[row]).any())
    return {length: count / max(1, len(some)) for length, count in hits.items()}


def knee(rates: dict[int, float]) -> int:
    """The shortest length from which on doubling never adds KNEE to the hit rate."""
    lengths = sorted(rates)
    gains = np.diff([rates[length] for length in lengths])
    return lengths[int(np.flatnonzero(gains >= KNEE).max(initial=-1)) + 1]
