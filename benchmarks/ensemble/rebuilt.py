"""A release whose clusters and graph are made anew, and nothing else of it."""

import shutil
from pathlib import Path

import numpy as np

from benchmarks.pay.release import Prepared, prepare
from feature_store.contracts.manifest import seal
from offline_training.clusters import build_graph, cluster_users
from offline_training.release.encoding import encode_users
from offline_training.retrieval.sequences import Sequences
from online_serving.joining import tastes
from online_serving.release_files import CENTROIDS, GRAPH
from online_serving.snapshot import Snapshot


def rebuilt_graph(prepared: Prepared, releases: Path, people: Sequences, seed: int, scratch: Path) -> Prepared:
    """The same world on a release that differs in its clusters and graph, as they come out of k-means with another
    seed. releases: holds the release; scratch: takes the other one. people: that the clusters are made of."""
    old = Snapshot.load(releases, prepared.release)
    manifest, draft = old.manifest, scratch / ".draft"
    everybody, events = np.arange(len(people.users)), np.diff(people.start)
    vectors = encode_users(old.towers, old.vectors, people, everybody, events, manifest.history_length)
    centroids = cluster_users(vectors, manifest.clusters, seed)
    graph = build_graph(old.graph.items, old.vectors, tastes(centroids), manifest.nearest_items or old.size)
    shutil.copytree(releases / prepared.release, draft)
    np.save(draft / CENTROIDS, centroids, allow_pickle=False)
    graph.save(draft / GRAPH)
    release = seal(draft, manifest)
    draft.rename(scratch / release)
    return prepare(prepared.world, scratch, release)
