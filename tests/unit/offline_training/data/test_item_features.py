"""The formulas of item features, which Spark columns and arrays share."""

import numpy as np

from feature_store.definitions import ITEM_FEATURES
from offline_training.data.item_features import RATE_PSEUDO_COUNTS, feature_values


def test_values_by_hand() -> None:
    liked, recent, rated, rated_well = np.array([3]), np.array([1]), np.array([10]), np.array([4])
    found = dict(
        zip(
            [feature.name for feature in ITEM_FEATURES],
            feature_values(liked, recent, rated, rated_well, 0.5, np.log1p),
            strict=True,
        )
    )
    assert found == {
        "popularity": np.log(4),
        "recent_popularity": np.log(2),
        "positive_rate": (4 + RATE_PSEUDO_COUNTS / 2) / (10 + RATE_PSEUDO_COUNTS),
        "known": 1,
    }
