"""What the bandit bench measures is what it says it measures."""

from collections import Counter

import numpy as np
import pytest

from benchmarks.bandit.log import CLICKS, CLUSTERS, SLATE, records
from benchmarks.bandit.rounds import rates
from benchmarks.bandit.world import ACTIVE_CLUSTERS, choices
from feature_store.contracts.events import decode
from feature_store.graph import Graph
from feature_store.namespace import Namespace, Start
from feature_store.sums import ITEM, NO_ROWS
from infra.benchmarks.large_graph import EDGES_PER_CLUSTER, Size, all_rows, build_graph
from streaming.fold import Fold
from streaming.settings import RewardSettings

SIZE = Size(clusters=30, items=400)


def test_works_take_turns_and_the_first_round_does_not_count() -> None:
    turns: list[str] = []

    def work(name: str) -> int:
        turns.append(name)
        return 0 if len(turns) <= 2 else 5

    found = rates({"a": lambda: work("a"), "b": lambda: work("b")}, rounds=3)
    assert turns == ["a", "b"] * 4
    assert all(min(rate) > 0 for rate in found.values())  # the first round's zeros are in no median


def test_every_cluster_has_its_hundred_edges_and_every_edge_a_row() -> None:
    graph = build_graph(SIZE, np.random.default_rng(1))
    assert [len(graph.items_of(c)) for c in range(30)] == [EDGES_PER_CLUSTER] * 30
    rows = all_rows(graph, np.random.default_rng(1))
    named = {(graph.items[item], cluster) for item, cluster in zip(rows.item, rows.cluster, strict=True)}
    every = {(name, int(c)) for j, name in enumerate(graph.items) for c in graph.clusters_of(j)}
    assert named == every | {(name, ITEM) for name in graph.items}
    assert len(named) == len(rows.item) == SIZE.edges + SIZE.items
    for choice in choices(graph, 3, np.random.default_rng(1)):
        connected = sum(np.isin(choice.candidates, graph.items_of(c)).sum() for c in choice.clusters)
        assert connected == ACTIVE_CLUSTERS * EDGES_PER_CLUSTER
        assert choice.weights.sum() == pytest.approx(1)


def test_the_log_holds_decisions_that_learn_from_every_event() -> None:
    events = [event for _, value in records(decisions=5, seed=1) for event in decode(value)]
    namespace = Namespace(
        id="r-0", release="0123456789abcdef", log="log", offsets=[0], created=0, graph=Graph(300), base=NO_ROWS,
        starts=[Start()],
    )  # fmt: skip
    fold = Fold(namespace, RewardSettings(), namespace.starts[0])
    fold.apply(events)
    assert fold.outcomes == Counter({"decision": 5, "learnt": 5 * CLICKS})
    assert fold.take_dead() == []
    changed = fold.take().rows
    assert np.count_nonzero(changed.cluster != ITEM) == 5 * SLATE * CLUSTERS  # items and clusters are drawn anew


def test_peers_decide_on_the_same_candidates() -> None:
    pytest.importorskip("vowpalwabbit")
    pytest.importorskip("mabwiser")
    from benchmarks.bandit import kernels

    found = kernels.decisions(SIZE, 0)
    assert found["made"].keys() == {"score", "score_and_one", "score_and_slate", "vowpalwabbit", "mabwiser"}
    assert all(min(rate.values()) > 0 for rate in found["made"].values())
    assert 100 < found["candidates"] <= 400
