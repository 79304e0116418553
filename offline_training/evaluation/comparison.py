"""A release against the one that serves and against recent popularity: same users, same items, differences in pairs."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from feature_store.arrays import Bool, Float64, Int64
from offline_training.evaluation.holdout import (
    CANDIDATES,
    RECALL_SIZE,
    TOP_SIZE,
    Question,
    asked_user,
    baseline_scores,
)
from offline_training.evaluation.metrics import auc, interval, ndcg, places, recall
from offline_training.retrieval.dataset import Catalogue
from offline_training.retrieval.sequences import Sequences
from online_serving.pipeline.features import candidate_features
from online_serving.pipeline.offline import two_stage_order
from online_serving.snapshot import Snapshot

CHAMPION, RECENT_POPULARITY = "champion", "recent popularity"
RECALL, NDCG, GAUC = f"retrieval's recall@{RECALL_SIZE}", f"NDCG@{TOP_SIZE} of the served order", "GAUC of the ranker"
EVERYBODY, NEW_USERS, NEW_ITEMS = "everybody", "new users", "new items"
MAX_USERS = 2_000
_SAMPLED = 200  # items that the ranker orders for the GAUC, beside the positives


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What the release has more of a metric than the other, as a mean over users, and its interval of 95 %; None:
    endless, for there are fewer than two users."""

    metric: str
    against: str
    among: str  # everybody, or a slice
    users: int
    release: float
    other: float
    low: float | None
    high: float | None

    @property
    def mean(self) -> float:
        """The difference."""
        return self.release - self.other


class Comparison(msgspec.Struct, frozen=True):
    """All differences that could be measured. champion: a release id."""

    champion: str | None
    differences: list[Difference]


class _Answers(NamedTuple):
    """A contender's metrics by user, (n,); None: it has none of the kind."""

    recall: Float64
    ndcg: Float64
    auc: Float64 | None


def compare(
    release: Snapshot,
    champion: Snapshot | None,
    catalogue: Catalogue,
    sequences: Sequences,
    questions: Sequence[Question],
    recent_days: float,
) -> Comparison:
    """Asks both the same questions. catalogue, sequences: of the release's training, which has not seen the answers.

    Against the champion the items are those that both know; against recent popularity all that the release knows.
    New users have no history; new items are those that the champion does not know. Where there are many questions they
    are thinned evenly.
    """
    if len(questions) > MAX_USERS:
        questions = [questions[n] for n in np.linspace(0, len(questions) - 1, MAX_USERS).astype(np.int64)]
    ours = _positions(release, catalogue)
    found = []
    known = ours >= 0
    new = np.zeros(len(known), np.bool_)
    if champion is not None:
        theirs = _positions(champion, catalogue)
        common, new = known & (theirs >= 0), known & (theirs < 0)
        asked = _asked(questions, common)
        if asked:
            sides = _answers(release, ours, asked, common), _answers(champion, theirs, asked, common)
            found += _differences(CHAMPION, *sides, asked)
    rows = np.flatnonzero(sequences.positive)
    for universe, positives, among in ((known, known, None), (known, new, NEW_ITEMS)):
        asked = _asked(questions, positives)
        if asked:
            scores = baseline_scores(catalogue, sequences, asked, rows, recent_days)["recent_popularity"]
            sides = _answers(release, ours, asked, universe), _of_scores(scores, asked, universe)
            found += _differences(RECENT_POPULARITY, *sides, asked, among)
    return Comparison(None if champion is None else champion.release, found)


def _positions(snapshot: Snapshot, catalogue: Catalogue) -> Int64:
    """By item of the catalogue its position in a snapshot, -1 where it has none."""
    return snapshot.graph.positions(catalogue.items)


def _asked(questions: Sequence[Question], items: Bool) -> list[Question]:
    """The questions with only those positives."""
    kept = []
    for question in questions:
        positives = frozenset(j for j in question.positives if items[j])
        if positives:
            kept.append(Question(question.profile, question.events, question.liked, question.seen, positives))
    return kept


def _answers(snapshot: Snapshot, position: Int64, questions: Sequence[Question], universe: Bool) -> _Answers:
    number = np.full(snapshot.size, -1, dtype=np.int64)  # by position, the item's number in the catalogue
    number[position[universe]] = np.flatnonzero(universe)
    sample = np.random.default_rng(0).permutation(np.flatnonzero(universe))[:_SAMPLED]
    rows = []
    for question in questions:
        user = asked_user(snapshot, question)
        unseen = universe.copy()
        unseen[question.seen] = False
        allowed = np.zeros(snapshot.size, np.bool_)
        allowed[position[unseen]] = True
        retrieval = np.full(len(universe), -np.inf)
        retrieval[unseen] = snapshot.vectors[position[unseen]] @ user.vector
        best = two_stage_order(snapshot, user, allowed, CANDIDATES)
        served = np.full(len(universe), -np.inf)
        served[number[best.items]] = best.predicted
        positives = np.array(sorted(question.positives), np.int64)
        pool = np.union1d(sample[unseen[sample]], positives)
        predicted = snapshot.towers.predict(candidate_features(snapshot, user, position[pool]))
        rows.append((*_measured(retrieval, served, positives), auc(predicted, np.isin(pool, positives))))
    table = np.array(rows)
    return _Answers(table[:, 0], table[:, 1], table[:, 2])


def _of_scores(scores: Float64, questions: Sequence[Question], universe: Bool) -> _Answers:
    rows = []
    for question, row in zip(questions, scores, strict=True):
        masked = np.where(universe, row, -np.inf)
        masked[question.seen] = -np.inf
        rows.append(_measured(masked, masked, np.array(sorted(question.positives), np.int64)))
    table = np.array(rows)
    return _Answers(table[:, 0], table[:, 1], None)


def _measured(retrieval: Float64, served: Float64, positives: Int64) -> tuple[float, float]:
    return recall(places(retrieval, positives), RECALL_SIZE), ndcg(places(served, positives), TOP_SIZE)


def _differences(
    against: str, ours: _Answers, theirs: _Answers, questions: Sequence[Question], among: str | None = None
) -> list[Difference]:
    strangers = np.array([not question.events for question in questions], dtype=np.bool_)
    slices = (
        {EVERYBODY: np.ones(len(questions), np.bool_), NEW_USERS: strangers}
        if among is None
        else {among: np.ones(len(questions), np.bool_)}
    )
    found = []
    for name, rows in slices.items():
        for metric, mine, other in zip((RECALL, NDCG, GAUC), ours, theirs, strict=True):
            if mine is None or other is None:
                continue
            both = rows & np.isfinite(mine) & np.isfinite(other)
            if both.any():
                _, low, high = interval(mine[both] - other[both])
                found.append(
                    Difference(
                        metric=metric,
                        against=against,
                        among=name,
                        users=int(both.sum()),
                        release=float(mine[both].mean()),
                        other=float(other[both].mean()),
                        low=low if np.isfinite(low) else None,
                        high=high if np.isfinite(high) else None,
                    )
                )
    return found
