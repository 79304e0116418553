"""Arms: policies that play the same world, each in a copy of its own."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.pay.release import Prepared
from feature_store.arrays import Float64, Int64
from feature_store.definitions import ITEM_FEATURES, RECENT_POPULARITY
from online_serving.settings import ServingSettings
from streaming.settings import BanditMode, BanditSettings

# (predictions (n,) of candidates (n,), the candidates' item numbers) -> scores (n,) in [0, 1] that stand in their place
Rescore = Callable[[Float64, Int64], Float64]
_EVERYTHING = ServingSettings(candidates=1_000_000, cluster_candidates=0, list_candidates=0, fresh_candidates=0)
_OFF = BanditSettings(mode=BanditMode.OFF)
_NO_BONUS = 1e-9  # above 0, so that everything may be explored, and too small to change an order


class Arm(NamedTuple):
    """A policy. order: (world, number of its set of tastes) -> what the candidates are scored by in place of the
    ranker's predictions."""

    name: str
    bandit: BanditSettings = BanditSettings()
    serving: ServingSettings = ServingSettings()
    learns: bool = True
    order: Callable[[Prepared, int], Rescore] | None = None


def by_recent_popularity(prepared: Prepared, tastes: int) -> Rescore:
    """How many liked an item in the last days before the release was made; nobody has liked a new one."""
    del tastes
    lately = prepared.snapshots[-1].item_features[:, ITEM_FEATURES.index(RECENT_POPULARITY)].astype(np.float64)
    return lambda _, items: lately[items] / max(1.0, lately.max())


def by_true_level(prepared: Prepared, tastes: int) -> Rescore:
    """The prediction times what the item truly earns over what is predicted of it, over all visitors alike: everything
    that can be known of items, and nothing of users."""
    level = prepared.world.likes[tastes].sum(axis=0, dtype=np.float64) / prepared.predicted.sum(axis=0)
    return lambda predicted, items: predicted * level[items] / level.max()


FROZEN = Arm("frozen", _OFF)
COIN = Arm("coin", BanditSettings(alpha=_NO_BONUS, graduation_trials=0, new_item_quantile=0.5), learns=False)
GREEDY = Arm("greedy", BanditSettings(mode=BanditMode.GREEDY))
DEFAULT = Arm("default")
POPULARITY = Arm("recent-popularity", _OFF, serving=_EVERYTHING, order=by_recent_popularity)
ORACLE = Arm("item-oracle", _OFF, order=by_true_level)

# frozen: the release alone. coin: its order with the shipped share of exploration, and nothing learnt. greedy, default:
# what is shipped, without and with exploration.
ARMS = (FROZEN, COIN, GREEDY, DEFAULT, POPULARITY, ORACLE)
