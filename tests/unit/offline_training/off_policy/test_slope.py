import math

import numpy as np
import pytest

from offline_training.experiment.statistics import Ratio
from offline_training.off_policy.slope import grid, slope


def estimate(value: float, error: float) -> Ratio:
    return Ratio(value, error, 1_000.0, np.zeros(2))


def test_the_grid_begins_with_no_bias_at_all() -> None:
    limits = grid(np.array([0.0, 1.0, 2.0, 5.0]))
    assert limits[:2] == [math.inf, 5.0]
    assert limits == sorted(limits, reverse=True)
    assert grid(np.zeros(3)) == [math.inf]


def test_the_last_estimate_that_agrees_with_all_before_is_chosen() -> None:
    # Half intervals 1.96, .98, .196: |0 - .5| and |.5 - .6| are within, 5 is not.
    assert slope([estimate(0, 1), estimate(0.5, 0.5), estimate(0.6, 0.1)]) == 2
    assert slope([estimate(0, 1), estimate(0.5, 0.5), estimate(5, 0.1)]) == 1
    assert slope([estimate(0, 1)]) == 0


def test_agreement_is_weighed_by_both_intervals() -> None:
    # 1.96 (.1 + 1.449 * 1) = 3.04 is the largest difference that still agrees.
    half = 1.962339 * (0.1 + (math.sqrt(6) - 1))
    assert slope([estimate(0, 1), estimate(half - 0.01, 0.1)]) == 1
    assert slope([estimate(0, 1), estimate(half + 0.01, 0.1)]) == 0
    assert half == pytest.approx(3.04, abs=0.005)
