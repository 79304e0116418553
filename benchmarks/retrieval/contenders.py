"""Who takes part, and the grid that each peer is tuned over on validation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval.datasets import Dataset
from benchmarks.retrieval.item_lists import union_contender
from benchmarks.retrieval.measure import Contender, FittedModel
from benchmarks.retrieval.ours import two_tower
from benchmarks.retrieval.peers import ContentKnn, Ease, GfCf
from benchmarks.retrieval.sequence_peers import Markov, NextItemRidge, SequentialKnn
from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput
from offline_training.data.item_lists import ItemCf
from offline_training.evaluation.baselines import Baseline, ItemKnn, MostPopular, MostPopularLately
from offline_training.settings import TrainingSettings

CONTENT_KNN = "content_knn"
_FALLBACK_DAYS = 14.0

Grid = list[dict[str, Any]]


def contenders(dataset: str, chosen: list[str] | None, folder: Path | None = None) -> list[Contender]:
    """Those that take part on a data set, or the chosen ones of them. folder: see ours.two_tower.

    Raises InvalidInput for a name that is none.
    """
    everybody = [*_PEERS[dataset], *_ours(dataset, folder)]
    names = [one.name for one in everybody]
    if unknown := sorted(set(chosen or []).difference(names)):
        raise InvalidInput(f"No model {unknown[0]!r} takes part on {dataset}. There are: {', '.join(names)}.")
    return [one for one in everybody if chosen is None or one.name in chosen]


def _ours(dataset: str, folder: Path | None) -> list[Contender]:
    """What differs from the defaults was chosen on validation."""
    if dataset == "ml-1m":
        # Leave-last-out asks everybody at a time of their own: no time is newer than the others for all.
        settings = TrainingSettings(
            dimensions=128,
            heads=4,
            dropout=0.3,
            history_length=200,
            epochs=16,
            batch_size=6_400,
            horizon=0,
            drift=False,
            precision="bf16-mixed",
        )
        return [two_tower(settings, folder, ranked=False)]
    if dataset == "ml-100k":
        return [two_tower(TrainingSettings(), folder, ranked=True)]
    if dataset == "gowalla-lightgcn":
        # Share and factors are those of GF-CF as published.
        return [union_contender(ItemCf(), length=1_000, factors=256, share=0.3)]
    return []


def peer(name: str, make: Callable[..., Baseline], grid: Grid | None = None) -> Contender:
    """A recommender that reads what was wanted, of which nothing but the order is known; it answers somebody without a
    past by recent popularity."""

    def fit(dataset: Dataset, train: Int64, seed: int, **parameters: Any) -> FittedModel:
        del seed
        wanted = dataset.log.take(train[dataset.positive[train]])
        model, fallback = make(**parameters).fit(wanted), MostPopularLately(_FALLBACK_DAYS).fit(wanted)

        def score(users: Int64, past: Int64) -> Float64:
            known = dataset.log.take(past[dataset.positive[past]])
            scores = np.array(model.score(users, known))
            new = ~np.isin(users, known.user)
            scores[new] = fallback.score(users[new], known)
            return scores

        return FittedModel({name: score})

    return Contender(name, fit, grid or [{}])


def content_knn(grid: Grid) -> Contender:
    """The peer for items that nobody has met; somebody without a past is taken for everybody at once."""

    def fit(dataset: Dataset, train: Int64, seed: int, **parameters: Any) -> FittedModel:
        del seed
        wanted = dataset.log.take(train[dataset.positive[train]])
        model = ContentKnn([item.tokens() for item in dataset.items], **parameters).fit(wanted)
        popularity = MostPopular().fit(wanted).score(np.zeros(1, np.int64), wanted)

        def score(users: Int64, past: Int64) -> Float64:
            known = dataset.log.take(past[dataset.positive[past]])
            scores = np.array(model.score(users, known))
            scores[~np.isin(users, known.user)] = model.similar(popularity)
            return scores

        return FittedModel({CONTENT_KNN: score})

    return Contender(CONTENT_KNN, fit, grid)


def _als(**parameters: Any) -> Baseline:
    from benchmarks.retrieval.libraries import Als  # of the extra `bench`: asked for only when it takes part

    return Als(**parameters)


def _bpr(**parameters: Any) -> Baseline:
    from benchmarks.retrieval.libraries import Bpr

    return Bpr(**parameters)


def _grid(**values: list[Any]) -> Grid:
    """Every combination."""
    rows: Grid = [{}]
    for name, options in values.items():
        rows = [{**row, name: option} for row in rows for option in options]
    return rows


_PEERS: dict[str, list[Contender]] = {
    "ml-1m": [
        peer("popularity", MostPopular),
        peer("recent_popularity", MostPopularLately, _grid(days=[30.0, 90.0])),
        peer("item_knn", ItemKnn, _grid(neighbours=[100, 4000], newest=[10, 20], decay=[0.5, 0.8])),
        peer("ease", Ease, _grid(ridge=[300.0, 700.0], newest=[20], decay=[0.8, 0.9])),
        peer("implicit_als", _als, _grid(factors=[128], alpha=[1.0, 5.0], newest=[20], decay=[0.8, 0.9])),
        peer("implicit_bpr", _bpr, _grid(factors=[128], rate=[0.01, 0.05])),
        peer("markov", Markov, _grid(smoothing=[1.0, 300.0])),
        peer("sequential_knn", SequentialKnn, _grid(smoothing=[10.0, 30.0], damping=[0.2, 0.3, 0.4])),
        peer("next_item_ridge", NextItemRidge, _grid(ridge=[30.0, 100.0])),
    ],
    "ml-100k": [
        peer("popularity", MostPopular),
        peer("recent_popularity", MostPopularLately, _grid(days=[7.0, 14.0, 28.0])),
        peer("item_knn", ItemKnn, _grid(neighbours=[100, 2000], newest=[10, None], decay=[0.8, 1.0])),
        peer("ease", Ease, _grid(ridge=[100.0, 300.0, 1000.0])),
        peer("implicit_als", _als, _grid(factors=[16, 32, 64], alpha=[1.0, 5.0])),
        peer("implicit_bpr", _bpr, _grid(factors=[32, 64], rate=[0.01, 0.05])),
        peer("markov", Markov, _grid(smoothing=[1.0, 30.0])),
        peer("sequential_knn", SequentialKnn, _grid(smoothing=[10.0, 100.0], damping=[0.0, 0.3])),
        peer("next_item_ridge", NextItemRidge, _grid(ridge=[100.0, 1000.0])),
        peer("gf_cf", GfCf, _grid(alpha=[0.1, 0.3, 1.0], factors=[32])),
        content_knn(_grid(newest=[10, None], decay=[0.8, 1.0])),
    ],
    "gowalla-lightgcn": [
        peer("popularity", MostPopular),
        peer("item_knn", ItemKnn, _grid(neighbours=[50, 200])),
        peer("implicit_als", _als, _grid(factors=[256], alpha=[10.0, 20.0])),
        peer("implicit_bpr", _bpr, _grid(factors=[256], rate=[0.05])),
        peer("gf_cf", GfCf, _grid(alpha=[0.1, 0.3, 0.5], factors=[256])),
    ],
}
