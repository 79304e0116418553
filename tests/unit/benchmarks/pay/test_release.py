"""Releases are kept for as long as nothing that they are made of has changed."""

from dataclasses import replace

import numpy as np

from benchmarks.pay.release import _ROOT, _TRAINED_BY, _digest
from benchmarks.pay.world import World
from offline_training.settings import TrainingSettings


def test_a_release_is_named_by_the_past_the_settings_and_the_code_that_trains(world: World) -> None:
    settings = TrainingSettings()
    name = _digest(world, settings)
    assert name == _digest(world, settings)
    assert name == _digest(replace(world, delay=3, likes=np.zeros_like(world.likes)), settings), "it is no past"
    others = [
        _digest(world, settings.model_copy(update={"seed": 1})),
        _digest(replace(world, moment=world.moment + 1), settings),
        _digest(replace(world, past=replace(world.past, positive=~world.past.positive)), settings),
    ]
    assert len({name, *others}) == 4


def test_the_code_that_trains_is_there() -> None:
    assert all(list(_ROOT.glob(pattern)) for pattern in _TRAINED_BY)
