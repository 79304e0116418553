"""From training sets to trained models: towers, ranker, towers again."""

from dataclasses import dataclass
from pathlib import Path

from offline_training.data.summary import TrainingSetSummary
from offline_training.evaluation.holdout import evaluate_retrieval
from offline_training.progress import Progress, section
from offline_training.ranking.dataset import ranker_rows
from offline_training.ranking.training import FittedRanker, fit_ranker
from offline_training.retrieval.dataset import (
    Catalogue,
    read_catalogue,
    read_features_at_validation,
    read_impressions,
    read_sequences,
)
from offline_training.retrieval.pi2i.build import PersonalLists, personal_lists
from offline_training.retrieval.pi2i.moments import moments
from offline_training.retrieval.sequences import Sequences
from offline_training.retrieval.training import finish_two_tower, fit_two_tower
from offline_training.retrieval.two_tower import TwoTower
from offline_training.settings import TrainingSettings


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


def train_models(sets: Path, checkpoints: Path, settings: TrainingSettings, progress: Progress) -> Trained:
    """Trains on the sets that the Spark job wrote.

    The towers are first trained on what came before the validation window. With their vectors, and item features of
    then, the ranker learns from the window, as it will serve: on vectors that do not know the answer. Then the towers
    take the window in. checkpoints: a folder; a training that was killed goes on from what it holds.
    Raises InvalidInput if there is too little to learn from.
    """
    progress(0.0, "reading training sets")
    catalogue = read_catalogue(sets)
    sequences = read_sequences(sets, catalogue)
    impressions = read_impressions(sets, catalogue, settings.history_length)
    before = sequences.before(TrainingSetSummary.load(sets).validation_time)

    fitted = fit_two_tower(catalogue, sequences, before, settings, section(progress, 0.05, 0.6), checkpoints)
    metrics = evaluate_retrieval(fitted.model, catalogue, sequences, before, settings.recent_days)
    features = read_features_at_validation(sets, catalogue)
    rows = ranker_rows(
        fitted.model, catalogue, features, sequences, before, impressions, settings, section(progress, 0.6, 0.65)
    )
    ranker = fit_ranker(rows, settings.dimensions, settings, section(progress, 0.65, 0.85))
    window = moments(fitted.model, sequences, before)
    lists = personal_lists(sets, catalogue, fitted.model.item_vectors(), window, settings, section(progress, 0.85, 0.9))
    two_tower = finish_two_tower(fitted, sequences, settings, section(progress, 0.9, 1.0))

    metrics |= ranker.metrics | (lists.metrics if lists else {})
    metrics |= {
        "examples": float(sequences.positive.sum()),
        "users": float(len(sequences.users)),
        "items": float(len(catalogue.items)),
        "impressions": float(rows.shown.sum()),
    }
    return Trained(catalogue, sequences, two_tower, ranker, fitted.losses, metrics, lists)
