"""A small world on a release of simple arithmetic."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.pay.release import Prepared, prepare
from benchmarks.pay.world import Newcomer, World
from benchmarks.retrieval.datasets import Dataset
from feature_store.contracts.catalogue import Item
from infra.benchmarks.small_release import build_release, items
from offline_training.evaluation.baselines import Interactions

ITEMS, NEW, VISITORS, TURNS = 40, 5, 12, 4


@pytest.fixture(scope="session")
def world() -> World:
    """12 of 20 people come 4 times for 3 items; the first 4 of them are known by two items that they rated. 5 items
    enter before turns 1 and 2. Odd visitors like odd items, even ones even items, half of the time."""
    user = np.repeat(np.arange(4), 2)
    log = Interactions(user, np.arange(8), 1_000 * np.arange(8), 20, ITEMS)
    kinds = np.where(np.arange(8) % 2, "rating+", "rating-")
    past = Dataset(log, kinds, kinds == "rating+", items(ITEMS), [[f"age={row % 3}.1"] for row in range(20)])
    agree = np.arange(VISITORS)[:, None] % 2 == np.arange(ITEMS + NEW) % 2
    return World(
        name="small",
        past=past,
        moment=10_000,
        visitors=np.arange(VISITORS),
        newcomers=tuple(Newcomer(Item(id=f"n{k}", title="New", categories=["noir"]), 1 + k // 3) for k in range(NEW)),
        likes=np.where(agree, 0.5, 0.0)[None].astype(np.float32),
        tastes=np.zeros(TURNS, np.int64),
        slate=3,
        seen=(1.0, 1.0, 1.0),
    )


@pytest.fixture(scope="session")
def prepared(world: World, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    home: Path = tmp_path_factory.mktemp("releases")
    return prepare(world, home, build_release(home, catalogue=world.past.items, list_length=5))
