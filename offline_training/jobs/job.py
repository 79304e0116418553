"""What a training works with, and the run that it works in."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import Unavailable
from feature_store.home import Home
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from feature_store.rewriting import undisturbed
from offline_training.data.lake import imported_rows
from offline_training.data.summary import TrainingSetSummary
from offline_training.jobs.forget import forget
from offline_training.progress import Progress, section
from offline_training.promotion.aliases import follow
from offline_training.promotion.garbage import collect
from offline_training.promotion.registry import Registry
from offline_training.promotion.releases import Site
from offline_training.runs.run import Inputs, Run
from offline_training.runs.runs import begin, interrupted
from offline_training.runs.version import code_version
from offline_training.settings import SparkSettings, Start, TrainingSettings
from streaming.settings import RewardSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainJob:
    """What a training works with.

    log, partitions: of the event log, as it is now. until_ms: imported interactions from here on are not read, they
    measure the release (None: all are read). exclude_items: what was imported about them is not read. memory_days: of
    the namespace that is made. forget_within_days: as LakeSettings has it. releases_kept: as ReleaseSettings.kept.
    override: why it is to train and serve whatever checks of the data and the gate say. check_lock: raises Unavailable
    if another job has taken this one's place. await_present: waits until the lake and what serves hold the log as it
    is now; raises Unavailable if they do not get there. stale: activate a namespace that is not folded up to the
    present. fresh: do not go on with a run that was interrupted.
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
    partitions: int
    until_ms: int | None = None
    exclude_items: frozenset[str] = frozenset()
    memory_days: float | None = None
    releases_kept: int = 5
    override: str | None = None
    forget_within_days: float = 30.0
    check_lock: Callable[[], None] = lambda: None
    await_present: Callable[[], None] = lambda: None
    stale: bool = False
    fresh: bool = False

    @property
    def site(self) -> Site:
        """Where its release is to serve."""
        return Site(self.home, self.online, self.state, self.registry)

    def make_sets(self, lake: Path, out: Path, progress: Progress) -> TrainingSetSummary:
        """Runs the Spark job and stops Spark, so that its memory and cores are free before models are trained."""
        from offline_training.data.spark import spark_session, stop_session
        from offline_training.data.training_sets import build_training_sets

        progress(0.0, "starting Spark")
        spark = spark_session(self.spark, "matchloop-train", imported_rows(lake))
        try:
            return build_training_sets(
                spark,
                lake,
                out,
                training=self.training,
                rewards=self.rewards,
                until_ms=self.until_ms,
                exclude_items=self.exclude_items,
                progress=section(progress, 0.2, 1.0),
            )
        finally:
            stop_session(spark)


@dataclass(frozen=True)
class TrainResult:
    """What a training made; metrics as in MLflow. not_compared: why the gate did not compare the release with the
    champion, None if it did or there was none."""

    release: str
    namespace: str
    metrics: dict[str, float]
    not_compared: str | None = None


@contextmanager
def run_of(job: TrainJob, name: str, parent: Active | None) -> Iterator[Run]:
    """The run of a job, undisturbed by rewritings: one that was interrupted while the same served, or a new one. What
    nobody needs any more is removed before a new one begins, for trainings that are refused leave something, too, and
    when it has ended well. name: of the job."""
    inputs = _inputs(job, name, parent)

    def found() -> Path | None:
        return None if job.fresh else interrupted(job.home.runs, inputs, job.clock.now_ms())

    if found() is None:
        _carry_out_erasures(job)
        _clean_up(job)
    with undisturbed(job.home):
        folder = found()
        if folder is None:
            folder = begin(job.home.runs, inputs, job.clock.now_ms())
        with Run(folder, job.check_lock) as run:
            if done := [step.name for step in run.steps()]:
                logger.warning("run %s was interrupted and goes on: %s are done", run.manifest.id, ", ".join(done))
            yield run
    _clean_up(job)


def _clean_up(job: TrainJob) -> None:
    """Removes releases, namespaces and runs that nobody needs any more; if that has to wait, the next job does it."""
    try:
        if collect(job.site, job.releases_kept, job.rewards.window_seconds, job.clock.now_ms()):
            follow(job.site)
    except Unavailable as error:
        logger.warning("nothing is cleaned up: %s", error)


def _inputs(job: TrainJob, name: str, parent: Active | None) -> Inputs:
    read = [job.training.model_dump(mode="json"), job.rewards.model_dump(mode="json"), job.memory_days]
    return Inputs(
        job=name,
        until_ms=job.until_ms,
        excluded=sorted(job.exclude_items),
        settings=hashlib.sha256(msgspec.json.encode(read, order="deterministic")).hexdigest()[:16],
        seed=job.training.seed,
        start=job.training.start if name == "retrain" else Start.SCRATCH,
        code=code_version(),
        log=job.log,
        partitions=job.partitions,
        parent_release=parent and parent.release,
        parent_namespace=parent and parent.namespace,
    )


def _carry_out_erasures(job: TrainJob) -> None:
    """Has what is trained from name nobody who was erased. If that has to wait, for an import say, training leaves them
    out all the same."""
    try:
        done = forget(job.home, job.online, job.state, job.clock.now_ms(), job.forget_within_days)
    except Unavailable as error:
        logger.warning("erasures are not carried out yet: %s", error)
        return
    logger.info("erased: %s", done)
