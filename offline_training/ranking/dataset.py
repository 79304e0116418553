"""The ranker's training rows: what could have been shown at real moments of the validation window, and what was.

A moment is a user at the time of one of their positive interactions in the validation window, with the history and the
item features of before. Its pool is what serving might offer then (nearest, popular and random unseen items); a row's
labels are whether the user liked the item, and whether they did anything with it, from then on within the window. All
that was liked in a pool is kept and the rest is sampled; weights undo the sampling, so that the rows estimate
probabilities over the whole pool.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_store.arrays import Float32, Float64, Int64
from feature_store.definitions import ITEM_FEATURES, RANKER_FEATURES, UNKNOWN_ITEM, at_age, ranker_features
from offline_training.clusters import cluster_count, cluster_users
from offline_training.progress import Progress
from offline_training.retrieval.dataset import Catalogue, Impressions
from offline_training.retrieval.sequences import Sequences
from offline_training.retrieval.two_tower import TwoTower
from offline_training.settings import TrainingSettings
from streaming.bandit.diag_linucb import context

NEAREST, POPULAR, RANDOM = 200, 100, 50  # sizes of a pool's parts
MOMENTS_PER_USER = 8
MAX_MOMENTS = 6_000
MAX_DECISIONS = 20_000
MAX_IMPRESSION_WEIGHT = 10.0
NEW_ITEM_SHARE = 0.2  # weight of the rows that show an item as if it were new, relative to a pool's
RECENT = [feature.name for feature in ITEM_FEATURES].index("recent_popularity")


@dataclass(frozen=True)
class RankerRows:
    """features (n, len(RANKER_FEATURES) + d); reward (n,) in [0, 1]; clicked (n,), 1 if there was any feedback but a
    view; place (n,) in the slate, 0 if there was none; weight (n,); user (n,) numbers the person, for splitting; moment
    (n,) numbers the moment or decision; shown (n,): a real impression."""

    features: Float32
    reward: Float64
    clicked: Float64
    place: Int64
    weight: Float64
    user: Int64
    moment: Int64
    shown: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.reward)


class _Outcome(NamedTuple):
    """What became of n items at one moment; as in RankerRows."""

    items: Int64
    reward: Float64
    clicked: Float64
    place: Int64
    weight: Float64

    def take(self, rows: NDArray[np.bool_]) -> "_Outcome":
        return _Outcome(self.items[rows], self.reward[rows], self.clicked[rows], self.place[rows], self.weight[rows])


class _Query(NamedTuple):
    """Somebody at a moment: vector (d,), liked items, clusters (K,) and their weights (K,), and the milliseconds since
    the moment that the item features were computed for."""

    person: str
    vector: Float32
    liked: Int64
    clusters: Int64
    weights: Float64
    age: int


class _Contexts(NamedTuple):
    """User clusters as a release made at that moment would have them."""

    centroids: Float32
    settings: TrainingSettings

    @classmethod
    def of_everybody(
        cls, model: TwoTower, vectors: Float32, sequences: Sequences, before: Int64, settings: TrainingSettings
    ) -> "_Contexts":
        histories = sequences.histories(np.arange(len(before)), before, model.history_length)
        people = model.user_vectors(vectors, histories, sequences.profile)
        count = cluster_count(settings.clusters, len(people), len(vectors), settings.edges_per_cluster)
        return cls(cluster_users(people, count, settings.seed), settings)

    def of(self, user: Float32) -> tuple[Int64, Float64]:
        return context(user, self.centroids, self.settings.active_clusters, self.settings.context_temperature)


class _Builder:
    def __init__(self, model: TwoTower, vectors: Float32, features: Float32, centroids: Float32) -> None:
        self.model, self.vectors, self.item_features, self.centroids = model, vectors, features, centroids
        self.content_vectors = model.item_vectors(content_only=True)
        self.unknown = np.tile(UNKNOWN_ITEM, (len(features), 1))
        self.people: dict[str, int] = {}
        self.parts: list[tuple[Float32, _Outcome, int, int, bool]] = []
        self.moments = 0

    def add(self, asked: _Query, outcome: _Outcome, new: bool, shown: bool) -> None:
        if not len(outcome.items):
            return
        vectors = self.content_vectors if new and not shown else self.vectors
        numbers = self.unknown if new else self.item_features
        features = ranker_features(
            asked.vector,
            self.vectors[asked.liked],
            self.centroids[asked.clusters],
            asked.weights,
            vectors[outcome.items],
            at_age(numbers[outcome.items], asked.age),
        )
        number = self.people.setdefault(asked.person, len(self.people))
        self.parts.append((features, outcome, number, self.moments, shown))

    def rows(self, dimensions: int) -> RankerRows:
        outcomes = [part[1] for part in self.parts]
        lengths = [len(outcome.items) for outcome in outcomes]
        empty = np.zeros((0, len(RANKER_FEATURES) + dimensions), np.float32)
        return RankerRows(
            features=np.concatenate([empty, *(part[0] for part in self.parts)]),
            reward=np.concatenate([np.zeros(0), *(outcome.reward for outcome in outcomes)]),
            clicked=np.concatenate([np.zeros(0), *(outcome.clicked for outcome in outcomes)]),
            place=np.concatenate([np.zeros(0, np.int64), *(outcome.place for outcome in outcomes)]),
            weight=np.concatenate([np.zeros(0), *(outcome.weight for outcome in outcomes)]),
            user=np.repeat(np.array([part[2] for part in self.parts], np.int64), lengths),
            moment=np.repeat(np.array([part[3] for part in self.parts], np.int64), lengths),
            shown=np.repeat(np.array([part[4] for part in self.parts], np.bool_), lengths),
        )


def ranker_rows(
    model: TwoTower,
    catalogue: Catalogue,
    features: Float32,
    sequences: Sequences,
    before: Int64,
    impressions: Impressions,
    settings: TrainingSettings,
    progress: Progress,
) -> RankerRows:
    """Builds the rows with a model that has seen the first before[u] events of each user u; what comes after is the
    validation window. features: (I, F) as of its start.

    Impressions count if they were made in the window, because features and vectors know the outcome of older ones. They
    get at least the weight of a sampled row, and up to ten times as much, to be heard beside more sampled rows.
    """
    rng = np.random.default_rng(settings.seed)
    vectors = model.item_vectors()
    contexts = _Contexts.of_everybody(model, vectors, sequences, before, settings)
    builder = _Builder(model, vectors, features, contexts.centroids)
    in_window = sequences.positive & ~sequences.among_first(before)
    opened = int(sequences.time[in_window].min()) if in_window.any() else 0
    chosen = _moments(sequences, in_window, rng)
    visible = sequences.visible[chosen]
    histories = sequences.histories(sequences.user[chosen], visible, model.history_length)
    user_vectors = model.user_vectors(builder.vectors, histories, sequences.profile[sequences.user[chosen]])
    popular = np.argsort(-features[:, RECENT], kind="stable")
    for step, event in enumerate(chosen.tolist()):
        if step % 100 == 0:
            progress(step / len(chosen), "ranker's training set")
        user = sequences.user[event]
        person, start, now = sequences.users[user], sequences.start[user], sequences.start[user] + visible[step]
        rest = slice(now, sequences.start[user + 1])
        liked, touched = np.unique(sequences.item[rest][in_window[rest]]), sequences.item[rest]
        unseen = np.ones(len(catalogue.items), np.bool_)
        unseen[sequences.item[start:now]] = False
        unseen[liked] = True
        pool = _pool(builder.vectors @ user_vectors[step], popular, unseen, rng)
        anywhere = np.flatnonzero(unseen)
        clusters, age = contexts.of(user_vectors[step]), int(sequences.time[event]) - opened
        asked = _Query(person, user_vectors[step], histories.liked_items(step), *clusters, age)
        fresh = rng.choice(anywhere, min(len(anywhere), NEAREST), replace=False) if len(anywhere) else anywhere
        for candidates, new, share, negatives in (
            (pool, False, 1.0, settings.ranker_negatives),
            (fresh, True, NEW_ITEM_SHARE, max(1, settings.ranker_negatives // 4)),
        ):
            outcome = _sampled(candidates, liked, touched, negatives, share, rng)
            builder.add(asked, outcome, new, False)
        builder.moments += 1
    _add_impressions(builder, impressions, contexts, opened)
    return builder.rows(model.dimensions)


def _moments(sequences: Sequences, in_window: NDArray[np.bool_], rng: np.random.Generator) -> Int64:
    """Positive events of the window (all, if there are none in it): at most MOMENTS_PER_USER of distinct times of each
    user, spread evenly over the user's times."""
    rows = np.flatnonzero(in_window if in_window.any() else sequences.positive)
    user = sequences.user[rows]
    rows = rows[np.diff(user, prepend=-1).astype(np.bool_) | np.diff(sequences.time[rows], prepend=-1).astype(np.bool_)]
    chosen = []
    for own in np.split(rows, np.flatnonzero(np.diff(sequences.user[rows])) + 1):
        places = np.unique(np.linspace(0, len(own) - 1, MOMENTS_PER_USER).round().astype(np.int64))
        chosen.append(own[places])
    moments = np.concatenate(chosen)
    if len(moments) > MAX_MOMENTS:
        moments = np.sort(rng.choice(moments, MAX_MOMENTS, replace=False))
    return moments


