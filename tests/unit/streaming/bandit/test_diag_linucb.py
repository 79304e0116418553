"""Diag-LinUCB: hand-worked numbers, the laws of each form, and the kernel against its plain form."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gamma

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.graph import Adjacency, Graph
from feature_store.sums import EXPECTED, REWARD, SERVED, B, D, F, N, S
from streaming.bandit.diag_linucb import Estimate, Table, benefit_of_doubt, context, score
from streaming.bandit.prior import Group, Prior
from streaming.settings import BanditSettings, ScoreForm

PUBLISHED = BanditSettings(form=ScoreForm.PUBLISHED, alpha=1.5, edge_prior=0.25)
RATIO = BanditSettings(form=ScoreForm.RATIO, alpha=2.0, edge_prior=1.0, new_item_quantile=0.5)
OPTIMISTIC = RATIO.model_copy(update={"new_item_quantile": 0.75})
AS_PREDICTED = Group(odds=1.0, trust=5.0, evidence=5.0)


def _table(graph: Graph, edges: np.ndarray, items: np.ndarray, prior: Prior | None = None) -> Table:
    new = np.arange(len(items)) % 3 == 2
    return Table(graph.adjacency, edges, items, new, items.sum(axis=0), prior or Prior.unknown())


def _one_item(edge: Sequence[float], item: Sequence[float], prior: Prior | None = None) -> Table:
    graph = Graph.build(["a"], np.array([0]), np.array([0]), clusters=1)
    return _table(graph, np.array([edge], dtype=float), np.array([item], dtype=float), prior)


CLUSTER, WEIGHT, CANDIDATE = np.array([0]), np.array([1.0]), np.array([0])


def test_published_cold_bonus_is_alpha_over_root_of_the_prior() -> None:
    estimate = score(PUBLISHED, CLUSTER, WEIGHT, CANDIDATE, np.array([0.7]), _one_item([0] * 5, [0] * 5))
    assert estimate.bonus[0] == pytest.approx(1.5 / math.sqrt(0.25))
    assert estimate.mean[0] == 0


def test_published_score_by_hand() -> None:
    # w = 1/2, served 3, d 7/4, b 1: mean = 1/2 * 1 / 2, bonus = 3/2 * sqrt(1/4 / (13/4))
    estimate = score(
        PUBLISHED, CLUSTER, np.array([0.5]), CANDIDATE, np.array([0.7]), _one_item([3, 1.75, 9, 1, 9], [9] * 5)
    )
    assert estimate.mean[0] == pytest.approx(1 / 4)
    assert estimate.bonus[0] == pytest.approx(1.5 * math.sqrt(1 / 13))


def test_ratio_score_by_hand() -> None:
    # Item: 10 trials predicted at 1/5, of odds 1/4. Its group's odds are 4 times the predicted ones: 1, so 5 rewards
    # are expected. 7 came; with a = 5 that makes lambda = 12/10 and a chance of 6/10, of odds 3/2.
    prior = Prior(Group(4.0, 5.0, 5.0), AS_PREDICTED, edge=2.0, least=0.0, dispersion=0.5, ceiling=1.0)
    item = [10, 10, 7, 7, 2]
    # A prediction of 1/2, of odds 1: times (3/2) / (1/4) = 6, a chance of 6/7, without the edge.
    without = score(RATIO, CLUSTER, WEIGHT, CANDIDATE, np.array([0.5]), _one_item([0] * 5, item, prior))
    assert without.mean[0] == pytest.approx(6 / 7)
    # One edge, w = 1/2 in all 4 trials: served = d = 1, s = 2, f = 0.4, so 0.4 * (6/10) / (1/5) = 1.2 are expected.
    # b = 2: theta - 1 = w (2 - 1.2) / (1.2 * 1/2 + 2) = 2/13, worth (2/13) / (1 - 6/10) = 5/13 in log odds.
    estimate = score(
        RATIO, CLUSTER, np.array([0.5]), CANDIDATE, np.array([0.5]), _one_item([1, 1, 2, 2, 0.4], item, prior)
    )
    odds = 6 * math.exp(5 / 13)
    assert estimate.mean[0] == pytest.approx(odds / (1 + odds))
    # The relative variance: phi times 1 - 6/10, times 1/12 for the item and w^2 / (1.2 * 1/2 + edge_prior) for edges.
    spread = 0.5 * (1 / 12 + 0.25 / (0.6 + RATIO.edge_prior))
    assert estimate.bonus[0] == pytest.approx(2 * odds / (1 + odds) ** 2 / (1 - 0.6) * math.sqrt((1 - 0.6) * spread))


def test_new_items_are_held_against_their_own_group() -> None:
    prior = Prior(AS_PREDICTED, Group(3.0, 1.0, 1.0), edge=1.0, least=0.0, dispersion=1.0, ceiling=1.0)
    graph = Graph.build(list("abc"), np.arange(3), np.zeros(3, np.int64), clusters=1)
    table = _table(graph, np.zeros((3, 5)), np.zeros((3, 5)), prior)  # the last one is new
    estimate = score(RATIO, CLUSTER, WEIGHT, np.arange(3), np.full(3, 0.1), table)
    assert estimate.mean == pytest.approx([0.1, 0.1, 0.25])  # odds 1/9 and 3/9
    assert estimate.bonus[2] > 2 * estimate.bonus[0]


@pytest.mark.parametrize("shape", [0.4, 1.4, 5.0, 40.0])
@pytest.mark.parametrize("quantile", [0.6, 0.75, 0.9])
def test_the_benefit_of_the_doubt_is_a_quantile_over_the_mean(shape: float, quantile: float) -> None:
    found = benefit_of_doubt(shape, NormalDist().inv_cdf(quantile))
    assert found == pytest.approx(max(gamma.ppf(quantile, shape) / shape, 1), rel=0.05)
    assert benefit_of_doubt(shape, 0.0) == 1


def test_a_new_item_has_the_benefit_of_the_doubt_and_less_of_it_when_more_is_known() -> None:
    prior = Prior(AS_PREDICTED, Group(1.0, 1.0, 1.0), edge=1.0, least=0.0, dispersion=1.0, ceiling=1.0)
    graph = Graph(1).with_items(list("abcdef"), [[]] * 6)  # c and f are new; f earned what was expected
    items = np.zeros((6, 5))
    items[5] = [100, 100, 10, 10, 10]
    table = _table(graph, np.zeros((0, 5)), items, prior)
    mean = score(OPTIMISTIC, CLUSTER, WEIGHT, np.arange(6), np.full(6, 0.1), table).mean
    doubt = gamma.ppf(0.75, 1), gamma.ppf(0.75, 11) / 11
    odds = np.array([1, 1, doubt[0], 1, 1, doubt[1]]) / 9
    assert mean == pytest.approx(odds / (1 + odds), rel=0.01)


def test_a_group_may_be_steeper_than_its_predictions() -> None:
    # From its centre, of odds 1/4, what is predicted at odds 1/8 is half as likely, and squared that is 1/4: 1/16, and
    # 1/8 with the group's odds of 2.
    steep = Group(odds=2.0, trust=5.0, evidence=5.0, slope=2.0, centre=0.2)
    prior = Prior(steep, AS_PREDICTED, edge=1.0, least=0.0, dispersion=1.0, ceiling=1.0)
    found = score(RATIO, CLUSTER, WEIGHT, CANDIDATE, np.array([1 / 9]), _one_item([0] * 5, [0] * 5, prior))
    assert found.mean[0] == pytest.approx(1 / 9)
    # Of 9 trials predicted so 1 was expected, and 4 came: lambda = 9/6, a chance of 1/6, of odds 1/5 in place of 1/8.
    tried = score(RATIO, CLUSTER, WEIGHT, CANDIDATE, np.array([0.2]), _one_item([0] * 5, [9, 9, 4, 4, 1], prior))
    assert tried.mean[0] == pytest.approx(4 / 9), "odds of 2 * 1/4 * 8/5"


def test_what_is_known_for_the_bonus_is_apart_from_what_is_believed() -> None:
    doubted = Group(odds=1.0, trust=5.0, evidence=2.0)
    found = [
        score(RATIO, CLUSTER, WEIGHT, CANDIDATE, np.array([0.1]), _one_item([0] * 5, [10, 10, 4, 4, 1], prior))
        for prior in (
            Prior(group, group, edge=1.0, least=0.0, dispersion=1.0, ceiling=1.0) for group in (AS_PREDICTED, doubted)
        )
    ]
    assert found[0].mean == found[1].mean
    edge = 1 / RATIO.edge_prior  # of which nothing is known
    assert (found[1].bonus[0] / found[0].bonus[0]) ** 2 == pytest.approx((1 / 6 + edge) / (1 / 9 + edge))


def test_what_is_on_its_way_counts_as_expected() -> None:
    prior = Prior(AS_PREDICTED, AS_PREDICTED, edge=1.0, least=0.0, dispersion=1.0, ceiling=1.0)
    estimates = [
        score(RATIO, CLUSTER, WEIGHT, CANDIDATE, np.array([0.1]), _one_item([0] * 5, [served, 10, 4, 4, 1], prior))
        for served in (10, 110, 1_000_010)
    ]
    means = [float(estimate.mean[0]) for estimate in estimates]
    assert means[:2] == pytest.approx([0.1 * 9 / 6, 0.1 * 19 / 16])
    assert means[2] == pytest.approx(0.1, rel=1e-3)
    bonuses = [float(estimate.bonus[0]) for estimate in estimates]
    assert bonuses == sorted(bonuses, reverse=True)


predictions = st.floats(0, 1)


@given(predictions)
def test_without_trials_it_is_the_offline_prediction(p: float) -> None:
    estimate = score(RATIO, CLUSTER, WEIGHT, CANDIDATE, np.array([p]), _one_item([0] * 5, [0] * 5))
    assert estimate.mean[0] == pytest.approx(p, abs=1e-8)


@given(st.integers(1, 10_000), st.floats(0.01, 0.99))
def test_it_stays_at_a_prediction_that_is_right(trials: int, p: float) -> None:
    item = [trials, trials, trials * p, trials * p, trials * p]
    estimate = score(RATIO, CLUSTER, WEIGHT, CANDIDATE, np.array([p]), _one_item(item, item))
    assert estimate.mean[0] == pytest.approx(p)


@given(predictions, st.integers(0, 50), st.data())
def test_it_is_monotone_in_reward(p: float, trials: int, data: st.DataObject) -> None:
    less = data.draw(st.floats(0, trials))
    more = data.draw(st.floats(less, trials))
    predicted = np.array([data.draw(predictions)])
    means = [
        score(
            RATIO, CLUSTER, WEIGHT, CANDIDATE, predicted,
            _one_item([trials, trials, trials, reward, trials * p], [trials, trials, reward, reward, trials * p]),
        ).mean[0]
        for reward in (less, more)
    ]  # fmt: skip
    assert means[0] <= means[1] + 1e-9


rewards = st.floats(-1e6, 1e6)
rows = st.tuples(st.integers(0, 100), st.integers(0, 100), rewards, st.floats(0, 1e12), st.floats(0, 100))
groups = st.builds(
    Group, odds=st.floats(1e-6, 1e6), trust=st.floats(0.1, 100), evidence=st.floats(0.1, 100),
    slope=st.floats(0.1, 10), centre=st.floats(1e-9, 1 - 1e-9),
)  # fmt: skip
priors = st.builds(
    Prior, known=groups, new=groups, edge=st.floats(0.1, 100), least=st.floats(0, 0.1), dispersion=st.floats(1e-9, 1),
    ceiling=st.floats(1, 1e6),
)  # fmt: skip


@given(st.sampled_from([0.0, 1e-300, 0.5, 1.0]), rows, rows, priors)
def test_whatever_the_sums_are_a_mean_is_a_chance(
    p: float, edge: tuple[float, ...], item: tuple[float, ...], prior: Prior
) -> None:
    estimate = score(RATIO, CLUSTER, WEIGHT, CANDIDATE, np.array([p]), _one_item(edge, item, prior))
    assert 0 <= estimate.mean[0] <= prior.ceiling
    assert np.isfinite(estimate.bonus[0])
    assert estimate.bonus[0] >= 0


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.floats(0, 1)), max_size=40))
def test_published_is_exact_linucb_on_one_hot_contexts(trials: list[tuple[int, int, float]]) -> None:
    """With one active cluster of weight 1 the covariance is diagonal: nothing is lost by keeping only the diagonal."""
    clusters, arms = 3, 4
    graph = Graph.build([str(j) for j in range(arms)], np.repeat(np.arange(arms), clusters),
                        np.tile(np.arange(clusters), arms), clusters)  # fmt: skip
    edges = np.zeros((arms * clusters, 5))
    a = np.stack([PUBLISHED.edge_prior * np.eye(clusters)] * arms)
    b = np.zeros((arms, clusters))
    for c, j, r in trials:
        edges[graph.row(c, j)] += [1, 1, 1, r, 0]
        x = np.eye(clusters)[c]
        a[j] += np.outer(x, x)
        b[j] += r * x
    table = _table(graph, edges, np.zeros((arms, 5)))
    for c in range(clusters):
        x = np.eye(clusters)[c]
        mean = np.array([x @ np.linalg.solve(a[j], b[j]) for j in range(arms)])
        bonus = np.array([PUBLISHED.alpha * math.sqrt(x @ np.linalg.solve(a[j], x)) for j in range(arms)])
        estimate = score(PUBLISHED, np.array([c]), np.array([1.0]), np.arange(arms), np.zeros(arms), table)
        assert estimate.mean == pytest.approx(mean)
        assert estimate.bonus == pytest.approx(bonus)


def _plain_score(
    settings: BanditSettings, clusters: Int64, weights: Float64, candidates: Int64, predicted: Float64, table: Table
) -> Estimate:
    """The same as score, written out one candidate at a time."""
    row_of = [_rows_by_item(table.adjacency, int(c)) for c in clusters]
    estimates = []
    for j, p in zip(candidates, predicted, strict=True):
        active = [
            (k, w, table.edges[row_of[k][j]] / table.trial_weight) for k, w in enumerate(weights) if j in row_of[k]
        ]
        mask = sum(1 << k for k, _, _ in active)
        if settings.form is ScoreForm.PUBLISHED:
            mean = sum(w * row[B] / (row[D] + settings.edge_prior) for _, w, row in active)
            width = sum(w**2 / (row[SERVED] + settings.edge_prior) for _, w, row in active)
            bonus = settings.alpha * math.sqrt(width)
        else:
            item, prior = table.items[j] / table.trial_weight, table.prior
            group = prior.new if table.new[j] else prior.known
            usual = _read(item[EXPECTED] / item[N], prior)
            expected = _tilted(usual, group)
            waiting, reward = max(item[SERVED] - item[N], 0) * expected, item[REWARD] / prior.ceiling
            trust = group.trust + waiting
            level = (reward + trust) / (item[N] * expected + trust) * expected
            theta, spread = 1.0, 1 / (reward + group.evidence + waiting)
            for _, w, row in active:
                wanted = level / usual * (prior.least * row[S] + (1 - prior.least) * row[F])
                known = wanted * row[D] / row[S] + max(row[SERVED] - row[D], 0) * level
                theta += w * (row[B] / prior.ceiling - wanted) / (known + prior.edge)
                spread += w**2 / (known + settings.edge_prior)
            level = min(level, 1.0)
            log_odds = math.log(_odds(level) / _odds(expected)) + min((theta - 1) / max(1 - level, 1e-9), 30.0)
            mean = _with_odds(_tilted(_read(p, prior), group), math.exp(log_odds))
            deviation = mean * (1 - mean) / math.sqrt(max(1 - level, 1e-9)) * math.sqrt(prior.dispersion * spread)
            if table.new[j]:
                k, z = reward + trust, NormalDist().inv_cdf(settings.new_item_quantile)
                doubt = max((1 - 1 / (9 * k) + z / (3 * math.sqrt(k))) ** 3, 1)
                mean = mean * doubt / (1 - mean + mean * doubt)
            mean, bonus = prior.ceiling * mean, settings.alpha * prior.ceiling * deviation
        estimates.append((mean, bonus, mask))
    return Estimate(
        np.array([mean for mean, _, _ in estimates], dtype=np.float64),
        np.array([bonus for _, bonus, _ in estimates], dtype=np.float64),
        np.array([mask for _, _, mask in estimates], dtype=np.uint64),
    )


def _read(chance: float, prior: Prior) -> float:
    return float(prior.least + (1 - prior.least) * chance)


def _tilted(chance: float, group: Group) -> float:
    centre = math.log(_odds(group.centre))
    log_odds = math.log(group.odds) + centre + group.slope * (math.log(_odds(chance)) - centre)
    return 1 / (1 + math.exp(-log_odds))


def _odds(chance: float) -> float:
    chance = min(max(chance, 1e-9), 1 - 1e-9)
    return chance / (1 - chance)


def _with_odds(chance: float, factor: float) -> float:
    odds = _odds(chance) * factor
    return float(odds / (1 + odds))


def _rows_by_item(adjacency: Adjacency, cluster: int) -> dict[int, int]:
    first = slice(adjacency.start[cluster], adjacency.start[cluster + 1])
    rows = dict(zip(adjacency.items[first].tolist(), range(first.start, first.stop), strict=True))
    at = int(adjacency.newest[cluster])
    while at >= 0:
        rows[int(adjacency.appended[at])] = len(adjacency.items) + at
        at = int(adjacency.older[at])
    return rows


@pytest.mark.parametrize("form", [PUBLISHED, RATIO, OPTIMISTIC])
@pytest.mark.parametrize("trial", [1.0, 7.5])
@pytest.mark.parametrize("seed", range(5))
def test_the_kernel_equals_its_plain_form(form: BanditSettings, seed: int, trial: float) -> None:
    rng = np.random.default_rng(seed)
    clusters, items = 20, 50
    connected = rng.random((items, clusters)) < 0.3
    pairs, built = np.argwhere(connected), 5 * seed
    first = pairs[pairs[:, 0] < built]
    graph = Graph.build([str(j) for j in range(built)], first[:, 0], first[:, 1], clusters)
    later = range(built, items)
    graph = graph.with_items([str(j) for j in later], [np.flatnonzero(connected[j]).tolist() for j in later])
    known, new = (Group(*rng.uniform([0.5] * 4 + [0.1], [3] * 4 + [0.6])) for _ in range(2))
    prior = Prior(known, new, rng.uniform(3, 9), least=0.1, dispersion=0.8, ceiling=1.5)
    edge_rows, item_rows = rng.random((len(pairs), 5)) * 10, rng.random((items, 5)) * 10
    item_rows[:, EXPECTED] *= 0.1 * item_rows[:, N]
    table = _table(graph, edge_rows, item_rows, prior)._replace(trial_weight=trial)
    active = np.sort(rng.choice(clusters, 5, replace=False))
    weights = rng.dirichlet(np.ones(5))
    candidates, predicted = rng.permutation(items)[:30], rng.random(30)
    fast = score(form, active, weights, candidates, predicted, table)
    plain = _plain_score(form, active, weights, candidates, predicted, table)
    assert fast.mean == pytest.approx(plain.mean)
    assert fast.bonus == pytest.approx(plain.bonus)
    assert fast.edges.tolist() == plain.edges.tolist()
    assert fast.edges.tolist() == (connected[np.ix_(candidates, active)] @ (1 << np.arange(5))).tolist()
    assert len(set(fast.edges.tolist())) > 3


def test_context_takes_the_nearest_clusters_and_weighs_them_by_softmax() -> None:
    centroids = np.array([[1, 0], [0, 1], [-1, 0], [0.6, 0.8]], dtype=np.float32)
    clusters, weights = context(np.array([0.6, 0.8], dtype=np.float32), centroids, active=2, temperature=0.1)
    assert clusters.tolist() == [1, 3]  # similarities 0.6, 0.8, -0.6, 1
    assert weights[1] / weights[0] == pytest.approx(math.exp((1 - 0.8) / 0.1), rel=1e-4)
    assert weights.sum() == pytest.approx(1)


@given(st.integers(1, 80), st.integers(1, 70), st.floats(1e-4, 10))
def test_context_weights_are_always_in_range(clusters: int, active: int, temperature: float) -> None:
    rng = np.random.default_rng(clusters)
    centroids = rng.normal(size=(clusters, 3)).astype(np.float32)
    chosen, weights = context(centroids[0], centroids, active, temperature)
    assert len(chosen) == min(clusters, active, 62)
    assert weights.min() > 0
    assert weights.max() <= 1
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("weight", [0.0, -0.1, 1.1, math.nan])
def test_weights_outside_their_range_are_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match=r"must lie in \(0, 1\]"):
        score(PUBLISHED, CLUSTER, np.array([weight]), CANDIDATE, np.zeros(1), _one_item([0] * 5, [0] * 5))
