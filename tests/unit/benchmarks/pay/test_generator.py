"""The generated world: its truth is known, and its past agrees with it."""

import numpy as np
import pytest

from benchmarks.pay.generator import ITEMS, RETURNING, USERS, VISITORS, generated, truth


def test_the_truth_is_of_probabilities_and_depends_on_the_seed_alone() -> None:
    one, again, other = truth(1), truth(1), truth(2)
    assert one.likes.shape == (USERS, ITEMS)
    assert ((one.likes >= 0) & (one.likes <= 0.6)).all()
    assert (one.likes == again.likes).all()
    assert (one.likes != other.likes).any()


def test_tastes_are_of_more_than_a_few_dimensions() -> None:
    likes = truth(1).likes
    singular = np.linalg.svd(likes - likes.mean(axis=0), compute_uv=False) ** 2
    assert singular[:10].sum() / singular.sum() < 0.8


def test_the_past_is_of_known_items_and_people_and_as_likely_as_the_truth_says() -> None:
    world = generated("g", 1)
    log, known = world.past.log, truth(1)
    assert log.item.max() < len(world.past.items) == ITEMS - len(world.newcomers)
    assert log.time.max() < world.moment
    assert not world.returning[: int(VISITORS * (1 - RETURNING))].any()
    assert world.returning[int(VISITORS * (1 - RETURNING)) :].all()
    expected = known.likes[log.user, log.item]
    assert world.past.positive.mean() == pytest.approx(expected.mean(), abs=0.01)
    assert (world.likes[0] == known.likes[:VISITORS].astype(np.float32)).all()
