"""The retraining job: a new release whose bandit begins with what the old one has learnt."""

from collections.abc import Collection, Sequence
from pathlib import Path

from feature_store.bandit_state import Position
from feature_store.contracts.errors import ReleaseRefused
from feature_store.contracts.manifest import open_release
from feature_store.definitions import DAY_MS, features_hash
from feature_store.namespace import Namespace, namespace_id
from feature_store.translation import Translation
from offline_training.carry_over.change_point import between, next_base
from offline_training.jobs.job import TrainJob, TrainResult, run_of
from offline_training.jobs.steps import evaluated, finish, namespace_of, read_until, release_of, train_on
from offline_training.progress import Progress, section
from offline_training.retrieval.dataset import Impressions, read_impressions
from offline_training.runs.runs import SETS
from offline_training.settings import Start
from offline_training.train_models import Trained
from offline_training.warm_start import weights_of
from online_serving.snapshot import Snapshot
from streaming.log_reader import LogReader
from streaming.open_decisions import repartitioned, translate
from streaming.replay import lake_ends, replay


def retrain(job: TrainJob, progress: Progress) -> TrainResult:
    """Trains on the lake as it is now and promotes the release with a base made from the live state (V1D3).

    The live namespace's state as of the lake's end, offsets O, is computed by replay, carried to the new clusters, and
    held against what the new ranker expects of the same trials; the new namespace folds the log from O on, reading
    decisions of older releases through translations of their clusters. If the log has begun anew since the live
    namespace was made, all that the lake has of the earlier logs goes into the base. A retrain that was interrupted
    goes on, from the lake as it was then.

    With training.start = champion the models begin as the weights of what serves (warm_start.py); all else is the same.

    Raises as train does, and ReleaseRefused if nothing serves yet, or the champion's weights cannot be gone on from.
    """
    active = job.online.deployment.active()
    if active is None:
        raise ReleaseRefused("There is no release to retrain from. Run `matchloop train` first.")
    with run_of(job, "retrain", active) as run:
        parent = _usable_parent(job, str(run.manifest.inputs.parent_namespace))
        champion = weights_of(job.home.runs, parent.release) if job.training.start is Start.CHAMPION else None
        progress(0.0, "reading the lake")
        read = read_until(job, run, lambda lake: _ends(job, parent, lake))
        trained = train_on(job, run, section(progress, 0.0, 0.8), champion)
        release = release_of(job, run, trained)
        progress(0.8, "measuring the release")
        metrics = evaluated(job, run, trained, release)
        progress(0.85, "carrying over what was learnt online")
        created = run.manifest.created
        logged = read_impressions(run.folder / SETS, trained.catalogue, job.training.history_length)
        namespace = namespace_of(
            job, run, lambda: next_namespace(job, parent, read.positions(), trained, logged, release, created)
        )
        return finish(job, run, trained, namespace, metrics, section(progress, 0.9, 1.0))


def _usable_parent(job: TrainJob, namespace: str) -> Namespace:
    """The namespace to carry over. Raises ReleaseRefused, before anything is trained, if that cannot be done."""
    try:
        parent = Namespace.load(job.home.namespaces, namespace)
        open_release(job.home.releases / parent.release, features_hash())
    except ReleaseRefused as error:
        raise ReleaseRefused(
            f"What was learnt online cannot be carried over into a new release: {error} `matchloop train` makes one "
            "that begins without it."
        ) from None
    return parent


def _ends(job: TrainJob, parent: Namespace, lake: Path) -> list[list[Position]]:
    return [lake_ends(parent, partition, job.state, lake, job.log) for partition in range(len(parent.offsets))]


def next_namespace(
    job: TrainJob,
    parent: Namespace,
    ends: Sequence[Sequence[Position]],
    trained: Trained,
    logged: Impressions,
    release: str,
    created: int,
) -> Namespace:
    """The namespace of a release that follows the parent: transported and mixed base, offsets, translations. ends: per
    partition of the parent, up to where its log, and those that followed it, go into the base. logged: what was shown
    until then, in numbers of the trained catalogue. created: ms since the epoch.

    The log may have another number of partitions by now: sums add up whatever their partition was, and one that the
    parent did not fold is folded from its first record on."""
    learnt, starts = replay(parent, LogReader(job.home.lake), job.rewards, ends)
    learnt = learnt.times(1 / parent.decay.trial(created))  # in trials of the new landmark

    old, new = Snapshot.load(job.home.releases, parent.release), Snapshot.load(job.home.releases, release)
    matrix, graph = between(old, new, trained.catalogue.items, trained.sequences), new.graph
    base = next_base(learnt, matrix, new, logged, job.training.ensemble_omega, job.training.ensemble_keep)
    replaced = _replaced(parent, created, int(job.rewards.window_seconds * 1000))
    offsets, starts = [stops[-1].offset for stops in ends], [translate(start, matrix, graph) for start in starts]
    if job.partitions != len(starts):
        offsets = [*offsets, *[0] * job.partitions][: job.partitions]
        starts = repartitioned(starts, job.partitions)
    return Namespace(
        id=namespace_id(release, 1),
        release=release,
        log=job.log,
        offsets=offsets,
        created=created,
        graph=graph,
        base=base,
        starts=starts,
        translations=_translations(parent, matrix, replaced),
        replaced=replaced,
        memory_days=job.memory_days,
        steepness=new.manifest.steepness,
    )


def _replaced(parent: Namespace, created: int, window_ms: int) -> dict[str, int]:
    """The releases whose decisions may still come, by when their successor was made: that served for a day more at most
    while the next one was trained, and then until the windows of its decisions have closed."""
    before = {release: parent.replaced.get(release, parent.created) for release in parent.translations}
    before[parent.release] = created
    return {release: time for release, time in before.items() if created - time <= window_ms + DAY_MS}


def _translations(parent: Namespace, matrix: Translation, releases: Collection[str]) -> dict[str, Translation]:
    """Older releases reach the new clusters through the parent's."""
    older = {release: earlier.then(matrix) for release, earlier in parent.translations.items() if release in releases}
    return older | {parent.release: matrix}
