"""Decisions whose window has not closed, as a fold keeps them between commits and hands them to the next namespace."""

from collections.abc import Callable, Collection, Sequence

import msgspec
import numpy as np

from feature_store.contracts.events import Decision
from feature_store.contracts.identity import DecisionRef, Masks
from feature_store.graph import Graph
from feature_store.namespace import Start
from feature_store.translation import Translation
from streaming.bandit.diag_linucb import MAX_ACTIVE_CLUSTERS
from streaming.bandit.slates import steepened
from streaming.kafka import partition_of

_MIN_TRANSLATED_WEIGHT = 0.01  # of a cluster that a decision of another release is folded onto


class OpenDecision(msgspec.Struct, array_like=True):
    """A decision whose window has not closed: what late corrections and duplicates are held against."""

    user: str
    time: int
    learns: bool
    clusters: list[int]  # of this namespace
    weights: list[float]
    items: list[str]  # shown
    predicted: list[float]
    edges: list[int]  # bit k: the item has an edge to clusters[k]
    rewards: list[float | None]  # of resolved trials
    events: dict[int, list[tuple[str, float]]] = {}  # slate index -> (type, value)
    event_ids: dict[str, None] = {}  # in order
    pinned: list[str] = []  # shown beside items, and no trials; their events are numbered on behind those of items
    account: str = ""  # whom the user was merged with meanwhile: what comes is in their history


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(OpenDecision)

pack = _encoder.encode
unpack = _decoder.decode


def opened_by(decision: Decision, learns: bool, steepness: float) -> OpenDecision:
    """What is kept of a logged decision. steepness: of rewards before one person, beside its predictions."""
    shown, predicted = decision.items[: decision.shown], np.array(decision.predicted[: decision.shown])
    return OpenDecision(
        user=decision.user,
        time=decision.time,
        learns=learns,
        clusters=decision.clusters,
        weights=decision.weights,
        items=shown,
        predicted=steepened(predicted, steepness, len(predicted)).tolist(),
        edges=decision.edges[: decision.shown],
        rewards=[None] * len(shown),
        pinned=[item for item in decision.pinned or () if item not in shown],
    )


def nothing_shown(user: str, time: int) -> OpenDecision:
    """A decision that shows nothing and teaches nothing: it holds a place for its id until its window closes."""
    return OpenDecision(
        user=user, time=time, learns=False, clusters=[], weights=[], items=[], predicted=[], edges=[], rewards=[]
    )


def absent(named: DecisionRef, known: int, now: int, window: int) -> OpenDecision | None:
    """What stands for a decision that the log does not have (yet), None: its window (ms) has closed. known: when it was
    heard of (ms). now: stream time. What belongs to no decision has a window of its own, from now on."""
    if named.is_none:
        return nothing_shown(named.user, now)
    return nothing_shown(named.user, min(named.time, known)) if named.time + window > now else None


def unresolved_of(decision: OpenDecision) -> list[int]:
    """The places of what no reward is known of."""
    return [i for i, reward in enumerate(decision.rewards) if reward is None]


def take_in(decision: OpenDecision, item: str) -> None:
    """Adds an item to what a decision that teaches nothing has shown."""
    decision.items.append(item)
    decision.predicted.append(0.0)
    decision.edges.append(0)
    decision.rewards.append(None)


def translate(start: Start, matrix: Translation, graph: Graph) -> Start:
    """What a fold over another release's clusters begins with. matrix: from the clusters here to those there; graph:
    that release's."""
    opened = {name: pack(translated(unpack(state), matrix, graph)) for name, state in start.opened.items()}
    return Start(start.stream_time, start.learning, opened)


def repartitioned(starts: Sequence[Start], partitions: int) -> list[Start]:
    """The same beginnings over another number of partitions: what is open goes where its user's events go now. A
    partition that is new begins at its first record, learning if all others do."""
    everywhere = all(start.learning for start in starts)
    opened: list[dict[str, bytes]] = [{} for _ in range(partitions)]
    for start in starts:
        for name, state in start.opened.items():
            opened[partition_of(unpack(state).user, partitions)][name] = state
    new = [Start(learning=everywhere)] * (partitions - len(starts))
    kept = [*starts, *new][:partitions]
    return [Start(start.stream_time, start.learning, theirs) for start, theirs in zip(kept, opened, strict=True)]


def mark_as_not_teaching(start: Start, users: Collection[str] | None = None) -> Start:
    """The same beginning, in which what is open of these users, or of everybody, teaches nothing: its later feedback
    and its silence are only seen."""
    opened = {}
    for name, state in start.opened.items():
        decision = unpack(state)
        if users is None or decision.user in users:
            decision.learns = False
        opened[name] = pack(decision)
    return Start(start.stream_time, start.learning, opened)


def anonymous(start: Start, belongs: Callable[[OpenDecision], bool], masks: Masks) -> Start:
    """The same beginning, with masks in the place of user and ids in the decisions that belong to somebody who is to be
    forgotten."""
    opened = {}
    for name, state in start.opened.items():
        decision = unpack(state)
        if belongs(decision):
            ids = dict.fromkeys(map(masks.text, decision.event_ids))
            masked = msgspec.structs.replace(decision, user=masks.user(decision.user), event_ids=ids, account="")
            opened[masks.decision(name)] = pack(masked)
        else:
            opened[name] = state
    return Start(start.stream_time, start.learning, opened)


def translated(decision: OpenDecision, matrix: Translation | None, graph: Graph) -> OpenDecision:
    """The decision as one made on other clusters: w' = w M, over the edges that the graph has. Without a matrix its
    clusters mean nothing here, and only item rows learn."""
    clusters: list[int] = []
    weights: list[float] = []
    if matrix is not None and decision.clusters:
        spread = np.asarray(decision.weights) @ matrix.rows(decision.clusters)
        strongest = np.sort(np.argsort(-spread, kind="stable")[:MAX_ACTIVE_CLUSTERS])
        clusters = [int(c) for c in strongest if spread[c] >= _MIN_TRANSLATED_WEIGHT]
        weights = [min(float(spread[c]), 1.0) for c in clusters]
    edges = [edge_mask(graph, clusters, item) for item in decision.items]
    return msgspec.structs.replace(decision, clusters=clusters, weights=weights, edges=edges)


def edge_mask(graph: Graph, clusters: Sequence[int], item: str) -> int:
    """Which of the clusters the item has an edge to: bit k stands for clusters[k]."""
    j = graph.position(item)
    if j is None:
        return 0
    return sum(1 << k for k, cluster in enumerate(clusters) if graph.row(cluster, j) is not None)
