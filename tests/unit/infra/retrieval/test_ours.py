"""Our model in the bench is the one that is trained and served elsewhere."""

from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.catalogue import Item
from feature_store.contracts.manifest import open_release
from feature_store.definitions import features_hash
from infra.benchmarks.retrieval.datasets import Dataset
from infra.benchmarks.retrieval.ours import MODEL, SERVED, sequences, two_tower
from offline_training.evaluation.baselines import Interactions
from offline_training.settings import TrainingSettings

SETTINGS = TrainingSettings(dimensions=8, heads=1, layers=1, history_length=4, epochs=1)
#  user 0: items 0 and 1 at one moment, then 2; user 1: 1, then 0; user 2: nothing
LOG = Interactions(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 1, 0]), np.array([5, 5, 6, 1, 2]) * 1000, 3, 4)
KINDS = np.array(["rating+", "rating-", "rating+", "rating+", "rating+"])
ITEMS = [Item(id=name, title=name) for name in ("b", "a", "d", "c")]
DATASET = Dataset(LOG, KINDS, KINDS == "rating+", ITEMS, [["age=1"], [], []])


def test_of_what_happened_at_one_moment_nothing_is_known_to_the_rest() -> None:
    found = sequences(DATASET, np.arange(5))
    assert found.visible.tolist() == [0, 0, 2, 0, 1]
    assert found.start.tolist() == [0, 3, 5, 5]
    assert [found.kinds[kind] for kind in found.kind] == KINDS.tolist()


def test_the_release_ranks_as_the_model_does_and_keeps_the_seen_out(tmp_path: Path) -> None:
    fitted = two_tower(SETTINGS, tmp_path).fit(DATASET, np.arange(5), 3)
    model, served = (fitted.scores[name](np.arange(3), np.arange(5)) for name in (MODEL, SERVED))
    offered = np.isfinite(served)
    assert offered.tolist() == [[False, False, False, True], [False, False, True, True], [True] * 4]
    assert served[offered] == pytest.approx(model[offered], abs=1e-5)
    manifest = open_release(tmp_path / "releases" / fitted.details["release"], features_hash())
    assert (manifest.parameters["seed"], fitted.details["seed"]) == (3, 3)
    assert not list((tmp_path / "checkpoints").glob("*")), "a training that is over leaves none"