def _pool(scores: Float32, popular: Int64, unseen: NDArray[np.bool_], rng: np.random.Generator) -> Int64:
    scores = np.where(unseen, scores, -np.inf)
    nearest = np.argpartition(-scores, min(NEAREST, len(scores)) - 1)[:NEAREST]
    anywhere = rng.integers(0, len(scores), RANDOM)
    pool: Int64 = np.unique(np.concatenate([nearest, popular[unseen[popular]][:POPULAR], anywhere]))
    offered: Int64 = pool[unseen[pool]]
    return offered


def _sampled(
    pool: Int64, liked: Int64, touched: Int64, negatives: int, share: float, rng: np.random.Generator
) -> _Outcome:
    """All positives of the pool with weight `share`, and at most `negatives` others that stand for all others."""
    is_liked = np.isin(pool, liked)
    positive, negative = pool[is_liked], pool[~is_liked]
    kept = rng.choice(negative, min(len(negative), negatives), replace=False)
    each = len(negative) / len(kept) if len(kept) else 0.0
    reward = np.concatenate([np.ones(len(positive)), np.zeros(len(kept))])
    items, weight = np.concatenate([positive, kept]), share * np.where(reward > 0, 1.0, each)
    return _Outcome(items, reward, np.isin(items, touched).astype(np.float64), np.zeros_like(items), weight)


