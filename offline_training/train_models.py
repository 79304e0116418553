"""From training data to trained models: towers, ranker, towers again."""

from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Trained:
    """Models and the data they were trained on. metrics: `validation_*`, `ranker_*`, `retrieval_auc`, and sizes."""

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
    these make of the window for the ranker."""

    towers: Fitted
    before: Int64
    rows: RankerRows


def train_models(data: TrainingData, checkpoints: Path, settings: TrainingSettings, progress: Progress) -> Trained:
    """The towers are first trained on what came before the validation window. With their vectors, and item features of
    then, the ranker learns from the window, as it will serve: on vectors that do not know the answer. Then the towers
    take the window in.

    checkpoints: a folder; a training that was killed goes on from what it holds. Raises InvalidInput if there is too
    little to learn from.
    """
    halfway = train_until_validation(data, checkpoints, settings, section(progress, 0.0, 0.65))
    return finish_training(data, halfway, settings, section(progress, 0.65, 1.0))


def train_until_validation(
    data: TrainingData, checkpoints: Path, settings: TrainingSettings, progress: Progress
) -> Halfway:
    """The first step of train_models: everything that must not know the validation window's outcomes."""
    before = data.sequences.before(data.validation_time)
    towers = fit_two_tower(data.catalogue, data.sequences, before, settings, section(progress, 0.0, 0.9), checkpoints)
    rows = ranker_rows(
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


def finish_training(data: TrainingData, halfway: Halfway, settings: TrainingSettings, progress: Progress) -> Trained:
    """The second step of train_models. halfway.towers are trained further, in place."""
    towers, before, rows = halfway.towers, halfway.before, halfway.rows
    metrics = evaluate_retrieval(towers.model, data.catalogue, data.sequences, before, settings.recent_days)
    ranker = fit_ranker(rows, settings.dimensions, settings, section(progress, 0.0, 0.55))
    lists = None
    if data.lists is not None:
        window, vectors = moments(towers.model, data.sequences, before), towers.model.item_vectors()
        lists = personal_lists(data.lists, vectors, window, settings, section(progress, 0.55, 0.7))
    two_tower = finish_two_tower(towers, data.sequences, settings, section(progress, 0.7, 1.0))

    metrics |= ranker.metrics | (lists.metrics if lists else {})
    metrics |= {
        "examples": float(data.sequences.positive.sum()),
        "users": float(len(data.sequences.users)),
        "items": float(len(data.catalogue.items)),
        "impressions": float(rows.shown.sum()),
    }
    return Trained(data.catalogue, data.sequences, two_tower, ranker, towers.losses, metrics, lists)
