"""The prior against worlds whose levels it must recover, against a plain form of its formulas, and the laws of a fit to
sums."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import root

from feature_store.arrays import Bool, Float64
from feature_store.contracts.errors import InvalidInput
from feature_store.graph import Graph
from feature_store.sums import COLUMNS, EXPECTED, REWARD, REWARD_SQ, B, D, F, N, S
from streaming.bandit.prior import Prior, fit

CLUSTERS = 4


class World:
    """Trials with their sums, added up here: items, of which the last ones are new, that earn their own multiple of
    their prediction, and edges that earn their own multiple of that."""

    def __init__(
        self, seed: int, trials: int, *, items: int = 60, new: int = 0, ratios: tuple[float, float] = (1.0, 1.0),
        levels: float = 0.0, edges: float = 0.0, predicted: float = 0.1,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(seed)
        pairs = np.repeat(np.arange(items), CLUSTERS), np.tile(np.arange(CLUSTERS), items)
        self.graph = Graph.build([str(j) for j in range(items)], *pairs, CLUSTERS)
        self.new: Bool = np.arange(items) >= items - new
        own = np.where(self.new, ratios[1], ratios[0])
        own *= rng.gamma(1 / levels, levels, items) if levels else 1.0
        self.items, self.edges = np.zeros((items, COLUMNS)), np.zeros((items * CLUSTERS, COLUMNS))
        for j in range(items):
            for c in range(CLUSTERS):
                n = trials // (items * CLUSTERS)
                differs = rng.gamma(1 / edges, edges) if edges else 1.0
                p = rng.uniform(0.5, 1.5, n) * predicted
                r = (rng.random(n) < p * own[j] * differs).astype(float)
                self.items[j] += [n, n, r.sum(), (r * r).sum(), p.sum()]
                self.edges[self.graph.row(c, j)] += [n, n, n, r.sum(), p.sum()]

    def unpredicted(self) -> "World":
        """The same trials where nobody predicts anything."""
        self.items[:, EXPECTED], self.edges[:, F] = 0.0, 0.0
        return self

    def fit(self, scale: float = 1.0) -> Prior:
        items = scale * self.items
        return fit(self.graph.adjacency, scale * self.edges, items, self.new, items.sum(axis=0), scale)


def odds(chance: Any) -> Any:
    return chance / (1 - chance)


def read(chance: float, reward: float) -> float:
    """As a prediction is read: 0 as a tenth of the mean reward, 1 as 1."""
    return 0.1 * reward + (1 - 0.1 * reward) * chance


def numbers(prior: Prior) -> list[float]:
    return [*prior.known, *prior.new, *prior[2:]]


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_a_ratio_that_all_items_share_is_recovered(ratio: float) -> None:
    prior = World(1, 60_000, ratios=(ratio, ratio)).fit()
    assert prior.known.odds == pytest.approx(odds(0.1 * ratio) / odds(read(0.1, 0.1 * ratio)), rel=0.05)
    assert prior.edge == 100, "the order of the predictions is not given up for little"
    assert prior.known.slope == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_how_steeply_items_differ_by_their_predictions_is_recovered(slope: float) -> None:
    """Each group by itself, round what it earns on average."""
    rng, n = np.random.default_rng(11), 2_000
    usual, least = rng.uniform(0.03, 0.2, 200), 0.011
    new = np.arange(200) >= 100
    steep = np.where(new, slope, 1.0)
    centre = odds(np.average(usual, weights=usual))
    own = centre * (odds(usual) / centre) ** steep
    reward = rng.binomial(n, own / (1 + own)).astype(float)
    items = np.column_stack([np.full(200, n), np.full(200, n), reward, reward, n * (usual - least) / (1 - least)])
    graph = Graph(1).with_items([str(j) for j in range(200)], [[]] * 200)
    prior = fit(graph.adjacency, np.zeros((0, COLUMNS)), items, new, items.sum(axis=0))
    assert prior.known.slope == pytest.approx(1.0, abs=0.1)
    assert prior.new.slope == pytest.approx(slope, abs=0.2)
    assert prior.new.trust > 50, "what the slope tells is no difference between items"


def test_few_rewards_say_little_of_a_slope() -> None:
    world = World(12, 2_000)
    assert world.fit().known.slope == pytest.approx(1, abs=0.4)


def test_a_new_item_is_doubted_where_there_are_predictions() -> None:
    world = World(13, 60_000, new=20)
    assert world.fit().new.evidence == 2
    assert world.fit().known.evidence == world.fit().known.trust
    unpredicted = world.unpredicted().fit()
    assert unpredicted.new.evidence == unpredicted.new.trust
    assert unpredicted.new.slope == unpredicted.known.slope == 1


def test_known_and_new_items_have_a_level_of_their_own() -> None:
    prior = World(2, 100_000, new=20, ratios=(0.8, 4.0)).fit()
    usual = read(0.1, (40 * 0.08 + 20 * 0.4) / 60)
    assert prior.known.odds == pytest.approx(odds(0.08) / odds(usual), rel=0.05)
    assert prior.new.odds == pytest.approx(odds(0.4) / odds(usual), rel=0.06)


def test_one_find_says_little_of_other_new_items_and_so_do_some_that_nobody_wanted() -> None:
    """Of 40 new items 25 had some trials each, half a reward expected; known ones earn what is predicted."""
    known = np.tile([2_000.0, 2_000, 100, 100, 100], (50, 1))
    tried = np.tile([10.0, 10, 0, 0, 0.5], (25, 1))
    never = np.zeros((15, COLUMNS))
    find = np.array([[1_000.0, 1_000, 300, 300, 50]])
    graph = Graph(1).with_items([str(j) for j in range(91)], [[]] * 91)

    def level(items: Float64) -> float:
        new, rows = np.arange(len(items)) >= 50, graph.adjacency
        return fit(rows, np.zeros((0, COLUMNS)), items, new, items.sum(axis=0)).new.odds

    unwanted, found = level(np.vstack([known, tried, never])), level(np.vstack([known, tried, never, find]))
    assert 0.6 < unwanted < 0.9, "with 12.5 expected and none of them come; 5 / 17.5 if all counted against 5"
    assert unwanted < found < 1.3, "not the 300 / 62.5 that came of all"


def test_a_group_without_trials_is_as_all_are() -> None:
    prior = World(3, 60_000, ratios=(2.0, 2.0)).fit()
    assert prior.new.odds == pytest.approx(prior.known.odds, rel=0.01)


@pytest.mark.parametrize("variance", [0.1, 0.5])
def test_how_much_items_differ_is_recovered(variance: float) -> None:
    # lambda ~ Gamma(1 / variance, variance) has a = 1 / variance; rare rewards have a dispersion near 1
    prior = World(4, 1_200_000, items=300, new=300, levels=variance, predicted=0.05).fit()
    assert prior.new.trust == pytest.approx(1 / variance, rel=0.25)
    assert prior.dispersion == pytest.approx(1.0, abs=0.01), "rewards are 0 or 1"


def test_edges_that_differ_more_are_trusted_more() -> None:
    alike, different = (World(5, 60_000, edges=edges).unpredicted().fit() for edges in (0.0, 0.5))
    assert 0.1 <= different.edge < alike.edge <= 100


def test_it_is_the_plain_form() -> None:
    world = World(6, 20_000, new=20, ratios=(0.7, 2.0), levels=0.3, edges=0.3)
    assert numbers(world.fit()) == pytest.approx(_plain_fit(world))
    assert numbers(world.unpredicted().fit()) == pytest.approx(_plain_fit(world))


def _plain_fit(world: World) -> list[float]:
    """The same, written out with arrays."""
    items, new = world.items, world.new
    n, reward = items[:, N], items[:, REWARD]
    least = 0.1 * reward.sum() / (n.sum() + 1)
    usual = least + (1 - least) * items[:, EXPECTED] / n
    within = items[:, REWARD_SQ] - reward**2 / n
    binary = reward * (1 - reward / n)
    dispersion = min((1 + (within * n / (n - 1)).sum()) / (1 + (binary * n / (n - 1)).sum()), 1)
    general = (reward.sum() + 1) / ((n * usual).sum() + 1)
    expected, trust, found = np.zeros(len(items)), np.zeros(len(items)), []
    predicts = items[:, EXPECTED].any()
    for group in (~new, new):
        differ = predicts and group is new
        behind, otherwise = (20, 0.4) if differ else (5, 10.0)
        believed, each = np.inf, (n * usual)[group]
        for _ in range(2 if differ else 1):
            weight = 1 / (1 + general * each / believed)
            own, predicted = (weight * reward[group]).sum(), (weight * each).sum()
            mean = predicted / (weight * n[group]).sum()
            rate = mean * general * (own + behind) / (general * predicted + behind)
            factor = odds(rate) / odds(mean)
            slope, centre = 1.0, 0.5
            if predicts:
                factor, slope, centre = _plain_tilt(n[group], reward[group], usual[group], factor)
            chances = factor * odds(centre) * (odds(usual[group]) / odds(centre)) ** slope
            expected[group] = n[group] * chances / (1 + chances)
            rest = 1 - expected[group] / n[group]
            believed = _moments(reward[group], expected[group], 1.0, rest, dispersion, otherwise)
        trust[group] = believed
        found += [factor, believed, min(believed, 2.0) if differ else believed, slope, centre]
    level = (reward + trust) / (expected + trust)
    each = (level * expected / n / usual)[np.repeat(np.arange(len(items)), CLUSTERS)]
    order = np.array([world.graph.row(c, j) for j in range(len(items)) for c in range(CLUSTERS)], np.int64)
    edges = world.edges[order]
    wanted = each * (least * edges[:, S] + (1 - least) * edges[:, F])
    rest = np.maximum(1 - wanted / edges[:, S], 0)
    edge = max(0.1 * _moments(edges[:, B], wanted, edges[:, D] / edges[:, S], rest, dispersion, 30.0), 0.1)
    edge = 100 if predicts else edge
    return [*found, edge, least, dispersion, 1.0]


def _plain_tilt(n: Float64, reward: Float64, usual: Float64, factor: float) -> tuple[float, float, float]:
    expects = n * usual * factor / (1 - usual + usual * factor)
    mean = np.average(np.log(odds(usual)), weights=expects)
    x = np.log(odds(usual)) - mean

    def chances(intercept: float, slope: float) -> Any:
        return 1 / (1 + np.exp(-(np.log(factor) + mean + intercept + slope * x)))

    def score(at: Float64) -> list[float]:
        beyond = reward - n * chances(*at)
        return [float(beyond.sum() - at[0]), float((x * beyond).sum() - (at[1] - 1) / 0.5**2)]

    slope = float(root(score, [0.0, 1.0], tol=1e-12).x[1])
    return factor * expects.sum() / (n * chances(0, slope)).sum(), slope, 1 / (1 + np.exp(-mean))


def _moments(
    reward: Float64, expected: Float64, weight: Float64 | float, rest: Float64, dispersion: float, otherwise: float
) -> float:
    excess = ((reward - expected) ** 2 - dispersion * expected * weight * rest).sum() + 30 * dispersion / otherwise
    squares = ((expected * weight) ** 2).sum() + 30
    return float(np.clip(dispersion * squares / excess, 0.1, 100)) if excess > 0 else 100.0


def test_a_prior_is_fitted_in_trials_of_now() -> None:
    """Sums in another unit are the same trials."""
    world = World(7, 20_000, new=20, levels=0.3, edges=0.3)
    assert numbers(world.fit(7.5)) == pytest.approx(numbers(world.fit()))


@given(st.permutations(range(12)), st.integers(0, 2**32 - 1))
def test_the_order_of_items_does_not_matter(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = rng.uniform(0, 10, (12, COLUMNS))
    items[:, N] += 3
    new, graph = rng.random(12) < 0.5, Graph(1).with_items(list("abcdefghijkl"), [[]] * 12)
    none = np.zeros((0, COLUMNS))
    once = fit(graph.adjacency, none, items, new, items.sum(axis=0))
    again = fit(graph.adjacency, none, items[order], new[order], items.sum(axis=0))
    assert numbers(once) == pytest.approx(numbers(again))


amounts = st.floats(-1e6, 1e6)


@example(trials=[(20, 2.2e-309, 0.0, False)])
@given(st.lists(st.tuples(st.integers(0, 90), amounts, st.floats(0, 1), st.booleans()), min_size=1, max_size=5))
def test_whatever_the_rewards_are_the_prior_is_finite(trials: list[tuple[int, float, float, bool]]) -> None:
    """One item, a group of one, rewards all equal, below 0 and above 1, predictions of 0 and 1."""
    items = np.array([[n, n, n * r, n * r * r, n * p] for n, r, p, _ in trials])
    new = np.array([new for *_, new in trials])
    graph = Graph.build([str(j) for j in range(len(items))], np.arange(len(items)), np.zeros(len(items), np.int64), 1)
    prior = fit(graph.adjacency, items, items, new, items.sum(axis=0))
    assert np.isfinite(numbers(prior)).all()
    for group in (prior.known, prior.new):
        assert group.odds > 0
        assert 0.1 <= group.evidence <= group.trust <= 100
        assert 0.1 <= group.slope <= 10
        assert 0 < group.centre < 1
    assert 0.1 <= prior.edge <= 100
    assert prior.ceiling >= 1
    assert 0 <= prior.least <= 0.1
    assert 0 < prior.dispersion <= 1


def test_rewards_beyond_1_are_measured_by_the_best_item() -> None:
    world = World(8, 20_000, levels=0.3)
    worth = np.array([1, 1, 40, 1600, 1])
    items, edges = world.items * worth, world.edges * [1, 1, 1, 40, 1]
    prior = fit(world.graph.adjacency, edges, items, world.new, items.sum(axis=0))
    assert prior.ceiling == 40
    assert numbers(prior._replace(ceiling=1.0)) == pytest.approx(numbers(world.fit()))


def test_a_prediction_of_nothing_is_read_as_a_tenth_of_the_usual_reward() -> None:
    items = np.array([[99, 99, 30, 30, 0.0]])
    graph = Graph(1).with_items(["a"], [[]])
    prior = fit(graph.adjacency, np.zeros((0, COLUMNS)), items, np.array([False]), items.sum(axis=0))
    assert prior.least == pytest.approx(0.1 * 30 / 100)


def test_nothing_seen_says_nothing() -> None:
    graph = Graph.build(["a"], np.array([0]), np.array([0]), 1)
    nothing = np.zeros((1, COLUMNS))
    assert fit(graph.adjacency, nothing, nothing, np.array([False]), np.zeros(COLUMNS)) == Prior.unknown()


def test_rows_of_another_graph_are_refused() -> None:
    world = World(9, 240)
    with pytest.raises(InvalidInput, match="3 edge rows for 240 edges"):
        fit(world.graph.adjacency, world.edges[:3], world.items, world.new, world.items.sum(axis=0))
