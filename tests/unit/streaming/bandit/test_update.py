"""What trials add to rows, against the equations written out in Python."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_store.sums import ITEM
from streaming.bandit.update import Shares

UNIT = st.floats(0.001, 1)


@st.composite
def contexts(draw: st.DrawFn) -> tuple[list[int], list[float], list[tuple[int, float, int]], tuple[float, ...]]:
    """Clusters, weights, shown items as (number, expected, edge mask), and a share of their trials."""
    clusters = draw(st.lists(st.integers(0, 2**31 - 2), max_size=62, unique=True))
    weights = draw(st.lists(UNIT, min_size=len(clusters), max_size=len(clusters)))
    item = st.tuples(st.integers(0, 9), UNIT, st.integers(0, 2 ** len(clusters) - 1))
    share = st.sampled_from(
        [(1.0, 0.0, 0.0, 0.0), (-1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.75, 0.5625), (0.0, 0.0, -0.5, 0.25)]
    )
    return clusters, weights, draw(st.lists(item, max_size=5)), draw(share)


@given(st.lists(contexts(), min_size=1, max_size=4))
def test_the_kernel_is_the_equations(
    batch: list[tuple[list[int], list[float], list[tuple[int, float, int]], tuple[float, float, float, float]]],
) -> None:
    shares, expected = Shares(), []
    for clusters, weights, shown, share in batch:
        served, trials, reward, squared = share
        shares.add(
            [i for i, _, _ in shown], [p for _, p, _ in shown], [e for _, _, e in shown], clusters, weights, share
        )
        for item, p, edges in shown:
            expected.append((item, ITEM, served, trials, reward, squared, p))
            for k, (c, w) in enumerate(zip(clusters, weights, strict=True)):
                if edges & 1 << k:
                    expected.append((item, c, w**2 * served, w**2 * trials, w * trials, w * reward, w * p))
    if not len(shares):
        assert expected == []
        return
    found = shares.additions()
    assert found.item.tolist() == [row[0] for row in expected]
    assert found.cluster.tolist() == [row[1] for row in expected]
    np.testing.assert_allclose(found.values, np.array([row[2:] for row in expected]), rtol=1e-14)
    assert len(shares) >= len(expected)
