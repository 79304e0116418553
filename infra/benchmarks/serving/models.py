"""Models of the shipped form and size, untrained, and item lists: what they compute costs what a trained one costs."""

from pathlib import Path

import numpy as np
import torch

from feature_store.arrays import Int64
from feature_store.definitions import ITEM_TOKENS
from offline_training.ranking.model import AFFINITY, REWARD, Form, Ranker
from offline_training.release.export import export_ranker, export_scorer, export_towers
from offline_training.retrieval.pi2i.scorer import PairScorer
from offline_training.retrieval.two_tower import TwoTower
from offline_training.settings import TrainingSettings
from online_serving.item_lists import ItemLists

LIST_LENGTH = 100
_ROWS_AT_ONCE = 100_000
_SKEW = 3  # of a uniform number's power: the first hundredth of the items is named by a fifth of all
_CHANCE = -3.0  # log-odds of a reward


def write_models(directory: Path, items: int, training: TrainingSettings, seed: int) -> None:
    """Writes towers, ranker, lists and scorer for so many items."""
    torch.manual_seed(seed)
    with torch.no_grad():
        export_towers(TwoTower(np.zeros((items, ITEM_TOKENS), np.int64), training), directory)
        ranker = Ranker(training.dimensions, Form.PRODUCTS)
        ranker.heads.bias[REWARD] = _CHANCE
        ranker.heads.weight[REWARD, AFFINITY] = 1.0
        export_ranker(ranker, training.dimensions, directory)
        export_scorer(PairScorer(training.dimensions), training.dimensions, directory)
    _lists(items, np.random.default_rng(seed)).save(directory)


def skewed(rng: np.random.Generator, items: int, shape: tuple[int, ...]) -> Int64:
    """Positions of items, the first of them far more often than the last."""
    drawn: Int64 = (items * rng.random(shape, np.float32) ** _SKEW).astype(np.int64)
    return drawn


def _lists(items: int, rng: np.random.Generator) -> ItemLists:
    neighbours = np.empty((items, LIST_LENGTH), np.int32)
    for first in range(0, items, _ROWS_AT_ONCE):
        part = neighbours[first : first + _ROWS_AT_ONCE]
        part[:] = skewed(rng, items, part.shape)
    scores = np.tile(np.geomspace(1.0, 0.02, LIST_LENGTH, dtype=np.float32), (items, 1))
    return ItemLists(neighbours, scores)
