"""What models are trained on, as arrays: read from the sets that the Spark job wrote, or made in any other way."""

from dataclasses import dataclass
from pathlib import Path

from feature_store.arrays import Float32
from offline_training.data.summary import TrainingSetSummary
from offline_training.retrieval.dataset import (
    Catalogue,
    Impressions,
    read_features_at_validation,
    read_impressions,
    read_items,
    read_sequences,
)
from offline_training.retrieval.pi2i.lists import MakeLists, read_item_lists
from offline_training.retrieval.sequences import Sequences
from offline_training.settings import TrainingSettings


@dataclass(frozen=True)
class TrainingData:
    """validation_time (ms): what is positive from here on is the validation window, which the ranker learns from.
    features_at_validation (I, F): of the items, as of then. lists: makes item lists; None: there are none."""

    catalogue: Catalogue
    sequences: Sequences
    validation_time: int
    features_at_validation: Float32
    impressions: Impressions
    lists: MakeLists | None = None


def read_training_data(sets: Path, settings: TrainingSettings) -> TrainingData:
    """Reads the sets that the Spark job wrote. Raises InvalidInput if they are missing, or hold no item or fewer than
    two positive interactions."""
    catalogue = read_items(sets)
    return TrainingData(
        catalogue=catalogue,
        sequences=read_sequences(sets, catalogue),
        validation_time=TrainingSetSummary.load(sets).validation_time,
        features_at_validation=read_features_at_validation(sets, catalogue),
        impressions=read_impressions(sets, catalogue, settings.history_length),
        lists=lambda name, length: read_item_lists(sets / name, catalogue.index, length),
    )
