"""From training data to trained models: towers, ranker, towers again."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from feature_store.arrays import Int64
from offline_training.evaluation.holdout import evaluate_retrieval
from offline_training.progress import Progress, section
from offline_training.ranking.dataset import RankerRows, ranker_rows
from offline_training.ranking.training import FittedRanker, fit_ranker
from offline_training.retrieval.dataset import Catalogue
from offline_training.retrieval.pi2i.build import PersonalLists, personal_lists
from offline_training.retrieval.pi2i.moments import moments
from offline_training.retrieval.sequences import Sequences
from offline_training.retrieval.training import Fitted, finish_two_tower, fit_two_tower
from offline_training.retrieval.two_tower import TwoTower
from offline_training.settings import TrainingSettings
from offline_training.training_data import TrainingData

State = dict[str, Any]  # tensors, numbers and texts, as torch.load reads them with weights_only
Keep = Callable[[str, Callable[[], State]], State]
"""Gives what the function gives, or what it gave in an earlier try under that name."""


def at_once(_: str, make: Callable[[], State]) -> State:
    """A Keep that keeps nothing."""
    return make()


@dataclass(frozen=True)
class Trained:
    """Models and the data they were trained on. metrics: `validation_*`, `ranker_*`, `retrieval_auc`, sizes, and
    `recent_days`."""

    catalogue: Catalogue
    sequences: Sequences
    two_tower: TwoTower
    ranker: FittedRanker
    losses: list[float]
    metrics: dict[str, float]
    lists: PersonalLists | None = None


@dataclass(frozen=True)
class Halfway:
    """Towers that know the first before[u] events of each user u (before the validation window), and the rows that
    these make of the window for the ranker: made when they are first asked for."""

    towers: Fitted
    before: Int64
    rows: Callable[[], RankerRows]


def train_models(
    data: TrainingData,
    checkpoints: Path,
    settings: TrainingSettings,
    progress: Progress,
    keep: Keep = at_once,
    start: State | None = None,
) -> Trained:
    """The towers are first trained on what came before the validation window. With their vectors, and item features of
    then, the ranker learns from the window, as it will serve: on vectors that do not know the answer. Then the towers
    take the window in.

    start: what towers and ranker begin as (warm_start.warm_start), None: nothing. checkpoints: a folder; a training
    that was killed goes on from what it holds. keep: is given the state of each model when it is done, `towers`,
    `ranker`, `lists` and `newest`. Raises InvalidInput if there is too little to learn from.
    """
    halfway = train_until_validation(data, checkpoints, settings, section(progress, 0.0, 0.65), keep, start)
    return finish_training(data, halfway, settings, section(progress, 0.65, 1.0), keep, start)


def train_until_validation(
    data: TrainingData,
    checkpoints: Path,
    settings: TrainingSettings,
    progress: Progress,
    keep: Keep = at_once,
    start: State | None = None,
) -> Halfway:
    """The first step of train_models: everything that must not know the validation window's outcomes."""
    before = data.sequences.before(data.validation_time)
    fitting = section(progress, 0.0, 0.9)

    def trained() -> State:
        towers = None if start is None else start["towers"]
        shown = data.impressions.before(data.validation_time)
        fitted = fit_two_tower(
            data.catalogue, data.sequences, before, settings, fitting, checkpoints, towers, impressions=shown
        )
        return fitted.state()

    towers = Fitted.of(keep("towers", trained), data.catalogue, settings)

    @cache
    def rows() -> RankerRows:
        return ranker_rows(
            towers.model,
            data.catalogue,
            data.features_at_validation,
            data.sequences,
            before,
            data.impressions,
            settings,
            section(progress, 0.9, 1.0),
        )

    return Halfway(towers, before, rows)


def finish_training(
    data: TrainingData,
    halfway: Halfway,
    settings: TrainingSettings,
    progress: Progress,
    keep: Keep = at_once,
    start: State | None = None,
) -> Trained:
    """The second step of train_models. halfway.towers are trained further, in place."""
    towers, before = halfway.towers, halfway.before

    def ranked() -> State:
        quality = evaluate_retrieval(towers.model, data.catalogue, data.sequences, before, towers.recent_days)
        fitted = fit_ranker(halfway.rows(), settings.dimensions, settings, section(progress, 0.0, 0.55), start)
        shown = {"impressions": float(halfway.rows().shown.sum())}
        return fitted.state() | {"of_training": quality | shown}

    def listed() -> State:
        assert data.lists is not None
        window, vectors = moments(towers.model, data.sequences, before), towers.model.item_vectors()
        lists = personal_lists(data.lists, vectors, window, settings, section(progress, 0.55, 0.7))
        return {} if lists is None else lists.state()

    def newest() -> State:
        part = section(progress, 0.7, 1.0)
        return {"model": finish_two_tower(towers, data.sequences, settings, part, data.impressions).state_dict()}

    state = keep("ranker", ranked)
    ranker = FittedRanker.of(state, settings.dimensions)
    lists = None if data.lists is None else PersonalLists.of(keep("lists", listed), data.lists, settings)
    towers.model.load_state_dict(keep("newest", newest)["model"])

    metrics = state["of_training"] | ranker.metrics | (lists.metrics if lists else {})
    metrics |= {
        "examples": float(data.sequences.positive.sum()),
        "users": float(len(data.sequences.users)),
        "items": float(len(data.catalogue.items)),
        "recent_days": towers.recent_days,
    }
    return Trained(data.catalogue, data.sequences, towers.model, ranker, towers.losses, metrics, lists)
