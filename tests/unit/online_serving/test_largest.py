"""The kernel gives what plain NumPy does."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from feature_store.arrays import Float32
from online_serving.largest import largest


@given(values=arrays.arrays(np.float32, st.integers(0, 300), elements=st.integers(-40, 40)), most=st.integers(0, 100))
def test_the_largest_values_first_and_of_equals_the_first(values: Float32, most: int) -> None:
    values = (values / 4).astype(np.float32)
    assert largest(values, most).tolist() == np.argsort(-values, kind="stable")[:most].tolist()


def test_extremes_are_in_order() -> None:
    values = np.array([0, -np.inf, 1e-40, np.inf, -1e-40, 3e38, -3e38], np.float32)
    assert largest(values, 7).tolist() == [3, 5, 2, 0, 4, 6, 1]
