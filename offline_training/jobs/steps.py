"""The steps that train and retrain share: lake, training sets, models, release, evaluation, MLflow, promotion."""

import hashlib
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import torch

from feature_store.bandit_state import Position
from feature_store.contracts.errors import InvalidInput, ReleaseRefused, Unavailable
from feature_store.contracts.manifest import Manifest, file_hash, open_release
from feature_store.definitions import features_hash
from feature_store.durable import publish, whole_folder
from feature_store.namespace import Namespace
from feature_store.online.deployment import Active
from offline_training.data.lake import parquet_files, positives_from
from offline_training.data.shrinking import shrunk
from offline_training.data.summary import TrainingSetSummary
from offline_training.evaluation.comparison import Comparison, compare
from offline_training.evaluation.holdout import evaluate_release, held_out_questions
from offline_training.evaluation.shown import compare_shown, explored_likes, slates_of
from offline_training.experiment.impressions import rewarded_since
from offline_training.jobs.job import TrainJob, TrainResult
from offline_training.progress import Progress, section
from offline_training.promotion.aliases import follow
from offline_training.promotion.promote import promote
from offline_training.promotion.step_runs import StepRun
from offline_training.promotion.training_plots import training_figures
from offline_training.release.write import write_release
from offline_training.runs.run import PROMOTED, Run
from offline_training.runs.runs import NAMESPACE, RELEASE, SETS, all_runs
from offline_training.runs.watermark import Frozen, freeze
from offline_training.train_models import State, Trained, train_models
from offline_training.training_data import read_training_data
from offline_training.warm_start import warm_start
from online_serving.snapshot import Snapshot

logger = logging.getLogger(__name__)

_LAKE = "lake"


class Watermark(msgspec.Struct, frozen=True):
    """Up to where a run reads. ends: per partition, in each log that the parent's namespace folds in turn, the last
    being the one that the broker has."""

    lake: Frozen
    ends: list[list[tuple[str, int]]]

    def positions(self) -> list[list[Position]]:
        """The ends, per partition."""
        return [[Position(log, offset) for log, offset in stops] for stops in self.ends]

    def offsets(self) -> list[int]:
        """Per partition, the first offset that the run does not read."""
        return [stops[-1][1] for stops in self.ends]


class Sets(msgspec.Struct, frozen=True):
    """The training sets. summary: of TrainingSetSummary. digest: of all their rows."""

    summary: dict[str, int]
    digest: str


class Weights(msgspec.Struct, frozen=True):
    """A model's state. digest: of its file."""

    digest: str


class Made(msgspec.Struct, frozen=True):
    """A release, or a namespace. Its id vouches for a release's every byte."""

    id: str


class Measured(msgspec.Struct, frozen=True):
    """How good the release is; None: not a number. comparison: with what serves, if there is what neither has seen."""

    metrics: dict[str, float | None]
    comparison: Comparison | None = None

    def numbers(self) -> dict[str, float]:
        """All metrics, the missing ones as NaN."""
        return {name: math.nan if value is None else value for name, value in self.metrics.items()}


class Registered(msgspec.Struct, frozen=True):
    """The version of the registered model."""

    version: str


class Promoted(msgspec.Struct, frozen=True):
    """not_compared: as in TrainResult."""

    not_compared: str | None


def read_until(job: TrainJob, run: Run, ends: Callable[[Path], Sequence[Sequence[Position]]]) -> Watermark:
    """Freezes the lake, once it holds the log as it is now. ends: gives the ends in a lake, per partition."""

    def frozen() -> Watermark:
        job.await_present()
        found = freeze(job.home.lake, run.folder / _LAKE)
        stops = [[(one.log, one.offset) for one in of] for of in ends(run.folder / _LAKE)]
        return Watermark(found, stops)

    return run.step("lake", Watermark, frozen)


