"""The training job: lake -> Spark -> models -> release -> namespace -> MLflow -> promotion."""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.manifest import open_release
from feature_store.decay import Decay
from feature_store.definitions import features_hash
from feature_store.home import Home
from feature_store.namespace import Namespace, Start, namespace_id
from feature_store.online.store import OnlineStore
from feature_store.rewriting import undisturbed
from feature_store.sums import NO_ROWS
from offline_training.carry_over.logged_trials import logged_prior
from offline_training.data.lake import imported_rows, positives_from
from offline_training.evaluation.holdout import evaluate_release, held_out_questions
from offline_training.jobs.forget import forget
from offline_training.progress import Progress, section
from offline_training.promotion.promote import promote, publish_catalogue
from offline_training.promotion.registry import Registry
from offline_training.promotion.training_plots import training_figures
from offline_training.release.write import write_release
from offline_training.settings import SparkSettings, TrainingSettings
from offline_training.train_models import Trained, train_models
from offline_training.training_data import read_training_data
from online_serving.release_files import read_graph
from online_serving.snapshot import Snapshot
from streaming.settings import RewardSettings
from streaming.sink import learning_at

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainJob:
    """What a training run works with.

    log, offsets: the event log's id and, per partition, the first offset that a new
    namespace folds. until_ms: imported interactions from here on are not read, they measure the release (None: all are
    read). exclude_items: what was imported about them is not read. memory_days: of the namespace that is made.
    forget_within_days: as LakeSettings has it. check_lock: raises Unavailable if another job has taken this one's
    place.
    """

    home: Home
    training: TrainingSettings
    spark: SparkSettings
    rewards: RewardSettings
    registry: Registry
    online: OnlineStore
    state: BanditStore
    clock: Clock
    log: str
    offsets: list[int]
    until_ms: int | None = None
    exclude_items: frozenset[str] = frozenset()
    memory_days: float | None = None
    forget_within_days: float = 30.0
    check_lock: Callable[[], None] = lambda: None

    def starts(self) -> list[Start]:
        """Where a first namespace begins in each partition: with learning on or off, as the log says there."""
        return [
            Start(learning=learning_at(self.home.lake, self.log, partition, offset))
            for partition, offset in enumerate(self.offsets)
        ]


@dataclass(frozen=True)
class TrainResult:
    """What a training run made; metrics as in MLflow. not_compared: why the gate did not compare the release with the
    champion, None if it did or there was none."""

    release: str
    namespace: str
    metrics: dict[str, float]
    not_compared: str | None = None


def train(job: TrainJob, progress: Progress) -> TrainResult:
    """Trains a first release and promotes it. Its base is empty, or with `training.prior_discount` a prior from what
    was logged before.

    Raises InvalidInput if there is too little to learn from, ReleaseRefused if the gate holds the release back, and
    Unavailable if Spark or MLflow does not answer.
    """
    carry_out_erasures(job)
    with undisturbed(job.home.root):
        return _train(job, progress)


def carry_out_erasures(job: TrainJob) -> None:
    """Has what is trained from name nobody who was erased. If that has to wait, for an import say, training leaves them
    out all the same."""
    try:
        done = forget(job.home, job.online, job.state, job.clock.now_ms(), job.forget_within_days)
    except Unavailable as error:
        logger.warning("erasures are not carried out yet: %s", error)
        return
    logger.info("erased: %s", done)


def _train(job: TrainJob, progress: Progress) -> TrainResult:
    began = job.clock.now_ms()
    summary = build_sets(job, section(progress, 0.0, 0.4))
    data = read_training_data(job.home.training_sets, job.training)
    trained = train_models(data, job.home.checkpoints, job.training, section(progress, 0.4, 0.85))
    created = job.clock.now_ms()
    release = write_release(job.home.releases, trained, job.training, None, created)
    base = NO_ROWS
    if job.training.prior_discount:
        # Only what is over: the namespace may fold what comes from here on.
        over = began - int(job.rewards.window_seconds * 1000)
        snapshot = Snapshot.load(job.home.releases, release)
        decay = Decay(job.memory_days, created)
        base = logged_prior(snapshot, job.home.training_sets / "impressions", over, job.training.prior_discount, decay)
    namespace = Namespace(
        id=namespace_id(release, 1),
        release=release,
        log=job.log,
        offsets=list(job.offsets),
        created=created,
        graph=read_graph(job.home.releases / release),
        base=base,
        starts=job.starts(),
        memory_days=job.memory_days,
    )
    return finish(job, trained, release, namespace, summary, section(progress, 0.85, 1.0))


def build_sets(job: TrainJob, progress: Progress) -> dict[str, Any]:
    """Runs the Spark job and stops Spark, so that its memory and cores are free before models are trained. Returns the
    summary of what was read."""
    from offline_training.data.spark import spark_session, stop_session
    from offline_training.data.training_sets import build_training_sets

    progress(0.0, "starting Spark")
    spark = spark_session(job.spark, "matchloop-train", imported_rows(job.home.lake))
    try:
        summary = build_training_sets(
            spark,
            job.home.lake,
            job.home.training_sets,
            training=job.training,
            rewards=job.rewards,
            until_ms=job.until_ms,
            exclude_items=job.exclude_items,
            progress=section(progress, 0.2, 1.0),
        )
    finally:
        stop_session(spark)
    return asdict(summary)


def finish(
    job: TrainJob, trained: Trained, release: str, namespace: Namespace, summary: dict[str, Any], progress: Progress
) -> TrainResult:
    """Saves the namespace, measures the release on held-out positives, records it in MLflow and promotes it."""
    progress(0.0, "measuring the release")
    namespace.save(job.home.namespaces)
    manifest = open_release(job.home.releases / release, features_hash())
    metrics = dict(manifest.metrics)
    questions = []
    if job.until_ms is not None:
        later = positives_from(job.home.lake, job.until_ms, job.training.positive_value)
        questions = held_out_questions(trained.catalogue, trained.sequences, later)
    if questions:
        snapshot = Snapshot.load(job.home.releases, release)
        metrics |= evaluate_release(snapshot, trained.catalogue, trained.sequences, questions, job.training.recent_days)
    progress(0.4, "recording the run in MLflow")
    version = job.registry.record(
        job.home.releases / release,
        manifest,
        {name: value for name, value in metrics.items() if np.isfinite(value)},
        training_figures(trained, namespace.graph),
        trained.losses,
        {
            "release": release,
            "parent": manifest.parent,
            "namespace": namespace.id,
            "log": namespace.log,
            "offsets": namespace.offsets,
            "lake": summary | {"files": len(list(job.home.lake.rglob("*.parquet")))},
        },
    )
    logger.info("release %s is version %s of the model", release, version)
    progress(0.8, "promoting the release")
    job.check_lock()
    publish_catalogue(job.home.lake, job.exclude_items, job.online)
    not_compared = promote(job.home, release, namespace.id, job.registry, job.online, job.state)
    progress(1.0, f"release {release} serves")
    return TrainResult(release, namespace.id, metrics, not_compared)
