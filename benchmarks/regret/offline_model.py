"""The product's offline model, trained on arrays: what a release is made of, without Spark, lake and export."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.regret.world import CLUSTERS, contexts
from feature_store.arrays import Float32, Float64, Int64
from feature_store.definitions import UNKNOWN_ITEM, ranker_features
from offline_training.clusters import cluster_users
from offline_training.data.item_features import feature_values
from offline_training.progress import Progress, section
from offline_training.ranking.dataset import NEW_ITEM_SHARE, RankerRows
from offline_training.ranking.model import Ranker
from offline_training.ranking.training import fit_ranker
from offline_training.retrieval.dataset import Catalogue
from offline_training.retrieval.sequences import Histories, Sequences
from offline_training.retrieval.training import finish_two_tower, fit_two_tower
from offline_training.retrieval.two_tower import TwoTower
from offline_training.settings import TrainingSettings

TOWERS, RANKER = 1, 2  # stages of training
_SETTINGS = TrainingSettings()


class Ratings(NamedTuple):
    """Who liked what, by user and then time; all (n,)."""

    user: Int64
    item: Int64
    liked: Float64


class Offline(NamedTuple):
    """A trained model and its view of users (U) and items (I)."""

    user_vectors: Float32  # (U, d)
    item_vectors: Float32  # (I, d)
    item_features: Float32  # (I, len(ITEM_FEATURES))
    histories: Histories  # of everybody
    centroids: Float32  # (C, d)
    ranker: Ranker


def train(tokens: Int64, profiles: Int64, ratings: Ratings, stage: Int64, progress: Progress) -> Offline:
    """Trains towers and ranker as offline_training/train_models.py does, but on ratings in place of impressions.

    tokens (I, ITEM_TOKENS), profiles (U, USER_TOKENS), stage (n,): the towers are first trained on the likes of stage
    TOWERS; with these the ranker learns from the ratings of stage RANKER, each an impression with its outcome; then the
    towers take in the likes of both. Ratings of other stages are not looked at.
    """
    users, items = len(profiles), len(tokens)
    names = [str(item) for item in range(items)]
    catalogue = Catalogue(
        names, {name: row for row, name in enumerate(names)}, tokens, np.zeros((items, 0), np.float32)
    )
    likes = np.flatnonzero((stage > 0) & (ratings.liked > 0))
    sequences = _sequences(ratings, likes, profiles)
    before = np.bincount(ratings.user[likes[stage[likes] == TOWERS]], minlength=users)
    fitted = fit_two_tower(catalogue, sequences, before, _SETTINGS, section(progress, 0.0, 0.5))
    rows = _impressions(fitted.model, sequences, before, ratings, stage)
    ranker = fit_ranker(rows, _SETTINGS.dimensions, _SETTINGS, section(progress, 0.5, 0.9)).ranker
    towers = finish_two_tower(fitted, sequences, _SETTINGS, section(progress, 0.9, 1.0))
    vectors, everybody = towers.item_vectors(), np.arange(users)
    histories = sequences.histories(everybody, np.diff(sequences.start), towers.history_length)
    people = towers.user_vectors(vectors, histories, profiles)
    return Offline(
        user_vectors=people,
        item_vectors=vectors,
        item_features=item_features(ratings, stage > 0, items),
        histories=histories,
        centroids=cluster_users(people, CLUSTERS, 0),
        ranker=ranker.eval(),
    )


@torch.no_grad()
def predictions(offline: Offline, items: Int64) -> Float32:
    """The ranker's probability of a like, (U, len(items))."""
    result = np.empty((len(offline.user_vectors), len(items)), np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them wait for each other at each of the many small operators
    clusters, weights = contexts(offline.user_vectors, offline.centroids)
    for user, vector in enumerate(offline.user_vectors):
        past = offline.item_vectors[offline.histories.liked_items(user)]
        near = offline.centroids[clusters[user]]
        features = ranker_features(
            vector, past, near, weights[user], offline.item_vectors[items], offline.item_features[items]
        )
        result[user] = offline.ranker(torch.from_numpy(features)).numpy()
    torch.set_num_threads(threads)
    return result


def item_features(ratings: Ratings, chosen: NDArray[np.bool_], items: int) -> Float32:
    """(I, len(ITEM_FEATURES)) from the chosen ratings; all likes are recent."""
    rated = np.bincount(ratings.item[chosen], minlength=items)
    liked = np.bincount(ratings.item[chosen], ratings.liked[chosen], items)
    values = feature_values(liked, liked, rated, liked, liked.sum() / rated.sum(), np.log1p)
    return np.where(rated[:, None] > 0, np.stack(np.broadcast_arrays(*values), axis=1), UNKNOWN_ITEM).astype(np.float32)


def _impressions(towers: TwoTower, sequences: Sequences, before: Int64, ratings: Ratings, stage: Int64) -> RankerRows:
    """The ratings of stage RANKER as shown items, and again as if each item were new."""
    vectors = towers.item_vectors()
    histories = sequences.histories(np.arange(len(before)), before, towers.history_length)
    people = towers.user_vectors(vectors, histories, sequences.profile)
    centroids = cluster_users(people, CLUSTERS, 0)
    clusters, weights = contexts(people, centroids)
    known = item_features(ratings, stage == TOWERS, len(vectors))
    unknown = np.tile(UNKNOWN_ITEM, (len(vectors), 1))
    rows = np.flatnonzero(stage == RANKER)
    parts, chosen = [], []
    for views, numbers in ((vectors, known), (towers.item_vectors(content_only=True), unknown)):
        for own in np.split(rows, np.flatnonzero(np.diff(ratings.user[rows])) + 1):
            user, items = ratings.user[own[0]], ratings.item[own]
            past = vectors[histories.liked_items(int(user))]
            near = centroids[clusters[user]]
            parts.append(ranker_features(people[user], past, near, weights[user], views[items], numbers[items]))
            chosen.append(own)
    order = np.concatenate(chosen)
    return RankerRows(
        features=np.concatenate(parts),
        reward=ratings.liked[order],
        clicked=np.ones(len(order)),  # what was rated was seen
        place=np.zeros(len(order), np.int64),
        weight=np.repeat([1.0, NEW_ITEM_SHARE], len(rows)),
        user=ratings.user[order],
        moment=ratings.user[order],
        shown=np.ones(len(order), np.bool_),
    )


def _sequences(ratings: Ratings, likes: Int64, profiles: Int64) -> Sequences:
    """The likes in their order. Nothing is older than anything else: no leaning to the newest."""
    user = ratings.user[likes]
    start = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(profiles)))])
    return Sequences(
        users=[str(row) for row in range(len(profiles))],
        start=start,
        item=ratings.item[likes],
        kind=np.zeros(len(likes), np.int64),
        kinds=["rating+"],
        positive=np.ones(len(likes), np.bool_),
        time=np.zeros(len(likes), np.int64),
        visible=np.arange(len(likes)) - start[user],
        profile=profiles,
        profile_tokens=[[] for _ in profiles],
    )
