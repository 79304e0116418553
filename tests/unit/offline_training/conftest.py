"""Models of training sets small enough to reason about: tests/tiny_sets.py."""

from pathlib import Path

import pytest

from offline_training.progress import silent
from offline_training.settings import TrainingSettings
from offline_training.train_models import Trained, train_models
from offline_training.training_data import read_training_data
from tests.tiny_sets import SETTINGS, write_sets


@pytest.fixture(scope="session")
def settings() -> TrainingSettings:
    return SETTINGS


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="session")
def sets_with_impressions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"), impressions=300)


@pytest.fixture(scope="session")
def trained(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_models(read_training_data(sets, SETTINGS), tmp_path_factory.mktemp("checkpoints"), SETTINGS, silent)
