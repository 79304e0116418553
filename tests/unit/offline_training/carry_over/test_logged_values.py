"""What a release expects of logged trials, against plain arithmetic on the same release."""

from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.catalogue import Item
from feature_store.sums import ITEM
from feature_store.user_features import UserFeatures
from infra.benchmarks.small_release import build_release, items
from offline_training.carry_over.logged_values import logged_values
from offline_training.retrieval.dataset import Impressions, profile_ids
from offline_training.retrieval.sequences import Histories
from online_serving.pipeline.features import candidate_features, encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot
from streaming.bandit.slates import expected
from tests.rows import rows_of

PROFILES = [["age=1.1"], ["age=2.1"]]
LENGTH = 5


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    home: Path = tmp_path_factory.mktemp("releases")
    catalogue: list[Item] = items(8)
    return Snapshot.load(home, build_release(home, catalogue=catalogue, edges_per_cluster=8, history_length=LENGTH))


def shown(slates: list[list[int]], rewards: list[list[float]]) -> Impressions:
    """Two people of whom only profiles are known."""
    nothing, n = np.zeros((len(slates), LENGTH), np.int64), len(slates)
    return Impressions(
        user=[str(k) for k in range(n)],
        time=np.arange(n),
        profile=profile_ids([PROFILES[k % 2] for k in range(n)]),
        histories=Histories(nothing, nothing, nothing, np.zeros(n, np.int64), nothing.astype(np.bool_)),
        items=[np.array(slate) for slate in slates],
        places=[np.arange(len(slate)) for slate in slates],
        clicked=[np.array(reward) > 0 for reward in rewards],
        rewards=[np.array(reward) for reward in rewards],
    )


def test_an_item_is_expected_what_its_slates_say_and_an_edge_what_the_weights_make_of_it(snapshot: Snapshot) -> None:
    slates, rewards = [[0, 1], [1, 2]], [[1.0, 0.0], [0.0, 0.0]]
    each: dict[str, list[float]] = {}
    total: dict[int, float] = dict.fromkeys(range(4), 0.0)
    weight = dict(total)
    for k, (slate, reward) in enumerate(zip(slates, rewards, strict=True)):
        user = encode_user(snapshot, UserFeatures(PROFILES[k], [], frozenset()), Request(slate_size=1))
        p = snapshot.towers.predict(candidate_features(snapshot, user, np.array(slate))).tolist()
        for item, e in zip(slate, expected(p, reward), strict=True):
            each.setdefault(f"i{item}", []).append(e)
            if item == 1:
                for cluster, w in zip(user.clusters.tolist(), user.weights.tolist(), strict=True):
                    total[cluster] += w * e
                    weight[cluster] += w
    rows = rows_of({f":i{k}": [0.0] * 5 for k in range(4)} | {f"{c}:i1": [0.0] * 5 for c in range(4)})
    found = logged_values(snapshot, rows, shown(slates, rewards))
    own = rows.cluster == ITEM
    means = [np.mean(each[name]) if name in each else np.nan for name in (rows.items[k] for k in rows.item[own])]
    assert found[own] == pytest.approx(means, nan_ok=True)
    assert np.isnan(found[own]).sum() == 1, "nobody was shown the last one"
    edges = [total[c] / weight[c] if weight[c] else np.nan for c in rows.cluster[~own].tolist()]
    assert found[~own] == pytest.approx(edges, nan_ok=True)
    assert not np.isnan(edges).all()


def test_it_is_a_mean_of_trials_in_whatever_order_they_came(snapshot: Snapshot) -> None:
    slates, rewards = [[0, 1, 2], [2, 3], [4], [1, 0]], [[1.0, 0.0, 0.0], [0.0, 1.0], [0.0], [0.0, 1.0]]
    rows = rows_of({f":i{k}": [0.0] * 5 for k in range(5)} | {"0:i1": [0.0] * 5})
    found = logged_values(snapshot, rows, shown(slates, rewards))
    turned = [2, 3, 0, 1]  # every other one has the same profile
    again = logged_values(snapshot, rows, shown([slates[k] for k in turned], [rewards[k] for k in turned]))
    assert again == pytest.approx(found, nan_ok=True)
    twice = logged_values(snapshot, rows, shown(slates * 2, rewards * 2))
    assert twice == pytest.approx(found, nan_ok=True)


def test_without_trials_or_rows_nothing_is_expected(snapshot: Snapshot) -> None:
    rows = rows_of({":i0": [1.0] * 5})
    assert np.isnan(logged_values(snapshot, rows, Impressions.none())).all()
    assert len(logged_values(snapshot, rows_of({}), shown([[0]], [[1.0]]))) == 0
