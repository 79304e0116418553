"""The product's own model: trained, released and served by the code that does so in an installation."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.retrieval.datasets import Dataset
from benchmarks.retrieval.measure import Contender, FittedModel, Score
from benchmarks.retrieval.protocols import Task
from benchmarks.retrieval.ranker import Offer, compare
from feature_store.arrays import Bool, Float32, Float64, Int64
from feature_store.definitions import (
    ITEM_TOKENS,
    RECENT_POPULARITY,
    UNKNOWN_ITEM,
    token_ids,
)
from feature_store.user_features import UserFeatures
from offline_training.data.item_features import feature_values
from offline_training.data.training_sets import VALIDATION_SHARE
from offline_training.evaluation.baselines import Interactions
from offline_training.progress import silent
from offline_training.ranking.dataset import RankerRows
from offline_training.ranking.model import Form, Ranker
from offline_training.ranking.training import FittedRanker
from offline_training.release.write import parameters, write_release
from offline_training.retrieval.dataset import Catalogue, Impressions, profile_ids
from offline_training.retrieval.sequences import Sequences
from offline_training.retrieval.training import fit_two_tower
from offline_training.retrieval.two_tower import TwoTower
from offline_training.settings import TrainingSettings
from offline_training.train_models import Trained, finish_training, train_until_validation
from offline_training.training_data import TrainingData
from online_serving.allowed import Allowed
from online_serving.pipeline.candidates import from_clusters, from_index
from online_serving.pipeline.features import EncodedUser, candidate_features, encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot

MODEL, SERVED, TWO_STAGE = "two_tower", "two_tower_release", "two_stage_release"
CANDIDATES = 200  # that the index is asked for, as in an installation unless told otherwise

Answer = Callable[[Snapshot, EncodedUser, Bool], tuple[Int64, Float64]]  # items and their scores


def two_tower(settings: TrainingSettings, folder: Path | None, *, ranked: bool) -> Contender:
    """The two towers as PyTorch computes them, and as a release of them serves: user tower on ONNX Runtime, then the
    index. folder: where releases are kept, and what a training that is killed goes on from; None: nowhere.

    ranked: the ranker is trained, too, as in an installation on the newest tenth of what was wanted; what index and
    clusters offer, ranked by it, is a third model. Without it the release's ranker is never asked.
    """

    def fit(dataset: Dataset, train: Int64, seed: int) -> FittedModel:
        own = settings.model_copy(update={"seed": seed})
        with tempfile.TemporaryDirectory(prefix="matchloop-retrieval-") as scratch:
            kept = Path(scratch) if folder is None else folder
            trained, rows = _trained(dataset, train, own, kept / "checkpoints", ranked=ranked)
            release = write_release(kept / "releases", trained, own, None, 0)
            snapshot = Snapshot.load(kept / "releases", release)
        details = {"seed": seed, "release": release, "settings": parameters(own), "losses": trained.losses}
        scores = {MODEL: _by_model(trained.two_tower, dataset), SERVED: _by_release(snapshot, dataset, _by_index)}
        if rows is None:
            return FittedModel(scores, details)
        scores[TWO_STAGE] = _by_release(snapshot, dataset, _by_ranker)
        return FittedModel(scores, details, lambda task: compare(rows, _offers(snapshot, dataset, task)))

    return Contender(MODEL, fit, seeded=True)


def _trained(
    dataset: Dataset, train: Int64, settings: TrainingSettings, checkpoints: Path, *, ranked: bool
) -> tuple[Trained, RankerRows | None]:
    """rows: what the ranker was fitted on."""
    if not ranked:
        learnt, log, positive = sequences(dataset, train), dataset.log.take(train), dataset.positive[train]
        end = int(log.time.max()) + 1
        catalogue = catalogue_of(dataset, item_features(log, positive, end))
        fitted = fit_two_tower(catalogue, learnt, learnt.before(end), settings, silent, checkpoints)
        nothing = FittedRanker(Ranker(settings.dimensions, Form.LINEAR), [], {}, np.zeros((0, 3)))
        return Trained(catalogue, learnt, fitted.model, nothing, fitted.losses, {}), None
    data = training_data(dataset, train)
    halfway = train_until_validation(data, checkpoints, settings, silent)
    return finish_training(data, halfway, settings, silent), halfway.rows()


def training_data(dataset: Dataset, train: Int64, told: Bool | None = None) -> TrainingData:
    """What `matchloop train` would read of these rows of the log, but for item lists and impressions. told (n,): which
    of the rows come from where what was not wanted is told, too; None: all do."""
    log, positive = dataset.log.take(train), dataset.positive[train]
    end = int(log.time.max()) + 1
    start = int(np.quantile(log.time[positive], 1 - VALIDATION_SHARE))
    return TrainingData(
        catalogue=catalogue_of(dataset, item_features(log, positive, end, told)),
        sequences=sequences(dataset, train),
        validation_time=start,
        features_at_validation=item_features(log, positive, start, told),
        impressions=Impressions.none(),
    )


def catalogue_of(dataset: Dataset, features: Float32) -> Catalogue:
    """The items of the data set, with features (I, len(ITEM_FEATURES))."""
    names = [item.id for item in dataset.items]
    tokens = np.stack([token_ids(item.tokens(), ITEM_TOKENS) for item in dataset.items])
    return Catalogue(names, {name: row for row, name in enumerate(names)}, tokens, features)


def item_features(log: Interactions, positive: Bool, moment: int, told: Bool | None = None) -> Float32:
    """definitions.ITEM_FEATURES of what came before the moment, as the Spark job computes them: (items, features).
    told: as training_data has it."""
    known = log.time < moment
    told = known if told is None else known & told
    recent = log.time >= RECENT_POPULARITY.begins(moment)
    liked, lately, seen, rated, well = (
        np.bincount(log.item[rows], minlength=log.items)
        for rows in (known & positive, known & positive & recent, known, told, told & positive)
    )
    values = feature_values(liked, lately, rated, well, well.sum() / max(1, rated.sum()), np.log1p)
    return np.where(seen[:, None] > 0, np.stack(np.broadcast_arrays(*values), axis=1), UNKNOWN_ITEM).astype(np.float32)


def sequences(dataset: Dataset, rows: Int64) -> Sequences:
    """Rows of the log as what the user tower reads; of what happened at one moment, nothing is known to the rest."""
    log = dataset.log.take(rows)
    start = np.searchsorted(log.user, np.arange(log.users + 1))
    kinds, kind = np.unique(dataset.kinds[rows], return_inverse=True)
    first = (np.diff(log.user, prepend=-1) != 0) | (np.diff(log.time, prepend=-1) != 0)
    moment = np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
    return Sequences(
        users=[f"{user:07d}" for user in range(log.users)],
        start=start,
        item=log.item,
        kind=kind,
        kinds=kinds.tolist(),
        positive=dataset.positive[rows],
        time=log.time,
        visible=moment - start[log.user],
        profile=profile_ids(dataset.profiles),
        profile_tokens=dataset.profiles,
    )


def _by_model(model: TwoTower, dataset: Dataset) -> Score:
    vectors = model.item_vectors()

    def score(users: Int64, past: Int64) -> Float64:
        known = sequences(dataset, past)
        histories = known.histories(users, np.diff(known.start)[users], model.history_length)
        found = model.user_vectors(vectors, histories, known.profile[users])
        return (found @ vectors.T).astype(np.float64)

    return score


def _by_release(snapshot: Snapshot, dataset: Dataset, answer: Answer) -> Score:
    """What a release does not offer comes last."""

    def score(users: Int64, past: Int64) -> Float64:
        scores = np.full((len(users), snapshot.size), -np.inf)
        for row, (encoded, allowed) in enumerate(_encoded(snapshot, dataset, users, past)):
            named, values = answer(snapshot, encoded, allowed)
            scores[row, named] = values
        return scores

    return score


def _by_index(snapshot: Snapshot, user: EncodedUser, allowed: Bool) -> tuple[Int64, Float64]:
    named = from_index(snapshot, user, Allowed.of(allowed), CANDIDATES)
    return named, (snapshot.vectors[named] @ user.vector).astype(np.float64)


def _by_ranker(snapshot: Snapshot, user: EncodedUser, allowed: Bool) -> tuple[Int64, Float64]:
    named = np.union1d(
        from_index(snapshot, user, Allowed.of(allowed), CANDIDATES), from_clusters(snapshot, user, allowed, CANDIDATES)
    )
    return named, snapshot.towers.predict(candidate_features(snapshot, user, named)).astype(np.float64)


def _encoded(snapshot: Snapshot, dataset: Dataset, users: Int64, past: Int64) -> Iterator[tuple[EncodedUser, Bool]]:
    """Each user as serving encodes them, and the items that they have not met."""
    known, names = sequences(dataset, past), [item.id for item in dataset.items]
    for user in users.tolist():
        own = slice(known.start[user], known.start[user + 1])
        events = known.events(user, own.stop - own.start, names)
        features = UserFeatures(dataset.profiles[user], events, frozenset())
        allowed = snapshot.available.copy()
        allowed[known.item[own]] = False
        yield encode_user(snapshot, features, Request(slate_size=1)), allowed


def _offers(snapshot: Snapshot, dataset: Dataset, task: Task) -> Iterator[Offer]:
    for row, (user, allowed) in enumerate(_encoded(snapshot, dataset, task.users, task.past)):
        named, probability = _by_ranker(snapshot, user, allowed)
        features = candidate_features(snapshot, user, named)
        similarity, wanted = snapshot.vectors[named] @ user.vector, np.isin(named, task.relevant[row])
        yield Offer(features, probability, similarity, wanted, bool(user.events))
