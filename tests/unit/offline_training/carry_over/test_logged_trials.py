"""The prior from logged decisions, by hand."""

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.decay import NOTHING_FADES, Decay
from feature_store.definitions import HistoryEvent
from feature_store.sums import EXPECTED, NO_ROWS, B, D, F, N, S, Sums
from feature_store.user_features import UserFeatures
from offline_training.carry_over.logged_trials import logged_prior
from offline_training.release.write import write_release
from offline_training.settings import TrainingSettings
from offline_training.train_models import Trained
from online_serving.pipeline.features import candidate_features, encode_user
from online_serving.pipeline.request import Request
from online_serving.snapshot import Snapshot

HISTORY = [HistoryEvent("drama03", "click+", 9), HistoryEvent("drama01", "click+", 8)]
PROFILE = ["group=drama"]


@pytest.fixture
def snapshot(tmp_path: Path, trained: Trained, settings: TrainingSettings) -> Snapshot:
    release = write_release(tmp_path / "releases", trained, settings, None, 1)
    return Snapshot.load(tmp_path / "releases", release)


def _write(directory: Path, *rows: tuple[int, list[str], list[float], list[float]]) -> Path:
    directory.mkdir()
    items, kinds, times = (list(column) for column in zip(*HISTORY, strict=True))
    user = {"history": items, "history_kinds": kinds, "history_times": times, "profile": PROFILE}
    named = [user | {"time": time, "items": i, "rewards": r, "probabilities": p} for time, i, r, p in rows]
    pq.write_table(pa.Table.from_pylist(named), directory / "part-0.parquet")
    return directory


def test_a_logged_trial_counts_by_its_propensity_in_todays_clusters(snapshot: Snapshot, tmp_path: Path) -> None:
    (drama,) = snapshot.graph.positions(["drama05"])
    clusters = snapshot.graph.clusters_of(drama)
    logged = _write(
        tmp_path / "sets",
        (10, ["drama05", "gone", "drama07"], [1.0, 1.0, 0.5], [0.5, 0.5, 0.001]),
        (20, ["drama05"], [0.0], [1.0]),
        (30, ["drama05"], [1.0], [1.0]),  # not over yet
    )
    seeded = Sums.of(logged_prior(snapshot, logged, 30, 0.5, NOTHING_FADES))
    # 0.5 / 0.5 with reward 1, and 0.5 / 1 with reward 0; 0.5 times at most 10 for the rare one with reward 0.5.
    row = seeded.get("drama05")
    assert row[:EXPECTED].tolist() == [1.5, 1.5, 1.0, 1.0]
    assert seeded.get("drama07")[:EXPECTED].tolist() == [5.0, 5.0, 2.5, 1.25]
    assert not seeded.get("gone").any()

    user = encode_user(snapshot, UserFeatures(PROFILE, HISTORY, frozenset()), Request(slate_size=1))
    position = snapshot.positions(["drama05"])
    predicted = float(snapshot.towers.predict(candidate_features(snapshot, user, position))[0])
    assert row[EXPECTED] == pytest.approx(1.5 * predicted)
    connected = [(c, w) for c, w in zip(user.clusters, user.weights, strict=True) if c in clusters]
    assert connected
    for cluster, w in connected:
        edge = seeded.get("drama05", int(cluster))
        assert edge[[D, S, B, F]] == pytest.approx([1.5 * w**2, 1.5 * w, w, 1.5 * w * predicted])
    total = seeded.rows()
    assert total.values[:, N].sum() > 0
    edges = [set(snapshot.graph.clusters_of(j)) for j in snapshot.graph.positions(["drama05", "drama07"])]
    assert len(total.item) == 2 + sum(c in found for found in edges for c in user.clusters)


def test_a_logged_trial_fades(snapshot: Snapshot, tmp_path: Path) -> None:
    logged = _write(tmp_path / "sets", (10, ["drama05"], [1.0], [1.0]), (20, ["drama05"], [0.0], [1.0]))
    faded = Sums.of(logged_prior(snapshot, logged, 30, 0.5, Decay(10 / 86_400_000, 20)))
    older, newer = 0.5 / math.e, 0.5
    assert faded.get("drama05")[:EXPECTED] == pytest.approx([older + newer, older + newer, older, older])


def test_without_logged_decisions_there_is_no_prior(snapshot: Snapshot, tmp_path: Path) -> None:
    logged = _write(tmp_path / "sets", (10, ["gone"], [1.0], [1.0]))
    assert len(logged_prior(snapshot, logged, 30, 1.0, NOTHING_FADES).item) == len(NO_ROWS.item)
    assert len(logged_prior(snapshot, tmp_path / "nothing", 30, 1.0, NOTHING_FADES).item) == 0
