import numpy as np

from benchmarks.retrieval.datasets import moment_at


def test_the_moment_is_at_a_share_of_the_time_in_whole_seconds() -> None:
    assert moment_at(np.array([9_000, 1_000, 2_000]), 0.8) == 7_000  # 1,000 + .8 * 8,000 = 7,400
