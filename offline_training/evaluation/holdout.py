"""How well models rank what users liked afterwards."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from feature_store.arrays import Float64, Int64
from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import HistoryEvent
from feature_store.user_features import UserFeatures
from offline_training.evaluation.baselines import Baseline, Interactions, ItemKnn, MostPopular, MostPopularLately
from offline_training.evaluation.metrics import hit_rate, ndcg, places, recall
from offline_training.retrieval.dataset import Catalogue
from offline_training.retrieval.sequences import Sequences
from offline_training.retrieval.two_tower import TwoTower
from online_serving.allowed import Allowed
from online_serving.pipeline.candidates import from_clusters, from_index
from online_serving.pipeline.features import EncodedUser, candidate_features, encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot

T = TypeVar("T")

RECALL_SIZE, TOP_SIZE = 50, 10
MAX_SCORES = 10_000_000  # users asked about times items: above, users are sampled, which bounds the memory
CANDIDATES = 200  # of each source, as serving takes them unless told otherwise


@dataclass(frozen=True)
class Question:
    """One user to recommend to: what they did before (newest first, items by id), liked before (item numbers, oldest
    first), met before, and liked afterwards."""

    profile: list[str]
    events: list[HistoryEvent]
    liked: Int64
    seen: Int64
    positives: frozenset[int]


def held_out_questions(
    catalogue: Catalogue, sequences: Sequences, held_out: Mapping[str, AbstractSet[str]]
) -> list[Question]:
    """Questions from users' later positives. Items that training did not hold, and items met before, do not count; a
    user with nothing left is left out, a user unknown to training is asked about with an empty history."""
    questions = []
    for user in sorted(held_out):
        row = sequences.index.get(user)
        known = {catalogue.index[item] for item in held_out[user] if item in catalogue.index}
        if row is None:
            nothing = np.zeros(0, np.int64)
            question = Question([], [], nothing, nothing, frozenset(known))
        else:
            events = int(sequences.start[row + 1] - sequences.start[row])
            question = _question(catalogue, sequences, row, events, known)
        if question.positives:
            questions.append(question)
    return _spread(questions, len(catalogue.items))


def _question(
    catalogue: Catalogue, sequences: Sequences, user: int, known: int, positives: AbstractSet[int]
) -> Question:
    """Asks about a user after the first `known` of their events."""
    past = slice(sequences.start[user], sequences.start[user] + known)
    item = sequences.item[past]
    return Question(
        profile=sequences.profile_tokens[user],
        events=sequences.events(user, known, catalogue.items),
        liked=item[sequences.positive[past]],
        seen=np.unique(item),
        positives=frozenset(positives).difference(item.tolist()),
    )


def baseline_scores(
    catalogue: Catalogue, sequences: Sequences, questions: Sequence[Question], rows: Int64, recent_days: float
) -> dict[str, Float64]:
    """Scores (questions, items) of popularity, recent popularity and item-kNN, fitted on the given events."""
    count = len(catalogue.items)
    train = Interactions(sequences.user[rows], sequences.item[rows], sequences.time[rows], len(sequences.users), count)
    # Strangers: all that these models ask about is what somebody did before.
    people = len(sequences.users) + np.arange(len(questions))
    user = np.repeat(people, [len(question.liked) for question in questions])
    item = np.concatenate([np.zeros(0, np.int64), *(question.liked for question in questions)])
    past = Interactions(user, item, np.zeros(len(item), np.int64), len(sequences.users), count)
    models: dict[str, Baseline] = {
        "popularity": MostPopular(),
        "recent_popularity": MostPopularLately(recent_days),
        "item_knn": ItemKnn(),
    }
    return {name: model.fit(train).score(people, past) for name, model in models.items()}


def quality(scores: Float64, questions: Sequence[Question]) -> dict[str, float]:
    """Mean recall@50, hit rate@10 and NDCG@10 over users, with the recall's standard error; seen items are not ranked.

    Raises InvalidInput without questions.
    """
    if not questions:
        raise InvalidInput("There is no held-out positive interaction to measure on. Hold out a longer time.")
    rows = []
    for question, row in zip(questions, scores, strict=True):
        masked = row.copy()
        masked[question.seen] = -np.inf
        found = places(masked, np.array(sorted(question.positives), np.int64))
        rows.append((recall(found, RECALL_SIZE), hit_rate(found, TOP_SIZE), ndcg(found, TOP_SIZE)))
    table = np.array(rows)
    error = table[:, 0].std(ddof=1) / np.sqrt(len(table)) if len(table) > 1 else float("inf")
    means = table.mean(axis=0)
    return {
        f"recall_at_{RECALL_SIZE}": float(means[0]),
        f"recall_at_{RECALL_SIZE}_error": float(error),
        f"hit_rate_at_{TOP_SIZE}": float(means[1]),
        f"ndcg_at_{TOP_SIZE}": float(means[2]),
    }


def asked_user(snapshot: Snapshot, question: Question) -> EncodedUser:
    """The user of a question, as a release would serve them."""
    features = UserFeatures(question.profile, question.events, frozenset())
    return encode_user(snapshot, features, Request(slate_size=TOP_SIZE))


def evaluate_release(
    snapshot: Snapshot, catalogue: Catalogue, sequences: Sequences, questions: Sequence[Question], recent_days: float
) -> dict[str, float]:
    """Metrics `held_out_<model>_<metric>` of a release as it would serve, and of the baselines.

    two_stage ranks what the index and the clusters offer, retrieval everything by the inner product, clusters the same
    of what the user's clusters are connected to; what is not offered comes last.
    """
    two_stage = np.full((len(questions), len(catalogue.items)), -np.inf)
    retrieval, clusters = np.empty_like(two_stage), np.full_like(two_stage, -np.inf)
    for row, question in enumerate(questions):
        user = asked_user(snapshot, question)
        retrieval[row] = snapshot.vectors @ user.vector
        allowed = snapshot.available.copy()
        allowed[question.seen] = False
        connected = from_clusters(snapshot, user, allowed, CANDIDATES)
        clusters[row, connected] = retrieval[row, connected]
        offered = np.union1d(from_index(snapshot, user, Allowed.of(allowed), CANDIDATES), connected)
        two_stage[row, offered] = snapshot.towers.predict(candidate_features(snapshot, user, offered))
    scores = {"two_stage": two_stage, "retrieval": retrieval, "clusters": clusters}
    scores |= baseline_scores(catalogue, sequences, questions, np.flatnonzero(sequences.positive), recent_days)
    metrics = {"held_out_users": float(len(questions))}
    for name, values in scores.items():
        metrics |= {f"held_out_{name}_{metric}": value for metric, value in quality(values, questions).items()}
    return metrics


def evaluate_retrieval(
    model: TwoTower, catalogue: Catalogue, sequences: Sequences, before: Int64, recent_days: float
) -> dict[str, float]:
    """Metrics `validation_<model>_<metric>` of a model that has seen the first before[u] events of each user, and of
    the baselines.

    A user is asked about once, as of their first positive after those. No metrics if there is none, or nothing before.
    """
    known = sequences.among_first(before)
    earlier = np.flatnonzero(known & sequences.positive)
    later = np.flatnonzero(~known & sequences.positive)
    if not len(earlier) or not len(later):
        return {}
    asked = []
    for own in np.split(later, np.flatnonzero(np.diff(sequences.user[later])) + 1):
        user, seen = int(sequences.user[own[0]]), int(sequences.visible[own[0]])
        question = _question(catalogue, sequences, user, seen, set(sequences.item[own].tolist()))
        if question.positives:
            asked.append((question, user, seen))
    if not asked:
        return {}
    asked = _spread(asked, len(catalogue.items))
    questions = [question for question, _, _ in asked]
    users, visible = np.array([row[1] for row in asked]), np.array([row[2] for row in asked])
    vectors = model.item_vectors()
    histories = sequences.histories(users, visible, model.history_length)
    people = model.user_vectors(vectors, histories, sequences.profile[users])
    scores = {"retrieval": (people @ vectors.T).astype(np.float64)}
    scores |= baseline_scores(catalogue, sequences, questions, earlier, recent_days)
    metrics = {"validation_users": float(len(questions))}
    for name, values in scores.items():
        metrics |= {f"validation_{name}_{metric}": value for metric, value in quality(values, questions).items()}
    return metrics


def _spread(questions: list[T], items: int) -> list[T]:
    """At most MAX_SCORES / items of the questions, evenly spread over the list."""
    count = max(1, MAX_SCORES // items)
    if len(questions) <= count:
        return questions
    return [questions[place] for place in np.linspace(0, len(questions) - 1, count).astype(np.int64)]
