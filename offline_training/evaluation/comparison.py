"""A release against the one that serves and against recent popularity: same users, same items, differences in pairs."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from feature_store.arrays import Bool, Float64, Int64
from offline_training.evaluation.differences import (
    CHAMPION,
    EVERYBODY,
    KNOWN_USERS,
    NEW_ITEMS,
    NEW_USERS,
    RECENT_POPULARITY,
    Difference,
    difference,
)
from offline_training.evaluation.holdout import (
    CANDIDATES,
    RECALL_SIZE,
    TOP_SIZE,
    Question,
    asked_user,
    baseline_scores,
)
from offline_training.evaluation.metrics import auc, ndcg, places, recall
from offline_training.evaluation.shown import Evidence
from offline_training.retrieval.dataset import Catalogue
from offline_training.retrieval.sequences import Sequences
from online_serving.allowed import Allowed
from online_serving.pipeline.candidates import from_index
from online_serving.pipeline.features import EncodedUser, candidate_features
from online_serving.pipeline.offline import two_stage_order
from online_serving.snapshot import Snapshot

RECALL, NDCG = f"retrieval's recall@{RECALL_SIZE}", f"NDCG@{TOP_SIZE} of the served order"
GAUC, INDEX = "GAUC of the ranker", f"the index's recall@{RECALL_SIZE}"
COVERAGE = f"items among somebody's first {TOP_SIZE}"
MAX_USERS = 2_000
_SAMPLED = 200  # items that the ranker orders for the GAUC, beside the positives


class Comparison(msgspec.Struct, frozen=True):
    """All differences that could be measured. champion: a release id. evidence: None if nothing was shown meanwhile."""

    champion: str | None
    differences: list[Difference]
    evidence: Evidence | None = None


class _Answers(NamedTuple):
    """A contender's metrics by user, (n,); None: it has none of the kind."""

    recall: Float64
    ndcg: Float64
    auc: Float64 | None = None
    indexed: Float64 | None = None  # the share of the nearest items that the index finds
    coverage: float | None = None  # the share of all items that somebody sees first


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
    rows, seen_first = [], set[int]()
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
        ranked = auc(predicted, np.isin(pool, positives))
        rows.append((*_measured(retrieval, served, positives), ranked, _found(snapshot, user, allowed)))
        seen_first.update(best.items[:TOP_SIZE].tolist())
    table = np.array(rows)
    return _Answers(table[:, 0], table[:, 1], table[:, 2], table[:, 3], len(seen_first) / int(universe.sum()))


def _found(snapshot: Snapshot, user: EncodedUser, allowed: Bool) -> float:
    """The share of the nearest RECALL_SIZE items that the index finds. NaN if nothing is allowed."""
    every = np.flatnonzero(allowed)
    nearest = every[np.argsort(-(snapshot.vectors[every] @ user.vector), kind="stable")[:RECALL_SIZE]]
    found = from_index(snapshot, user, Allowed.of(allowed), RECALL_SIZE)
    return float(np.isin(nearest, found).mean()) if len(nearest) else float("nan")


def _of_scores(scores: Float64, questions: Sequence[Question], universe: Bool) -> _Answers:
    rows = []
    for question, row in zip(questions, scores, strict=True):
        masked = np.where(universe, row, -np.inf)
        masked[question.seen] = -np.inf
        rows.append(_measured(masked, masked, np.array(sorted(question.positives), np.int64)))
    table = np.array(rows)
    return _Answers(table[:, 0], table[:, 1])


def _measured(retrieval: Float64, served: Float64, positives: Int64) -> tuple[float, float]:
    return recall(places(retrieval, positives), RECALL_SIZE), ndcg(places(served, positives), TOP_SIZE)


def _differences(
    against: str, ours: _Answers, theirs: _Answers, questions: Sequence[Question], among: str | None = None
) -> list[Difference]:
    everybody = np.ones(len(questions), np.bool_)
    strangers = np.array([not question.events for question in questions], dtype=np.bool_)
    slices = {among: everybody} if among else {EVERYBODY: everybody, KNOWN_USERS: ~strangers, NEW_USERS: strangers}
    found = []
    for name, rows in slices.items():
        for metric, mine, other in (
            (RECALL, ours.recall, theirs.recall),
            (NDCG, ours.ndcg, theirs.ndcg),
            (GAUC, ours.auc, theirs.auc),
            (INDEX, ours.indexed, theirs.indexed),
        ):
            if mine is None or other is None:
                continue
            both = rows & np.isfinite(mine) & np.isfinite(other)
            if both.any():
                found.append(difference(metric, against, name, mine[both], other[both]))
    if ours.coverage is not None and theirs.coverage is not None:
        found.append(
            Difference(
                metric=COVERAGE,
                against=against,
                among=EVERYBODY,
                users=len(questions),
                release=ours.coverage,
                other=theirs.coverage,
                low=None,
                high=None,
            )
        )
    return found