def _add_impressions(builder: _Builder, impressions: Impressions, contexts: _Contexts, start: int) -> None:
    rows = np.flatnonzero(impressions.time >= start)[-MAX_DECISIONS:]
    shown = sum(len(impressions.items[row]) for row in rows)
    if not shown:
        return
    sampled = float(sum(part[1].weight.sum() for part in builder.parts))
    each = float(np.clip(sampled / shown, 1.0, MAX_IMPRESSION_WEIGHT))
    histories = impressions.histories.take(rows)
    vectors = builder.model.user_vectors(builder.vectors, histories, impressions.profile[rows])
    for step, row in enumerate(rows.tolist()):
        items, reward = impressions.items[row], np.clip(impressions.rewards[row], 0.0, 1.0)
        clicked, weight = impressions.clicked[row].astype(np.float64), np.full(len(items), each)
        outcome = _Outcome(items, reward, clicked, impressions.places[row], weight)
        age = int(impressions.time[row]) - start
        clusters = contexts.of(vectors[step])
        asked = _Query(impressions.user[row], vectors[step], histories.liked_items(step), *clusters, age)
        # An item that training did not know then was shown by its content alone.
        for new in (False, True):
            part = (builder.model.ids.numpy()[items + 1] == 0) == new
            builder.add(asked, outcome.take(part), new, True)
        builder.moments += 1
