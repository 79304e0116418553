"""The graph bench: what it needs, and whom it asks."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.graph import run, vectors_at
from benchmarks.retrieval.datasets import Dataset
from feature_store.contracts.catalogue import Item
from feature_store.contracts.errors import InvalidInput
from offline_training.evaluation.baselines import Interactions
from offline_training.progress import silent
from offline_training.settings import TrainingSettings

SETTINGS = TrainingSettings(epochs=1, dimensions=8, history_length=4)


def test_the_graph_bench_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="knows ml-100k, ml-latest-small, ml-1m, not 'netflix'"):
        run(tmp_path, 0, silent, dataset="netflix", until=0.8, out=None)
    with pytest.raises(InvalidInput, match="needs --data: a folder that holds ml-100k"):
        run(tmp_path, 0, silent, dataset="ml-100k", until=0.8, out=None)


def log(rows: list[tuple[int, int, int, bool]], users: int, items: int) -> Dataset:
    """rows: user, item, second, whether they liked it."""
    user, item, time, positive = (np.array(column) for column in zip(*rows, strict=True))
    return Dataset(
        log=Interactions(user, item, time * 1000, users, items),
        kinds=np.where(positive, "rating+", "rating-"),
        positive=positive,
        items=[Item(id=str(number)) for number in range(items)],
        profiles=[[] for _ in range(users)],
    )


def test_users_are_asked_halfway_through_what_they_did_later() -> None:
    dataset = log(
        [
            *[(0, 0, 1, True), (0, 1, 2, True), (0, 2, 101, True), (0, 3, 102, False), (0, 4, 103, True)],
            *[(0, 5, 104, False), (0, 2, 105, True)],  # liked already: not new
            *[(1, 0, 3, True), (1, 3, 4, True), (1, 4, 5, True)],  # does not come again
            *[(2, 5, 101, True), (2, 4, 102, True)],  # comes for the first time
            *[(3, 2, 6, True), (3, 1, 103, True), (3, 0, 104, False)],  # likes nothing of the second half
        ],
        users=4,
        items=6,
    )
    items, users, asked = vectors_at(dataset, 0.4, SETTINGS, silent)
    assert (items.shape, users.shape) == ((6, 8), (3, 8)), "clusters are made of those who were trained on"
    assert [np.flatnonzero(row).tolist() for row in asked.seen] == [[0, 1, 2, 3], [5]]
    assert [np.flatnonzero(row).tolist() for row in asked.positives] == [[4], [4]]


def test_nobody_to_ask_is_said() -> None:
    dataset = log([(0, 0, 1, True), (0, 1, 2, True), (0, 1, 9, False)], users=1, items=2)
    with pytest.raises(InvalidInput, match="Nobody liked anything new"):
        vectors_at(dataset, 0.9, SETTINGS, silent)
