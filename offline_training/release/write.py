"""Assembles a release: everything that serving needs of a training run, in one immutable directory."""

import os
import shutil
from pathlib import Path

import numpy as np

from feature_store.contracts.manifest import Manifest, seal
from feature_store.definitions import features_hash
from feature_store.durable import publish
from feature_store.item_ids import ItemIds
from offline_training.clusters import build_graph, cluster_count, cluster_users
from offline_training.release.encoding import encode_users
from offline_training.release.export import export_ranker, export_scorer, export_towers
from offline_training.release.index import RECALL_SIZE, build_index
from offline_training.settings import TrainingSettings
from offline_training.train_models import Trained
from online_serving.joining import tastes
from online_serving.release_files import Contents, ItemTable, write_contents
from online_serving.towers import Towers


def write_release(releases: Path, trained: Trained, settings: TrainingSettings, parent: str | None, now_ms: int) -> str:
    """Writes `<releases>/<id>/`, whole or not at all, and returns the id.

    Vectors of users come from the exported tower, so they are the ones that serving computes. The manifest holds
    trained.metrics, what build_index found, `index_recall_at_100` and `index_probes`, and of the graph the share of
    items with an edge, `graph_coverage`, and their mean number of them, `graph_edges_per_item`. parent: the release
    whose online statistics go into this one's base.
    """
    draft = releases / f".draft-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        export_towers(trained.two_tower, draft)
        export_ranker(trained.ranker.ranker, settings.dimensions, draft)
        towers = Towers(draft)
        catalogue, sequences = trained.catalogue, trained.sequences
        vectors = trained.two_tower.item_vectors()
        everybody, events = np.arange(len(sequences.users)), np.diff(sequences.start)
        people = encode_users(towers, vectors, sequences, everybody, events, settings.history_length)

        count = cluster_count(settings.clusters, len(people), len(vectors), settings.edges_per_cluster)
        centroids = cluster_users(people, count, settings.seed)
        index = build_index(vectors, people)
        if trained.lists is not None:
            trained.lists.items.save(draft)
            export_scorer(trained.lists.scorer, settings.dimensions, draft)
        graph = build_graph(catalogue.items, vectors, tastes(centroids), settings.edges_per_cluster)
        items = ItemTable(ItemIds.of(catalogue.items), vectors, catalogue.features)
        write_contents(draft, Contents(items, centroids, graph, index.index), catalogue.tokens)

        connected = int(np.count_nonzero(np.diff(graph.item_start)))
        measured = {
            f"index_recall_at_{RECALL_SIZE}": index.recall,
            "index_probes": float(index.probes),
            "graph_coverage": connected / len(catalogue.items),
            "graph_edges_per_item": graph.n_edges / connected,
        }
        manifest = Manifest(
            created=now_ms,
            features=features_hash(),
            dimensions=settings.dimensions,
            clusters=len(centroids),
            history_length=settings.history_length,
            active_clusters=min(settings.active_clusters, len(centroids)),
            context_temperature=settings.context_temperature,
            items=len(catalogue.items),
            steepness=trained.metrics.get("ranker_steepness", 1.0),
            nearest_items=settings.edges_per_cluster,
            parent=parent,
            files={},
            parameters=parameters(settings),
            metrics=trained.metrics | measured,
        )
        release = seal(draft, manifest)
        if (releases / release).exists():  # the same bytes, because the id is their hash
            return release
        publish(draft, releases / release)
        return release
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def parameters(settings: TrainingSettings) -> dict[str, str | int | float | bool | None]:
    """The settings as flat parameters: `positive_value.rating` for an entry of a table."""
    flat: dict[str, str | int | float | bool | None] = {}
    for name, value in settings.model_dump(mode="json").items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": entry for key, entry in value.items()}
        else:
            flat[name] = value
    return flat
