"""Slates and their exact probabilities."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from feature_store.arrays import Bool, Float64
from streaming.bandit.exploration import Exploration, choose_slate, slate_chances


def _slot_probabilities(mean: Float64, bonus: Float64, left: Bool, top_k: int, share: float) -> Float64:
    """(n,) the chance of each candidate to fill the next slot. mean (n,), bonus (n,); left (n,): not shown yet."""
    explorable = left & (bonus > 0)
    exploit, explore = np.zeros(len(mean)), np.zeros(len(mean))
    exploit[left] = _uniform_top(mean[left], 1)
    if not explorable.any():
        return exploit
    explore[explorable] = _uniform_top((mean + bonus)[explorable], top_k)
    p: Float64 = (1 - share) * exploit + share * explore
    return p


def _uniform_top(values: Float64, k: int) -> Float64:
    """(n,) chances of a uniform draw among the k highest, those that tie at the boundary sharing what places are
    left."""
    k = min(k, len(values))
    boundary = np.sort(values)[-k]
    inside, tied = values > boundary, values == boundary
    chances: Float64 = (inside + tied * ((k - inside.sum()) / tied.sum())) / k
    return chances


def _first_slot(mean: list[float], bonus: list[float], top_k: int, share: float) -> list[float]:
    left = np.ones(len(mean), dtype=bool)
    chances: list[float] = _slot_probabilities(np.array(mean), np.array(bonus), left, top_k, share).tolist()
    return chances


def test_greedy_takes_the_best_means_in_order() -> None:
    slate = choose_slate(np.array([0.1, 0.9, 0.5]), np.array([9.0, 0, 0]), 2, 2, 0.0, np.random.default_rng(0))
    assert slate.shown.tolist() == [1, 2]
    assert slate.probabilities.tolist() == [1, 1]
    assert slate.explored.tolist() == []


def test_probabilities_by_hand() -> None:
    # best mean: item 1; top 2 by upper bound (1.1, 1.0, 0.7): items 0 and 1
    assert _first_slot([0.1, 0.9, 0.5], [1.0, 0.1, 0.2], top_k=2, share=0.2) == pytest.approx([0.1, 0.9, 0])


def test_what_has_no_bonus_is_shown_for_its_mean_only() -> None:
    # best mean: item 1; top 2 by upper bound of those with a bonus: items 0 and 2
    assert _first_slot([0.1, 0.9, 0.5], [1.0, 0.0, 0.2], top_k=2, share=0.2) == pytest.approx([0.1, 0.8, 0.1])
    assert _first_slot([0.1, 0.9, 0.5], [0.0, 0.0, 0.2], top_k=2, share=0.2) == pytest.approx([0, 0.8, 0.2])


def test_where_nothing_is_left_to_explore_every_slot_exploits() -> None:
    assert _first_slot([0.1, 0.9, 0.5], [0.0] * 3, top_k=2, share=0.7) == [0, 1, 0]
    slate = choose_slate(np.array([0.1, 0.9, 0.5]), np.array([0.3, 0, 0]), 3, 2, 1.0, np.random.default_rng(0))
    assert slate.shown.tolist() == [0, 1, 2]  # the one to explore, and then the best
    assert slate.probabilities.tolist() == [1, 1, 1]


def test_ties_share_their_chance() -> None:
    # means tie in 0 and 1; at the boundary of the top 2, items 0, 1, 2 tie for one place behind item 3
    chances = _first_slot([0.5, 0.5, 0.3, 0.1], [0.1, 0.1, 0.3, 0.9], top_k=2, share=0.6)
    assert chances == pytest.approx([0.2 + 0.1, 0.2 + 0.1, 0.1, 0.3])


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5]), st.sampled_from([0.0, 0.25])), min_size=1, max_size=12),
    st.integers(1, 15),
    st.integers(1, 6),
    st.floats(0, 1),
)
def test_every_slate_is_lawful(arms: list[tuple[float, float]], size: int, top_k: int, share: float) -> None:
    mean, bonus = (np.array(column) for column in zip(*arms, strict=True))
    slate = choose_slate(mean, bonus, size, top_k, share, np.random.default_rng(1))
    assert len(slate.shown) == min(size, len(arms)) == len(set(slate.shown.tolist()))
    assert not set(slate.shown.tolist()) & set(slate.explored.tolist())
    assert ((slate.probabilities > 0) & (slate.probabilities <= 1 + 1e-12)).all()
    assert sum(_first_slot(mean.tolist(), bonus.tolist(), top_k, share)) == pytest.approx(1)


@given(
    st.lists(st.tuples(st.sampled_from([-0.5, 0.0, 0.25]), st.sampled_from([0.0, 0.25, 0.5])), max_size=40),
    st.integers(0, 15),
    st.integers(1, 8),
    st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, allow_subnormal=False)),  # half of the least number is 0
    st.integers(0, 100),
)
def test_the_kernel_follows_its_plain_form_slot_by_slot(
    arms: list[tuple[float, float]], size: int, top_k: int, share: float, seed: int
) -> None:
    mean, bonus = np.array(arms).reshape(-1, 2).T
    slate = choose_slate(mean, bonus, size, top_k, share, np.random.default_rng(seed))
    left = np.ones(len(arms), dtype=bool)
    possible = np.zeros(len(arms), dtype=bool)
    possible[np.argsort(-mean, kind="stable")[:size]] = True
    again = slate_chances(mean, bonus, slate.shown, Exploration(top_k, share))
    for slot, (chosen, probability) in enumerate(zip(slate.shown, slate.probabilities, strict=True)):
        chances = _slot_probabilities(mean, bonus, left, top_k, share)
        assert again[slot] == pytest.approx(chances)
        assert chances.sum() == pytest.approx(1)
        assert probability == pytest.approx(chances[chosen])
        possible |= chances > 0
        left[chosen] = False
    assert slate.explored.tolist() == np.flatnonzero(possible & left).tolist()


def test_what_is_no_candidate_takes_nothing_from_the_slots_behind_it() -> None:
    # Best mean: item 1, then item 2; the slate holds something else first, and item 1 second.
    slate = np.array([-1, 1, -1])
    chances = slate_chances(np.array([0.1, 0.9, 0.5]), np.zeros(3), slate, Exploration(2, 0.5))
    assert chances.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("bonus", [[0.01, 0.1, 0.2, 0.4, 0.3], [0.0, 0.1, 0.0, 0.4, 0.0]])
def test_logged_probabilities_are_the_real_frequencies(bonus: list[float]) -> None:
    """Every sequence of three items out of five, against the product of the logged probabilities; 60,000 draws. With
    all items explored, and with two of them, so that the last slot may find none left."""
    mean = np.array([0.5, 0.5, 0.4, 0.2, 0.1])
    rng = np.random.default_rng(7)
    draws = 60_000
    counts: dict[tuple[int, ...], int] = {}
    expected: dict[tuple[int, ...], float] = {}
    for _ in range(draws):
        slate = choose_slate(mean, np.array(bonus), 3, 3, 0.5, rng)
        sequence = tuple(slate.shown.tolist())
        counts[sequence] = counts.get(sequence, 0) + 1
        expected[sequence] = slate.probabilities.prod()
    assert sum(expected.values()) == pytest.approx(1, abs=1e-9)
    frequent = [s for s in expected if expected[s] * draws >= 5]
    observed = np.array([counts[s] for s in frequent], dtype=float)
    wanted = np.array([expected[s] for s in frequent])
    assert chisquare(observed, wanted / wanted.sum() * observed.sum()).pvalue > 1e-3


def test_an_explored_slot_leaves_the_best_for_the_next() -> None:
    mean, bonus = np.array([0.9, 0.1, 0.1]), np.ones(3)
    for seed in range(50):
        slate = choose_slate(mean, bonus, 3, 3, 1.0, np.random.default_rng(seed))
        assert slate.probabilities.tolist() == pytest.approx([1 / 3, 1 / 2, 1])
        assert all(a != b for a, b in pairwise(slate.shown.tolist()))
