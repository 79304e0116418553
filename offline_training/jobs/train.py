"""The training job: lake -> Spark -> models -> release -> namespace -> MLflow -> promotion."""

from pathlib import Path

from feature_store.bandit_state import Position
from feature_store.contracts.manifest import read_manifest
from feature_store.decay import Decay
from feature_store.namespace import Namespace, Start, namespace_id
from feature_store.sums import NO_ROWS
from offline_training.carry_over.logged_trials import logged_prior
from offline_training.jobs.job import TrainJob, TrainResult, run_of
from offline_training.jobs.steps import Watermark, evaluated, finish, namespace_of, read_until, release_of, train_on
from offline_training.progress import Progress, section
from offline_training.runs.run import Run
from offline_training.runs.runs import SETS
from online_serving.release_files import read_graph
from online_serving.snapshot import Snapshot
from streaming.lake_events import coverage, learning_at


def train(job: TrainJob, progress: Progress) -> TrainResult:
    """Trains a first release and promotes it. Its base is empty, or with `training.prior_discount` a prior from what
    was logged before. A training that was interrupted goes on, from the lake as it was then.

    Raises InvalidInput if there is too little to learn from, ReleaseRefused if the gate holds the release back, and
    Unavailable if Spark or MLflow does not answer.
    """
    with run_of(job, "train", job.online.deployment.active()) as run:
        progress(0.0, "reading the lake")
        read = read_until(job, run, lambda lake: _ends(job, lake))
        trained = train_on(job, run, section(progress, 0.0, 0.85))
        release = release_of(job, run, trained)
        progress(0.85, "measuring the release")
        metrics = evaluated(job, run, trained, release)
        namespace = namespace_of(job, run, lambda: first_namespace(job, run, read, release))
        return finish(job, run, trained, namespace, metrics, section(progress, 0.9, 1.0))


def _ends(job: TrainJob, lake: Path) -> list[list[Position]]:
    return [[Position(job.log, coverage(lake, job.log, partition))] for partition in range(job.partitions)]


def first_namespace(job: TrainJob, run: Run, read: Watermark, release: str) -> Namespace:
    """A namespace that begins with nothing, or with what was logged before, and folds the log from the watermark on."""
    created, offsets, base = run.manifest.created, read.offsets(), NO_ROWS
    if job.training.prior_discount:
        # Only what is over: the namespace may fold what comes from here on.
        over = created - int(job.rewards.window_seconds * 1000)
        snapshot = Snapshot.load(job.home.releases, release)
        decay, logged = Decay(job.memory_days, created), run.folder / SETS / "impressions"
        base = logged_prior(snapshot, logged, over, job.training.prior_discount, decay)
    return Namespace(
        id=namespace_id(release, 1),
        release=release,
        log=job.log,
        offsets=offsets,
        created=created,
        graph=read_graph(job.home.releases / release),
        base=base,
        starts=starts(job, offsets),
        memory_days=job.memory_days,
        steepness=read_manifest(job.home.releases / release).steepness,
    )


def starts(job: TrainJob, offsets: list[int]) -> list[Start]:
    """Where a first namespace begins in each partition: with learning on or off, as the log says there."""
    return [
        Start(learning=learning_at(job.home.lake, job.log, partition, offset))
        for partition, offset in enumerate(offsets)
    ]
