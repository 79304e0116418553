"""A release is whole, is what serving reads, and passes the gate only if it deserves to."""

import math
from pathlib import Path

import numpy as np
import pytest

from feature_store.contracts.errors import ReleaseRefused
from feature_store.contracts.manifest import Manifest, open_release
from feature_store.definitions import ITEM_TOKENS, HistoryEvent, features_hash
from feature_store.graph import Graph
from offline_training.evaluation.holdout import evaluate_release, held_out_questions
from offline_training.promotion.gate import gate
from offline_training.promotion.publishing import user_records
from offline_training.release.encoding import encode_users
from offline_training.release.write import write_release
from offline_training.settings import TrainingSettings
from offline_training.train_models import Trained
from online_serving.snapshot import Snapshot


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("releases")


@pytest.fixture(scope="module")
def release(releases: Path, trained: Trained, settings: TrainingSettings) -> str:
    return write_release(releases, trained, settings, None, 123)


def test_a_release_is_sealed_and_complete(releases: Path, release: str, settings: TrainingSettings) -> None:
    manifest = open_release(releases / release, features_hash())
    assert sorted(manifest.files) == [
        "centroids.npy",
        "graph.parquet",
        "index.faiss",
        "item_tower.onnx",
        "items.parquet",
        "list_items.npy",
        "list_scores.npy",
        "ranker.onnx",
        "scorer.onnx",
        "user_tower.onnx",
        "vectors.npy",
    ]
    assert (manifest.created, manifest.clusters, manifest.items) == (123, 3, 40)
    assert manifest.metrics["index_recall_at_100"] == 1.0
    assert manifest.metrics["index_probes"] == 0.0
    graph = Graph.load(releases / release / "graph.parquet")
    degrees = np.array([len(graph.clusters_of(item)) for item in range(40)])
    assert manifest.metrics["graph_coverage"] == np.mean(degrees > 0) == 1.0
    assert manifest.metrics["graph_edges_per_item"] == pytest.approx(degrees.mean())
    assert manifest.nearest_items == settings.edges_per_cluster
    assert manifest.parameters["positive_value.rating"] == settings.positive_value["rating"]
    assert [path.name for path in releases.iterdir()] == [release], "no draft is left"


def test_the_same_training_gives_the_same_release(
    releases: Path, release: str, trained: Trained, settings: TrainingSettings
) -> None:
    assert write_release(releases, trained, settings, None, 123) == release


def test_serving_reads_it(releases: Path, release: str, trained: Trained) -> None:
    snapshot = Snapshot.load(releases, release)
    assert snapshot.graph.items == trained.catalogue.items
    assert snapshot.vectors == pytest.approx(trained.two_tower.item_vectors(), abs=1e-5)
    sequences, length = trained.sequences, trained.two_tower.history_length
    everybody, events = np.arange(40), np.arange(40) % 13
    people = encode_users(snapshot.towers, snapshot.vectors, sequences, everybody, events, length)
    histories = sequences.histories(everybody, events, length)
    expected = trained.two_tower.user_vectors(snapshot.vectors, histories, sequences.profile)
    assert people == pytest.approx(expected, abs=1e-5)
    live = snapshot.towers.item_vectors(np.zeros((1, ITEM_TOKENS), np.int64))
    assert np.linalg.norm(live[:, :-1]) == pytest.approx(1.0, abs=1e-5)
    tower = trained.two_tower.item_tower
    assert live[0, -1] == pytest.approx(tower.temperature * tower.popularity[0].item(), abs=1e-5)


def test_held_out_metrics_of_all_models(releases: Path, release: str, trained: Trained) -> None:
    users = trained.sequences
    unseen = {
        user: {item for item in trained.catalogue.items if item[:5] == ("drama", "horro")[int(user[-2:]) % 2]}
        for user in users.users[:10]
    }
    questions = held_out_questions(trained.catalogue, users, unseen | {"stranger": {"drama00"}, "gone": {"nowhere"}})
    assert [len(question.events) for question in questions] == [0] + [12] * 10
    assert all(len(question.positives) == 20 - 12 for question in questions[1:])
    metrics = evaluate_release(Snapshot.load(releases, release), trained.catalogue, trained.sequences, questions, 14.0)
    assert metrics["held_out_users"] == 11
    assert metrics["held_out_two_stage_ndcg_at_10"] > 0.7
    assert 0 < metrics["held_out_clusters_recall_at_50"] <= metrics["held_out_retrieval_recall_at_50"]
    assert metrics["held_out_two_stage_ndcg_at_10"] > metrics["held_out_popularity_ndcg_at_10"] + 0.2
    assert metrics["held_out_item_knn_ndcg_at_10"] > metrics["held_out_popularity_ndcg_at_10"]


def test_users_are_published_with_times(sets: Path) -> None:
    first = next(iter(user_records(sets)))
    assert (first.user, first.profile) == ("user00", ["group=drama"])
    assert len(first.history) == len(first.shown) == 12
    assert first.history[-1] == HistoryEvent(first.shown[-1][0], "click+", first.shown[-1][1])
    assert first.history[0].time < first.history[-1].time


def manifest(**metrics: float) -> Manifest:
    return Manifest(
        created=0,
        features="",
        dimensions=8,
        clusters=1,
        history_length=1,
        active_clusters=1,
        context_temperature=0.1,
        items=1,
        parent=None,
        files={},
        metrics=metrics,
    )


@pytest.mark.parametrize(
    ("candidate", "champion", "reason"),
    [
        ({}, None, None),
        ({"validation_retrieval_recall_at_50": 0.3, "validation_popularity_recall_at_50": 0.3}, None, None),
        (
            {"validation_retrieval_recall_at_50": 0.1, "validation_popularity_recall_at_50": 0.3},
            None,
            "recall@50 of retrieval is 0.100, below 0.8 of popularity's 0.300",
        ),
        ({"ranker_auc": math.nan}, None, "metric ranker_auc is nan"),
        (
            {
                "validation_retrieval_recall_at_50": 0.1,
                "validation_retrieval_recall_at_50_error": 0.08,
                "validation_popularity_recall_at_50": 0.3,
            },
            None,
            None,
        ),
        (
            {"validation_retrieval_hit_rate_at_10": 0.2, "validation_users": 25},
            {"validation_retrieval_hit_rate_at_10": 0.5},
            None,
        ),
        ({"validation_retrieval_hit_rate_at_10": 0.3}, {"validation_retrieval_hit_rate_at_10": 0.5}, None),
        (
            {"validation_retrieval_hit_rate_at_10": 0.2},
            {"validation_retrieval_hit_rate_at_10": 0.5},
            "hit rate@10 is 0.200, below 0.5 of the champion's 0.500",
        ),
        ({"graph_coverage": 0.99}, None, None),
        (
            {"graph_coverage": 0.0993},
            None,
            "9.9% of the items are connected to clusters of users, below 99%: who likes the others cannot be learnt",
        ),
    ],
)
def test_gate(candidate: dict[str, float], champion: dict[str, float] | None, reason: str | None) -> None:
    before = None if champion is None else manifest(**champion)
    assert gate(manifest(**candidate), before) == ([] if reason is None else [reason])


def test_a_damaged_release_is_refused(releases: Path, release: str, tmp_path: Path) -> None:
    copy = tmp_path / release
    copy.mkdir()
    for path in (releases / release).iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "centroids.npy").write_bytes(b"something else")
    with pytest.raises(ReleaseRefused, match=r"centroids\.npy is missing or was changed"):
        Snapshot.load(tmp_path, release)
