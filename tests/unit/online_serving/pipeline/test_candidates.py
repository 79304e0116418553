"""Sources of candidates: what the log holds of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_store.arrays import Int64
from feature_store.graph import Graph
from online_serving.pipeline.candidates import NAMED, SOURCES, connected, merge, source_name

POSITIONS = st.lists(st.integers(0, 30), max_size=12, unique=True)


def test_names_and_bits_are_those_that_logs_hold() -> None:
    bits = {source.name: source.bit for source in SOURCES} | {"named": NAMED}
    assert bits == {"index": 1, "cluster": 2, "fresh": 4, "named": 8, "lists": 16}


def test_a_set_of_sources_is_called_by_their_names_in_order_of_bits() -> None:
    assert source_name(0b11111) == "index+cluster+fresh+named+lists"
    assert source_name(0b10001) == "index+lists"
    assert source_name(0b01000) == "named"


@given(found=st.dictionaries(st.sampled_from([1, 2, 4, 16]), POSITIONS, min_size=1))
def test_candidates_are_united_as_over_the_whole_catalogue(found: dict[int, list[int]]) -> None:
    bits = np.zeros(31, np.uint8)
    for bit, positions in found.items():
        bits[positions] |= np.uint8(bit)
    sources: dict[int, Int64] = {bit: np.array(positions, np.int64) for bit, positions in found.items()}
    candidates, named_by = merge(sources)
    assert candidates.tolist() == np.flatnonzero(bits).tolist()
    assert named_by.tolist() == bits[bits > 0].tolist()


@given(seed=st.integers(0, 1_000), active=st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True))
def test_what_clusters_are_connected_to_comes_once_in_order(seed: int, active: list[int]) -> None:
    rng = np.random.default_rng(seed)
    item, cluster = np.nonzero(rng.random((12, 5)) < 0.4)
    graph = Graph.build([f"i{j}" for j in range(12)], item, cluster, 5)
    live = [[0, 3], [], [active[0]]]
    graph = graph.with_items(["new", "without clusters", "newer"], live)
    allowed = rng.random(graph.size) < 0.7
    expected = {j for c in active for j in graph.items_of(c).tolist() if allowed[j]}
    assert connected(graph.adjacency, np.array(active), allowed).tolist() == sorted(expected)