def train_on(job: TrainJob, run: Run, progress: Progress, champion: Run | None = None) -> Trained:
    """Training sets of the frozen lake, and models of these. champion: the run whose weights they begin as."""
    sets = run.folder / SETS

    def made() -> Sets:
        with whole_folder(sets) as folder:
            summary = job.make_sets(run.folder / _LAKE, folder, section(progress, 0.0, 0.5))
        _expect_the_data(job, run, summary)
        return Sets(asdict(summary), _digest(sets))

    def kept(name: str, make: Callable[[], State]) -> State:
        path = run.folder / f"{name}.pt"

        def saved() -> Weights:
            draft = path.with_suffix(".part")
            torch.save(make(), draft)
            publish(draft, path)
            return Weights(file_hash(path))

        run.step(name, Weights, saved)
        state: State = torch.load(path, weights_only=True)
        return state

    run.step(SETS, Sets, made)
    shutil.rmtree(run.folder / _LAKE, ignore_errors=True)
    data = read_training_data(sets, job.training)
    start = None if champion is None else kept("start", lambda: warm_start(champion, data, job.training))
    return train_models(data, run.folder / "checkpoints", job.training, section(progress, 0.5, 1.0), kept, start)


def _expect_the_data(job: TrainJob, run: Run, summary: TrainingSetSummary) -> None:
    """Raises InvalidInput if much of what the last training that ended well had is gone, unless that is wanted."""
    asked = run.manifest.inputs
    for earlier in reversed(all_runs(job.home.runs)):
        inputs = earlier.manifest.inputs
        if (inputs.until_ms, inputs.excluded) != (asked.until_ms, asked.excluded) or earlier.ended is None:
            continue
        if earlier.ended.outcome == PROMOTED:
            lost = shrunk(summary, earlier.outputs()[SETS]["summary"])
            if lost and job.override is None:
                raise InvalidInput(
                    f"Nothing was trained: since the last training the data has shrunk to {'; '.join(lost)}. What "
                    "serves goes on serving. Look at what is imported; if it is meant to be so, run "
                    f'`matchloop {asked.job} --override "REASON"`.'
                )
            return


def release_of(job: TrainJob, run: Run, trained: Trained) -> str:
    """Seals the models into a release. Returns its id."""
    inputs, created = run.manifest.inputs, run.manifest.created

    def written() -> Made:
        return Made(write_release(job.home.releases, trained, job.training, inputs.parent_release, created))

    return run.step(RELEASE, Made, written).id


def evaluated(job: TrainJob, run: Run, trained: Trained, release: str) -> dict[str, float]:
    """The release's metrics, with those of held-out positives if there are any, and how it compares with what serves on
    what neither has seen."""

    def measured() -> Measured:
        metrics: dict[str, float | None] = {**_manifest(job, release).metrics}
        known, recent = (trained.catalogue, trained.sequences), trained.metrics["recent_days"]
        snapshot, champion = Snapshot.load(job.home.releases, release), _champion(job, run)
        held_out: dict[str, frozenset[str]] = {}
        if job.until_ms is not None:
            held_out = positives_from(job.home.lake, job.until_ms, job.training.positive_value)
            questions = held_out_questions(*known, held_out)
            if questions:
                metrics |= evaluate_release(snapshot, *known, questions, recent)
        if run.manifest.inputs.parent_release is None:  # else what came online is later than what was held out
            questions = held_out_questions(*known, held_out)
            return Measured(metrics, compare(snapshot, None, *known, questions, recent) if questions else None)
        return Measured(metrics, _on_what_came_since(job, run, trained, snapshot, champion))

    return run.step("evaluation", Measured, measured).numbers()


def _on_what_came_since(
    job: TrainJob, run: Run, trained: Trained, release: Snapshot, champion: Snapshot | None
) -> Comparison:
    """The champion chose what users saw since the run began: that counts where it is weighed out, or not at all."""
    shown = rewarded_since(job.home.lake, _read_up_to(run), job.rewards)
    likes = explored_likes(shown, job.rewards.positive)
    imported = positives_from(job.home.lake, run.manifest.created, job.training.positive_value)
    unseen = {user: likes.get(user, frozenset()) | imported.get(user, frozenset()) for user in {*likes, *imported}}
    known = trained.catalogue, trained.sequences
    questions = held_out_questions(*known, unseen)
    found = compare(release, champion, *known, questions, trained.metrics["recent_days"])
    closed = job.clock.now_ms() - job.rewards.window_seconds * 1000
    slates = [] if champion is None else slates_of(shown, release, champion, job.rewards.positive, closed)
    if not slates:
        return found
    differences, evidence = compare_shown(slates)
    return Comparison(found.champion, [*differences, *found.differences], evidence)


def _read_up_to(run: Run) -> list[Position]:
    return [stops[-1] for stops in msgspec.convert(run.outputs()[_LAKE], Watermark).positions()]


