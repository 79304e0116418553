"""Slates with rules among their items: the law in plain NumPy, and logged probabilities beside frequencies."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from feature_store.arrays import Bool, Float64
from streaming.bandit.exploration import Exploration, choose_slate
from streaming.bandit.ruled_slates import SlateRules, choose_ruled_slate


class Plain(NamedTuple):
    """Rules as a reader would write them down."""

    groups: list[set[int]]  # of each candidate
    room: list[int]
    pinned: list[int]
    diversity: float
    vectors: Float64

    def compiled(self) -> SlateRules:
        groups = [sorted(one) for one in self.groups]
        return SlateRules(
            pinned=np.array(self.pinned, np.int64),
            start=np.cumsum([0, *map(len, groups)]),
            groups=np.array([group for one in groups for group in one], np.int64),
            room=np.array(self.room, np.int64),
            diversity=self.diversity,
            vectors=self.vectors.astype(np.float32),
        )

    def state(self, slate: list[int]) -> tuple[Bool, Float64]:
        """Which candidates may come next behind these, and by which share their values are lowered."""
        there = [*self.pinned, *slate]
        full = {g for g, room in enumerate(self.room) if sum(g in self.groups[i] for i in there) >= room}
        n = len(self.groups)
        left = np.array([i not in there and not self.groups[i] & full for i in range(n)])
        alike = [max([0.0, *(float(self.vectors[i] @ self.vectors[j]) for j in there)]) for i in range(n)]
        return left, self.diversity * np.array(alike)


def free(n: int) -> Plain:
    return Plain([set() for _ in range(n)], [], [], 0.0, np.zeros((n, 0)))


def top(values: Float64, among: Bool, k: int) -> Float64:
    """(n,) chances of a uniform draw among the k highest of some; those that tie at the boundary share what is left."""
    found = np.zeros(len(values))
    if among.any():
        k = min(k, int(among.sum()))
        boundary = np.sort(values[among])[-k]
        inside, tied = among & (values > boundary), among & (values == boundary)
        found = (inside + tied * ((k - inside.sum()) / tied.sum())) / k
    return found


def slot_chances(
    mean: Float64, bonus: Float64, rules: Plain, slate: list[int], law: Exploration
) -> tuple[Float64, Float64]:
    """(n,) of each candidate to come next behind these, and the same without exploration."""
    left, lost = rules.state(slate)
    upper = mean + bonus
    greedy = top(mean - lost * abs(mean), left, 1)
    explore = top(upper - lost * abs(upper), left & (bonus > 0), law.top_k)
    share = law.share if explore.any() else 0.0
    return (1 - share) * greedy + share * explore, greedy


VALUES = st.sampled_from([-0.5, 0.0, 0.25, 0.5])
AXES = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.5, 0.5]])  # products that every kind of float has: ties stay


@st.composite
def plain_rules(draw: st.DrawFn, n: int) -> Plain:
    of = st.sets(st.integers(0, 2), max_size=2)
    groups = draw(st.lists(of, min_size=n, max_size=n))
    pinned = draw(st.lists(st.integers(0, n - 1), max_size=2, unique=True))
    room = draw(st.lists(st.integers(0, 3), min_size=3, max_size=3))
    vectors = AXES[draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))]
    return Plain(groups, room, pinned, draw(st.sampled_from([0.0, 0.5, 1.0])), vectors)


@given(
    st.data(),
    st.lists(st.tuples(VALUES, st.sampled_from([0.0, 0.25, 0.5])), min_size=1, max_size=12),
    st.integers(0, 8),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 100),
)
def test_the_kernel_follows_its_plain_form_slot_by_slot(
    data: st.DataObject, arms: list[tuple[float, float]], size: int, top_k: int, share: float, seed: int
) -> None:
    mean, bonus = np.array(arms).T
    rules, law = data.draw(plain_rules(len(arms))), Exploration(top_k, share)
    found = choose_ruled_slate(mean, bonus, size, law, rules.compiled(), np.random.default_rng(seed))
    slate: list[int] = []
    possible = np.zeros(len(arms), np.bool_)
    for slot, chosen in enumerate(found.shown.tolist()):
        chances, greedy = slot_chances(mean, bonus, rules, slate, law)
        assert chances.sum() == pytest.approx(1)
        assert found.probabilities[slot] == pytest.approx(chances[chosen])
        assert found.greedy is not None
        assert found.greedy_mean is not None
        assert found.greedy[slot] == pytest.approx(greedy[chosen])
        assert found.greedy_mean[slot] == pytest.approx(greedy @ mean)
        possible |= (chances > 0) | (greedy > 0)
        slate.append(chosen)
    left, _ = rules.state(slate)
    assert len(slate) == size or not left.any(), "it is shorter only where the rules leave nothing"
    possible[slate] = False
    assert found.explored.tolist() == np.flatnonzero(possible).tolist()


@given(
    st.lists(st.tuples(VALUES, st.sampled_from([0.0, 0.25])), min_size=1, max_size=20),
    st.integers(0, 8),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 0.9]),
    st.integers(0, 100),
)
def test_without_rules_it_is_the_slate_that_there_is_without(
    arms: list[tuple[float, float]], size: int, top_k: int, share: float, seed: int
) -> None:
    mean, bonus = np.array(arms).T
    rules = free(len(arms)).compiled()
    ruled = choose_ruled_slate(mean, bonus, size, Exploration(top_k, share), rules, np.random.default_rng(seed))
    plain = choose_slate(mean, bonus, size, top_k, share, np.random.default_rng(seed))
    assert ruled.shown.tolist() == plain.shown.tolist()
    assert ruled.probabilities == pytest.approx(plain.probabilities)


def test_by_hand() -> None:
    """The best two are of one kind, of which one may be there: behind it comes the third. A pin takes the place of the
    kind from the beginning, and then neither of the two comes."""
    mean, nothing = np.array([0.9, 0.8, 0.3, 0.2]), np.zeros(4)
    capped = free(4)._replace(groups=[{0}, {0}, set(), {0}], room=[1])

    def greedy(rules: Plain) -> list[int]:
        law, rng = Exploration(1, 0.0), np.random.default_rng(0)
        return [int(i) for i in choose_ruled_slate(mean, nothing, 3, law, rules.compiled(), rng).shown]

    assert greedy(capped) == [0, 2]
    assert greedy(capped._replace(pinned=[3])) == [2]
    # Of what is like the first by .6 and by 1, at half the diversity: .8 (1 - .5), .3 (1 - .3), .2.
    alike = free(4)._replace(diversity=0.5, vectors=np.array([[1.0, 0], [1, 0], [0.6, 0.8], [0, 1]]))
    assert greedy(alike) == [0, 1, 2]
    assert greedy(alike._replace(diversity=1.0)) == [0, 3, 2], "0, .3 (1 - .6) and .2; then .3 (1 - .8)"


@pytest.mark.parametrize("diversity", [0.0, 0.7])
def test_logged_probabilities_are_the_real_frequencies(diversity: float) -> None:
    """Every sequence of three items out of six, of which at most one is of the first kind and two of the second, one
    being pinned; against the product of the logged probabilities, 60,000 draws."""
    mean, bonus = np.array([0.5, 0.5, 0.4, 0.2, 0.1, 0.3]), np.array([0.01, 0.1, 0.2, 0.4, 0.3, 0.0])
    rules = Plain([{0}, {0}, {0, 1}, {1}, set(), {1}], [1, 2], [5], diversity, AXES[[0, 3, 1, 3, 0, 1]]).compiled()
    rng, draws = np.random.default_rng(7), 60_000
    counts: dict[tuple[int, ...], int] = {}
    expected: dict[tuple[int, ...], float] = {}
    for _ in range(draws):
        slate = choose_ruled_slate(mean, bonus, 3, Exploration(3, 0.5), rules, rng)
        sequence = tuple(slate.shown.tolist())
        counts[sequence] = counts.get(sequence, 0) + 1
        expected[sequence] = slate.probabilities.prod()
    assert sum(expected.values()) == pytest.approx(1, abs=1e-9)
    frequent = [s for s in expected if expected[s] * draws >= 5]
    observed = np.array([counts[s] for s in frequent], dtype=float)
    wanted = np.array([expected[s] for s in frequent])
    assert chisquare(observed, wanted / wanted.sum() * observed.sum()).pvalue > 1e-3
