"""Jester: few items, which everybody has an opinion on."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.pay.world import TURNS, WITHHELD_SHARE, World, arriving
from benchmarks.regret.world import source
from benchmarks.retrieval.datasets import Dataset
from feature_store.contracts.catalogue import Item
from feature_store.definitions import DAY_MS
from offline_training.evaluation.baselines import Interactions

LIKED = 5.0  # ratings above it, of -10..10
VISITORS, OTHERS, SLATE, REMEMBERED = 250, 1_000, 3, 10
_DAYS = 30


def jester(data: Path, name: str, half: int) -> World:
    """100 jokes, of which 15 are new, and 250 of the people who rated all of them: the even ones or the odd ones. The
    past holds the ratings of 1,000 who did not, and ten ratings each of half of the visitors, in a random order."""
    table = pq.read_table(source(data, "jester5k", "ratings.parquet"))
    rng = np.random.default_rng([half, 13])
    full = table["fully_observed_user"].to_numpy()
    users, user = np.unique(table["user_id"].to_numpy(), return_inverse=True)
    jokes, joke = np.unique(table["item_id"].to_numpy(), return_inverse=True)
    liked = table["rating"].to_numpy() > LIKED
    number = rng.permutation(len(jokes))  # the last ones are new
    joke, old = number[joke], len(jokes) - int(WITHHELD_SHARE * len(jokes))
    visitors = np.sort(rng.permutation(np.unique(user[full])[half::2])[:VISITORS])
    likes = np.zeros((len(users), len(jokes)), np.float32)
    likes[user, joke] = liked

    others = np.isin(user, rng.permutation(np.unique(user[~full]))[:OTHERS])
    remembered = np.isin(user, visitors[::2]) & (rng.random(len(user)) < REMEMBERED / len(jokes))
    kept = np.flatnonzero((others | remembered) & (joke < old))
    time = rng.integers(0, _DAYS * DAY_MS, len(kept))
    order = np.lexsort((joke[kept], time, user[kept]))
    kept, time = kept[order], time[order]
    items = [Item(id=f"joke{k:03d}") for k in range(len(jokes))]
    return World(
        name=name,
        past=Dataset(
            log=Interactions(user[kept], joke[kept], time, len(users), old),
            kinds=np.where(liked[kept], "rating+", "rating-"),
            positive=liked[kept],
            items=items[:old],
            profiles=[[] for _ in users],
        ),
        moment=_DAYS * DAY_MS,
        visitors=visitors,
        newcomers=arriving(items[old:]),
        likes=likes[visitors][None],
        tastes=np.zeros(TURNS, np.int64),
        slate=SLATE,
        seen=(1.0,) * SLATE,
    )
