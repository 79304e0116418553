"""How well models rank what users liked afterwards."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import HistoryEvent, kind_of
from feature_store.online import UserFeatures
from offline_training.evaluation.baselines import Interactions, ItemKnn, Popularity, RecentPopularity, Recommender
from offline_training.evaluation.metrics import hit_rate, ndcg, places, recall
from offline_training.retrieval.dataset import Catalogue, Examples, Users
from offline_training.retrieval.two_tower import TwoTower
from online_serving.pipeline.candidates import from_clusters, from_index
from online_serving.pipeline.features import candidate_features, encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot

T = TypeVar("T")
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

RECALL_SIZE, TOP_SIZE = 50, 10
MAX_SCORES = 10_000_000  # users asked about times items: above, users are sampled, which bounds the memory
CANDIDATES = 200  # of each source, as serving takes them unless told otherwise


@dataclass(frozen=True)
class Question:
    """One user to recommend to: what they liked before (item numbers, newest first), saw before, and liked
    afterwards."""

    user: str
    profile: list[str]
    history: Int64
    seen: Int64
    positives: frozenset[int]


def held_out_questions(catalogue: Catalogue, users: Users, held_out: Mapping[str, AbstractSet[str]]) -> list[Question]:
    """Questions from users' later positives. Items that training did not hold, and items seen before, do not count; a
    user with nothing left is left out, a user unknown to training is asked about with an empty history."""
    questions = []
    for user in sorted(held_out):
        row = users.index.get(user)
        profile: list[str] = []
        history, seen = np.zeros(0, np.int64), np.zeros(0, np.int64)
        if row is not None:
            profile = users.profile_tokens[row]
            history, seen = users.history[row][users.history[row] > 0] - 1, users.seen[row]
        known = {catalogue.index[item] for item in held_out[user] if item in catalogue.index}
        positives = frozenset(known.difference(seen.tolist()))
        if positives:
            questions.append(Question(user, profile, history, seen, positives))
    return _spread(questions, len(catalogue.items))


def baseline_scores(
    catalogue: Catalogue, examples: Examples, questions: Sequence[Question], rows: Int64, recent_days: float
) -> dict[str, Float64]:
    """Scores (questions, items) of popularity, recent popularity and item-kNN, fitted on the given rows of examples."""
    order = rows[np.lexsort((examples.time[rows], examples.user[rows]))]
    train = Interactions(
        examples.user[order], examples.item[order], examples.time[order], len(examples.users), len(catalogue.items)
    )
    people = len(examples.users) + np.arange(len(questions))  # what they did before is all that these models ask about
    histories = [question.history[::-1] for question in questions]
    user = np.repeat(people, [len(history) for history in histories])
    item = np.concatenate([np.zeros(0, np.int64), *histories])
    past = Interactions(user, item, np.zeros(len(item), np.int64), len(examples.users), len(catalogue.items))
    models: dict[str, Recommender] = {
        "popularity": Popularity(),
        "recent_popularity": RecentPopularity(recent_days),
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


def evaluate_release(
    snapshot: Snapshot, catalogue: Catalogue, examples: Examples, questions: Sequence[Question], recent_days: float
) -> dict[str, float]:
    """Metrics `held_out_<model>_<metric>` of a release (two_stage and retrieval) as it would serve, and of the
    baselines.

    The two-stage model ranks what the index and the clusters offer; what they do not offer comes last.
    """
    two_stage = np.full((len(questions), len(catalogue.items)), -np.inf)
    retrieval = np.empty_like(two_stage)
    for row, question in enumerate(questions):
        history = [HistoryEvent(catalogue.items[item], kind_of("", positive=True), 0) for item in question.history]
        user = encode_user(snapshot, UserFeatures(question.profile, history, frozenset()), Request(slate_size=TOP_SIZE))
        retrieval[row] = snapshot.vectors @ user.vector
        allowed = snapshot.available.copy()
        allowed[question.seen] = False
        offered = np.union1d(
            from_index(snapshot, user, allowed, CANDIDATES), from_clusters(snapshot, user, allowed, CANDIDATES)
        )
        two_stage[row, offered] = snapshot.towers.predict(candidate_features(snapshot, user, offered))
    everything = np.arange(len(examples.item))
    scores = {"two_stage": two_stage, "retrieval": retrieval}
    scores |= baseline_scores(catalogue, examples, questions, everything, recent_days)
    metrics = {"held_out_users": float(len(questions))}
    for name, values in scores.items():
        metrics |= {f"held_out_{name}_{metric}": value for metric, value in quality(values, questions).items()}
    return metrics


def evaluate_retrieval(
    model: TwoTower, catalogue: Catalogue, examples: Examples, users: Users, recent_days: float
) -> dict[str, float]:
    """Metrics `validation_<model>_<metric>` of a model that has not seen the validation window, and of the baselines.

    A user is asked about once, as of their first positive in the window. No metrics without a window, or nothing
    before.
    """
    before = np.flatnonzero(~examples.validation)
    asked: list[tuple[Question, int]] = []
    window = np.flatnonzero(examples.validation)
    if not len(before) or not len(window):
        return {}
    for own in np.split(
        window[np.argsort(examples.user[window], kind="stable")],
        np.cumsum(np.bincount(examples.user[window], minlength=len(examples.users)))[:-1],
    ):
        if not len(own):
            continue
        first, user = int(own[0]), examples.users[examples.user[own[0]]]
        history = examples.history[first][examples.history[first] > 0] - 1
        seen = history
        known = users.index.get(user)
        if known is not None:
            earlier = users.seen[known][users.seen_times[known] < examples.time[first]]
            seen = np.union1d(history, earlier)
        positives = frozenset(set(examples.item[own].tolist()).difference(seen.tolist()))
        if positives:
            asked.append((Question(user, [], history, seen, positives), first))
    if not asked:
        return {}
    asked = _spread(asked, len(catalogue.items))
    questions, rows = [question for question, _ in asked], [row for _, row in asked]
    vectors = model.item_vectors()
    people = model.user_vectors(vectors, examples.history[rows], examples.profile[rows])
    scores = {"retrieval": (people @ vectors.T).astype(np.float64)}
    scores |= baseline_scores(catalogue, examples, questions, before, recent_days)
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
