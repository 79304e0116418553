"""The product's own model: trained, released and served by the code that does so in an installation."""

import tempfile
from pathlib import Path

import numpy as np

from feature_store.definitions import ITEM_FEATURES, ITEM_TOKENS, UNKNOWN_ITEM, HistoryEvent, token_ids
from feature_store.online import UserFeatures
from infra.benchmarks.retrieval.datasets import Dataset, Float64, Int64
from infra.benchmarks.retrieval.measure import Contender, Fitted, Score
from offline_training.evaluation.baselines import Popularity
from offline_training.models import Trained
from offline_training.progress import silent
from offline_training.ranking.model import Ranker
from offline_training.ranking.training import FittedRanker
from offline_training.release import parameters, write_release
from offline_training.retrieval.dataset import Catalogue, profile_ids
from offline_training.retrieval.sequences import Sequences
from offline_training.retrieval.training import fit_two_tower
from offline_training.retrieval.two_tower import TwoTower
from offline_training.settings import TrainingSettings
from online_serving.pipeline.candidates import from_index
from online_serving.pipeline.features import encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot

MODEL, SERVED = "two_tower", "two_tower_release"
CANDIDATES = 200  # that the index is asked for, as in an installation unless told otherwise


def two_tower(settings: TrainingSettings, folder: Path | None) -> Contender:
    """The two towers as PyTorch computes them, and as a release of them serves: user tower on ONNX Runtime, then the
    index. folder: where releases are kept, and what a training that is killed goes on from; None: nowhere."""

    def fit(dataset: Dataset, train: Int64, seed: int) -> Fitted:
        own = settings.model_copy(update={"seed": seed})
        catalogue, learnt = catalogue_of(dataset, train), sequences(dataset, train)
        with tempfile.TemporaryDirectory(prefix="matchloop-retrieval-") as scratch:
            kept = Path(scratch) if folder is None else folder
            fitted = fit_two_tower(catalogue, learnt, np.diff(learnt.start), own, silent, kept / "checkpoints")
            untrained = FittedRanker(Ranker(own.dimensions, products=False), [], {}, np.zeros((0, 3)))
            trained = Trained(catalogue, learnt, fitted.model, untrained, fitted.losses, {})
            release = write_release(kept / "releases", trained, own, None, 0)
            snapshot = Snapshot.load(kept / "releases", release)
        details = {"seed": seed, "release": release, "settings": parameters(own), "losses": fitted.losses}
        return Fitted({MODEL: _by_model(fitted.model, dataset), SERVED: _by_release(snapshot, dataset)}, details)

    return Contender(MODEL, fit, seeded=True)


def catalogue_of(dataset: Dataset, train: Int64) -> Catalogue:
    """The items as the towers read them; of the features that only a ranker reads, how many wanted them."""
    names = [item.id for item in dataset.items]
    tokens = np.stack([token_ids(item.tokens(), ITEM_TOKENS) for item in dataset.items])
    known = dataset.log.take(train)
    liked = Popularity().fit(known).score(np.zeros(1, np.int64), known)[0]
    features = np.tile(UNKNOWN_ITEM, (len(names), 1))
    features[liked > 0, [feature.name for feature in ITEM_FEATURES].index("known")] = 1.0
    return Catalogue(names, {name: row for row, name in enumerate(names)}, tokens, features)


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


def _by_release(snapshot: Snapshot, dataset: Dataset) -> Score:
    """What the index of the release does not name comes last."""

    def score(users: Int64, past: Int64) -> Float64:
        known = sequences(dataset, past)
        scores = np.full((len(users), snapshot.size), -np.inf)
        for row, user in enumerate(users.tolist()):
            own = slice(known.start[user], known.start[user + 1])
            events = [
                HistoryEvent(dataset.items[item].id, known.kinds[kind], time)
                for item, kind, time in zip(known.item[own], known.kind[own], known.time[own].tolist(), strict=True)
            ]
            features = UserFeatures(dataset.profiles[user], events[::-1], frozenset())
            encoded = encode_user(snapshot, features, Request(slate_size=1))
            allowed = snapshot.available.copy()
            allowed[known.item[own]] = False
            named = from_index(snapshot, encoded, allowed, CANDIDATES)
            scores[row, named] = snapshot.vectors[named] @ encoded.vector
        return scores

    return score
