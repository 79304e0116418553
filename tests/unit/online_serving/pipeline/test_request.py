"""What an answer says of itself."""

import numpy as np
import pytest

from feature_store.graph import Graph
from online_serving.pipeline.request import Candidates, Recommendation


@pytest.mark.parametrize(
    ("mean", "shown", "explored"),
    [
        ([0.5, 0.4, 0.3], 2, 0),
        ([0.4, 0.5, 0.3], 2, 1),  # the second place had the best of those left
        ([0.3, 0.4, 0.5], 2, 2),
        ([0.5, 0.3, 0.4], 1, 0),  # what was not shown has no place
        ([0.4, 0.4, 0.1], 2, 0),  # a tie is no exploration
        ([], 0, 0),
    ],
)
def test_places_that_did_not_go_to_the_best_of_those_left(mean: list[float], shown: int, explored: int) -> None:
    items = [f"i{n}" for n in range(len(mean))]
    found = Recommendation(
        clusters=[], weights=[], history=[], history_kinds=[], history_times=[], profile=[], items=items, shown=shown,
        sources=[], predicted=[], mean=mean, bonus=[], edges=[], probabilities=[], rules={},
        candidates=Candidates(Graph(1), np.empty(0, np.int64), np.empty(0), np.empty(0, np.uint8)),
    )  # fmt: skip
    assert found.explored == explored
