"""Decisions and updates in memory, beside the libraries that people would use instead. One thread."""

from typing import Any

import numpy as np

from benchmarks.bandit.peers import MabWiser, VowpalWabbit
from benchmarks.bandit.rounds import Rate, Work, rates
from benchmarks.bandit.world import ACTIVE_CLUSTERS, Choice, build_table, choices
from feature_store.graph import Graph
from feature_store.sums import Sums
from infra.benchmarks.large_graph import Size, build_graph
from streaming.bandit.diag_linucb import Table, score
from streaming.bandit.exploration import choose_slate
from streaming.bandit.update import Shares
from streaming.settings import BanditSettings

SLATE = 20
_CONNECTED = 5  # of the active clusters to each shown item: 100 edges a decision
_CHOICES = 256
_BATCHES = 10
_ROUNDS = 7


def decisions(size: Size, seed: int) -> dict[str, Any]:
    """Decisions with all items of the active clusters as candidates, also those of the peers: `score` is scoring alone,
    `score_and_one` also draws one item with its probability, which is what a peer's decision is, and
    `score_and_slate` fills SLATE slots."""
    rng = np.random.default_rng(seed)
    graph = build_graph(size, rng)
    table, made = build_table(graph, rng), choices(graph, _CHOICES, rng)
    peers = VowpalWabbit(graph, made), MabWiser(made[0], rng)
    works = _ours(table, made, rng) | {
        "vowpalwabbit": lambda: peers[0].decide(3),
        "mabwiser": lambda: peers[1].decide(2),
    }
    return {
        **size._asdict(),
        "edges": graph.n_edges,
        "active_clusters": ACTIVE_CLUSTERS,
        "candidates": float(np.mean([len(choice.candidates) for choice in made])),
        "made": _named(rates(works, _ROUNDS)),
        "peers_learnt": _named(
            rates({"vowpalwabbit": lambda: peers[0].learn(50), "mabwiser": lambda: peers[1].learn(1)}, _ROUNDS)
        ),
    }


def updates(size: Size, seed: int) -> dict[str, Any]:
    """Edge updates: from trials in columns to sums, in a table that has all rows already. Each update adds
    to five numbers; the rows of the items that are updated too are not counted."""
    rng = np.random.default_rng(seed)
    graph = build_graph(size, rng)
    batches = [_trials(graph, 500, rng) for _ in range(_BATCHES)]
    sums = Sums()
    sums.numbers.of(graph.items)

    def update() -> int:
        for shares, _ in batches:
            sums.add(*shares.additions())
        return sum(count for _, count in batches)

    found = rates({"made": update}, _ROUNDS)
    return {**size._asdict(), "edges_in_a_batch": batches[0][1], "batches": _BATCHES, **_named(found)}


def _named(found: dict[str, Rate]) -> dict[str, dict[str, float]]:
    return {name: rate._asdict() for name, rate in found.items()}


def _ours(table: Table, made: list[Choice], rng: np.random.Generator) -> dict[str, Work]:
    settings = BanditSettings()

    def scores() -> int:
        for choice in made:
            score(settings, *choice, table)
        return len(made)

    def slates(size: int) -> int:
        for choice in made:
            mean, bonus, _ = score(settings, *choice, table)
            choose_slate(mean, bonus, size, settings.explore_top_k, settings.explore_share, rng)
        return len(made)

    return {"score": scores, "score_and_one": lambda: slates(1), "score_and_slate": lambda: slates(SLATE)}


def _trials(graph: Graph, decisions: int, rng: np.random.Generator) -> tuple[Shares, int]:
    """Resolved trials, and how many edges they update."""
    shares = Shares()
    for _ in range(decisions):
        items = rng.integers(graph.size, size=SLATE)
        clusters = np.sort(rng.choice(graph.clusters, _CONNECTED, replace=False))
        every_edge = [(1 << _CONNECTED) - 1] * SLATE
        weights = rng.dirichlet(np.full(_CONNECTED, 5.0))
        shares.add(
            items.tolist(), rng.random(SLATE).tolist(), every_edge, clusters.tolist(), weights.tolist(),
            (0.0, 1.0, 1.0, 1.0),
        )  # fmt: skip
    return shares, decisions * SLATE * _CONNECTED