def _champion(job: TrainJob, run: Run) -> Snapshot | None:
    """What served when the run began, None if nothing did, or if it cannot be read any more."""
    release = run.manifest.inputs.parent_release
    try:
        return None if release is None else Snapshot.load(job.home.releases, release)
    except ReleaseRefused as error:
        logger.warning("the release is not compared with the one that serves: %s", error)
        return None


def namespace_of(job: TrainJob, run: Run, make: Callable[[], Namespace]) -> Namespace:
    """Saves what the function makes."""

    def saved() -> Made:
        namespace = make()
        if namespace.id not in job.online.deployment.namespaces():  # a killed try has saved it
            shutil.rmtree(job.home.namespaces / namespace.id, ignore_errors=True)
        namespace.save(job.home.namespaces)
        return Made(namespace.id)

    return Namespace.load(job.home.namespaces, run.step(NAMESPACE, Made, saved).id)


def finish(
    job: TrainJob, run: Run, trained: Trained, namespace: Namespace, metrics: dict[str, float], progress: Progress
) -> TrainResult:
    """Records the run in MLflow and promotes the release.

    Raises ReleaseRefused if the gate holds it back, and Unavailable, which says that nothing is lost, if MLflow does
    not answer.
    """

    def registered() -> Registered:
        manifest = _manifest(job, namespace.release)
        try:
            version = job.registry.record(
                job.home.releases / namespace.release,
                manifest,
                {name: value for name, value in metrics.items() if math.isfinite(value)},
                training_figures(trained, namespace.graph),
                trained.losses,
                _lineage(run, manifest, namespace),
                _inputs(run),
                [
                    StepRun(step.name, step.began, step.seconds, msgspec.json.decode(step.output))
                    for step in run.steps()
                ],
            )
        except Unavailable as error:
            raise Unavailable(
                f"{error} What was trained is kept in {run.folder}: run `matchloop {run.manifest.inputs.job}` again "
                "when MLflow answers, and it goes on from here."
            ) from error
        return Registered(version)

    def promoted() -> Promoted:
        release, site = namespace.release, job.site
        if job.online.deployment.active() == Active(release, namespace.id):  # killed right behind it
            follow(site)
            return Promoted(None)
        comparison = msgspec.convert(run.outputs()["evaluation"], Measured).comparison
        return Promoted(promote(site, release, namespace.id, job.override, job.stale, comparison).not_compared)

    progress(0.0, "recording the run in MLflow")
    version = run.step("register", Registered, registered).version
    logger.info("release %s is version %s of the model", namespace.release, version)
    progress(0.6, "promoting the release")
    not_compared = run.step("promote", Promoted, promoted).not_compared
    progress(1.0, f"release {namespace.release} serves")
    return TrainResult(namespace.release, namespace.id, metrics, not_compared)


def _lineage(run: Run, manifest: Manifest, namespace: Namespace) -> dict[str, Any]:
    """What a release was made from."""
    steps = {
        step.name: {"began": step.began, "seconds": step.seconds, "output": msgspec.json.decode(step.output)}
        for step in run.steps()
    }
    return {
        "run": msgspec.to_builtins(run.manifest),
        "release": namespace.release,
        "parent": manifest.parent,
        "namespace": namespace.id,
        "log": namespace.log,
        "offsets": namespace.offsets,
        "steps": steps,
    }


def _inputs(run: Run) -> dict[str, Any]:
    """What data and code a release was made from, short enough for a table of runs."""
    inputs, read = run.manifest.inputs, run.outputs()
    told: dict[str, Any] = msgspec.to_builtins(inputs) | {"excluded": len(inputs.excluded)}
    told |= {"offsets": [stops[-1][1] for stops in read["lake"]["ends"]], "lake": read["lake"]["lake"]["digest"]}
    return {"run": run.manifest.id, "training_sets": read[SETS]["digest"]} | told


def _manifest(job: TrainJob, release: str) -> Manifest:
    return open_release(job.home.releases / release, features_hash())


def _digest(sets: Path) -> str:
    """Of the rows, whatever their files are called."""
    digest = hashlib.sha256()
    for path in parquet_files(sets):
        digest.update(f"{path.parent.name} {file_hash(path)}\n".encode())
    return digest.hexdigest()[:16]
