"""What people are asked, and how good an order is for them, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.order.orders import POPULARITY, RECENT_POPULARITY, RETRIEVAL, SERVED, ask
from benchmarks.pay.release import Prepared, visitors
from feature_store.definitions import DAY_MS, ITEM_FEATURES
from offline_training.evaluation.metrics import auc
from online_serving.pipeline.features import encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot
from tests.unit.benchmarks.pay.conftest import ITEMS, VISITORS


@pytest.fixture(scope="module")
def snapshot(prepared: Prepared) -> Snapshot:
    return Snapshot.load(prepared.releases, prepared.release, prepared.world.past.items)


def test_a_list_for_everybody_is_as_good_as_it_is_by_hand(prepared: Prepared, snapshot: Snapshot) -> None:
    """Items 1, 3, 5 and 7 were liked once each. A stranger with an odd number likes the 20 odd items of 40."""
    found = ask(prepared.world, snapshot)
    assert found.returning.tolist() == [True] * 4 + [False] * (VISITORS - 4)
    gains = 1 / np.log2(np.arange(1, 11) + 1)
    front, above = gains[:4].sum() / gains.sum(), (4 * 20 + 16 * 20 / 2) / (20 * 20)
    for stranger in (5, 7, 9, 11):
        assert found.quality[POPULARITY][stranger] == pytest.approx([front, 1.0, above])
        assert found.quality[RECENT_POPULARITY][stranger] == pytest.approx([front, 1.0, above])
        assert found.quality[POPULARITY][stranger - 1][0] == 0, "in front are odd items"


def test_recent_is_what_training_counted_for_it(prepared: Prepared, snapshot: Snapshot) -> None:
    log = prepared.world.past.log
    old = replace(log, time=np.where(log.item == 7, log.time + 15 * DAY_MS, log.time))
    world = replace(prepared.world, past=replace(prepared.world.past, log=old))
    [recent, ever] = (ask(world, snapshot).quality[name][5] for name in (RECENT_POPULARITY, POPULARITY))
    assert recent[2] == pytest.approx((20 + 19 * 20 / 2) / 400)
    assert ever[2] == pytest.approx(0.6)


def test_the_served_order_is_the_rankers_and_retrievals_is_of_inner_products(
    prepared: Prepared, snapshot: Snapshot
) -> None:
    found = ask(prepared.world, snapshot)
    popularity = snapshot.item_features[:, [feature.name for feature in ITEM_FEATURES].index("popularity")]
    users = visitors(prepared.world)
    for number in range(4, VISITORS):
        near = snapshot.vectors @ encode_user(snapshot, users[number], Request(10)).vector
        wanted = np.arange(ITEMS) % 2 == number % 2
        assert found.quality[RETRIEVAL][number][2] == pytest.approx(auc(near, wanted))
        assert found.quality[SERVED][number][2] == pytest.approx(auc(2 * near + 0.2 * popularity, wanted))


def test_nobody_is_asked_for_what_they_had_or_what_training_did_not_know(
    prepared: Prepared, snapshot: Snapshot
) -> None:
    likes = np.zeros_like(prepared.world.likes)
    likes[0, 0, [0, 1]] = 1.0  # both are in the past of the first visitor
    likes[0, 4, ITEMS] = 1.0  # a newcomer
    likes[0, 5, 2] = 1.0
    found = ask(replace(prepared.world, likes=likes), snapshot)
    assert len(found.returning) == 1
    assert not found.returning[0]
    weight, _, came = found.calibration.T
    assert np.average(came, weights=weight) == pytest.approx(1 / ITEMS)
