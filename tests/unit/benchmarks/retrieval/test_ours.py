"""Our model in the bench is the one that is trained and served elsewhere."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.retrieval.datasets import Dataset
from benchmarks.retrieval.ours import MODEL, SERVED, TWO_STAGE, sequences, two_tower
from benchmarks.retrieval.protocols import Task
from feature_store.contracts.catalogue import Item
from feature_store.contracts.manifest import open_release
from feature_store.definitions import features_hash
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
    fitted = two_tower(SETTINGS, tmp_path, ranked=False).fit(DATASET, np.arange(5), 3)
    model, served = (fitted.scores[name](np.arange(3), np.arange(5)) for name in (MODEL, SERVED))
    offered = np.isfinite(served)
    assert offered.tolist() == [[False, False, False, True], [False, False, True, True], [True] * 4]
    assert served[offered] == pytest.approx(model[offered], abs=1e-5)
    manifest = open_release(tmp_path / "releases" / fitted.details["release"], features_hash())
    assert (manifest.parameters["seed"], fitted.details["seed"]) == (3, 3)
    assert not list((tmp_path / "checkpoints").glob("*")), "a training that is over leaves none"


def test_with_a_ranker_the_release_ranks_what_it_offers(tmp_path: Path) -> None:
    # 12 people walk round and round through three items, one each day
    user, step = np.repeat(np.arange(12), 5), np.tile(np.arange(5), 12)
    log = Interactions(user, (user + step) % 3 + 3 * (user % 2), step * 86_400_000, 12, 6)
    likes = np.ones(len(user), np.bool_)
    items = [Item(id=str(number)) for number in range(6)]
    dataset, rows = Dataset(log, np.full(len(user), "like+"), likes, items, [[]] * 12), np.flatnonzero(step < 4)
    task = Task(rows, np.array([1, 2]), rows, [np.array([2]), np.array([4, 5])], {})
    fitted = two_tower(SETTINGS, tmp_path, ranked=True).fit(dataset, rows, 0)
    probability = fitted.scores[TWO_STAGE](np.array([1]), rows[dataset.log.user[rows] == 1])
    offered = np.isfinite(probability)
    assert offered.any()
    assert ((probability[offered] > 0) & (probability[offered] < 1)).all()
    assert fitted.compare is not None
    found = fitted.compare(task)
    assert found["users"] == 2
    assert 0 <= found["ece"] <= 1
    assert found["ranker"].keys() == found["retrieval"].keys() == {"auc", "gauc", "ndcg@10"}
    assert found["ahead_of_retrieval"]["all"].keys() == {"auc", "ndcg@10", "recall@50"}
