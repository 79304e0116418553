"""A training that is killed anywhere goes on when it is asked for again, and ends with the same release."""

import dataclasses
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from feature_store.contracts.clock import ManualClock
from feature_store.contracts.errors import InvalidInput, ReleaseRefused, Unavailable
from feature_store.definitions import DAY_MS
from feature_store.home import Home
from feature_store.namespace import Namespace
from feature_store.online.deployment import Active
from feature_store.rewriting import rewriting
from feature_store.sums import Sums
from offline_training.data.summary import TrainingSetSummary
from offline_training.jobs.job import TrainResult
from offline_training.jobs.retrain import retrain
from offline_training.jobs.train import train
from offline_training.progress import Progress, silent
from offline_training.runs.run import End, Run
from offline_training.runs.runs import all_runs, published
from offline_training.runs.version import code_version
from offline_training.settings import Start
from tests.integration.conftest import Serving
from tests.tiny_job import Notes, TinyJob, tiny_job
from tests.tiny_sets import write_sets

STEPS = [
    "lake", "training_sets", "towers", "ranker", "lists", "newest", "release", "evaluation", "namespace", "register",
    "promote",
]  # fmt: skip
FROM_CHAMPION = [*STEPS[:2], "start", *STEPS[2:]]
ROOT = Path(__file__).parents[2]


LATER = 2_000_000  # ms, when the retrain begins


class Killed(BaseException):
    """What leaves nobody the time to tidy up."""


class Begun(NamedTuple):
    """What serves first, and what a retrain that nothing happens to makes of it."""

    first: Active
    undisturbed: TrainResult
    base: Sums


def killing(step: str, steps: Sequence[str] = STEPS) -> Callable[[], None]:
    """A check that is asked before each step, and kills before this one."""
    asked = iter(steps)

    def check() -> None:
        if next(asked) == step:
            raise Killed

    return check


def killing_after_one() -> Callable[[], None]:
    """A check that kills before the second step that it is asked before."""
    asked = iter((False, True))

    def check() -> None:
        if next(asked):
            raise Killed

    return check


@pytest.fixture(scope="module")
def begun(serving: Serving, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Begun:
    home = tmp_path_factory.mktemp("undisturbed")
    first = serving(home, "undisturbed")
    job = tiny_job(home, redis_url, "undisturbed", now=LATER)
    made = retrain(job, silent)
    return Begun(first, made, Sums.of(Namespace.load(job.home.namespaces, made.namespace).base))


class Installation(NamedTuple):
    """A home in which a first release serves, with keys of its own in Redis."""

    home: Path
    redis_url: str
    prefix: str

    def job(self, check: Callable[[], None] = lambda: None) -> TinyJob:
        return tiny_job(self.home, self.redis_url, self.prefix, check, LATER)

    def runs(self) -> list[Run]:
        return all_runs(self.home / "runs")


@pytest.fixture
def installation(serving: Serving, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Installation:
    made = Installation(tmp_path / "home", redis_url, "".join(filter(str.isalnum, request.node.name))[-40:])
    serving(made.home, made.prefix)
    return made


def expect_the_same(installation: Installation, begun: Begun, made: TrainResult) -> None:
    """As if nothing had happened: the same bytes serve, from the same base, and nothing is left over."""
    assert made.release == begun.undisturbed.release
    assert made.namespace == begun.undisturbed.namespace
    job = installation.job()
    assert job.online.deployment.active() == Active(made.release, made.namespace)
    base = Sums.of(Namespace.load(job.home.namespaces, made.namespace).base)
    assert base.rows().items == begun.base.rows().items
    assert (base.rows().values == begun.base.rows().values).all()
    assert begun.first.namespace in job.online.deployment.namespaces(), "the way back stays open"
    assert sorted(path.name for path in job.home.releases.iterdir()) == sorted([begun.first.release, made.release])
    last = published(job.home.runs)
    assert last is not None
    assert (last.release, last.run) == (made.release, installation.runs()[-1].manifest.id)
    assert [run.ended and run.ended.outcome for run in installation.runs()] == ["promoted"] * 2
    assert not list(installation.home.rglob("*.part"))


def test_a_run_says_what_it_did(begun: Begun, installation: Installation) -> None:
    job = installation.job()
    made = retrain(job, silent)
    expect_the_same(installation, begun, made)
    run = installation.runs()[-1]
    assert [step.name for step in run.steps()] == STEPS
    assert run.outputs()["release"] == {"id": made.release}
    assert run.outputs()["lake"]["ends"] == [[["the-log", 0]], [["the-log", 0]]]
    assert run.manifest.inputs.parent_release == begun.first.release
    assert isinstance(job.registry, Notes)
    [told] = job.registry.recorded
    assert told["nested"] == STEPS[:-2], "those that were done when it was recorded"
    assert told["inputs"]["training_sets"] == run.outputs()["training_sets"]["digest"]
    assert told["inputs"]["code"] == code_version()


def test_killed_before_every_step_it_ends_in_the_same_place(begun: Begun, installation: Installation) -> None:
    """Each try does the one step that the try before did not come to."""
    with pytest.raises(Killed):
        retrain(installation.job(killing("lake")), silent)
    for done in range(1, len(STEPS)):
        with pytest.raises(Killed):
            retrain(installation.job(killing_after_one()), silent)
        assert [step.name for step in installation.runs()[-1].steps()] == STEPS[:done]
        assert installation.job().online.deployment.active() == begun.first
    expect_the_same(installation, begun, retrain(installation.job(), silent))


def test_kill_9(begun: Begun, installation: Installation) -> None:
    """A process of its own, killed while it fits the ranker."""
    code = """
import os, signal, sys
from pathlib import Path
from offline_training.jobs.retrain import retrain
from tests.tiny_job import tiny_job

def progress(done, message):
    if message == "ranker":
        os.kill(os.getpid(), signal.SIGKILL)

retrain(tiny_job(Path(sys.argv[1]), *sys.argv[2:], now=2_000_000), progress)
"""
    killed = subprocess.run([sys.executable, "-c", code, *map(str, installation)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [step.name for step in installation.runs()[-1].steps()] == ["lake", "training_sets", "towers"]
    expect_the_same(installation, begun, retrain(installation.job(), silent))


class Dying(TinyJob):
    """Dies as soon as its release serves, before it has noted that."""

    def __init__(self, job: TinyJob) -> None:
        super().__init__(**vars(job))
        activate = self.online.deployment.activate

        def then_die(active: Active) -> None:
            activate(active)
            raise Killed

        self.online.deployment.activate = then_die  # type: ignore[method-assign]


def test_killed_right_behind_its_promotion_it_has_been_promoted(begun: Begun, installation: Installation) -> None:
    with pytest.raises(Killed):
        retrain(Dying(installation.job()), silent)
    again = installation.job()
    expect_the_same(installation, begun, retrain(again, silent))
    assert isinstance(again.registry, Notes)
    assert not again.registry.recorded


def test_a_first_training_goes_on_too(begun: Begun, redis_url: str, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tiny_job(tmp_path, redis_url, "again", killing("newest")), silent)
    assert train(tiny_job(tmp_path, redis_url, "again"), silent).release == begun.first.release


def test_mlflow_that_is_down_costs_nothing(begun: Begun, installation: Installation) -> None:
    class Down(Notes):
        def record(self, *_: object) -> str:
            raise Unavailable("MLflow at nowhere does not answer.")

    with pytest.raises(Unavailable, match=r"does not answer\. What was trained is kept in .* run `matchloop retrain`"):
        retrain(dataclasses.replace(installation.job(), registry=Down()), silent)
    asked: list[None] = []
    expect_the_same(installation, begun, retrain(installation.job(lambda: asked.append(None)), silent))
    assert len(asked) == 2


def begins_anew(installation: Installation, job: TinyJob) -> bool:
    """Whether there is another run when the job comes to its first step."""
    before = {run.folder for run in installation.runs()}
    with pytest.raises(Killed):
        retrain(dataclasses.replace(job, check_lock=at_once), silent)
    return not {run.folder for run in installation.runs()} <= before


def at_once() -> None:
    raise Killed


@pytest.mark.parametrize(
    "changes",
    [
        {"fresh": True},
        {"until_ms": 5},
        {"exclude_items": frozenset({"drama00"})},
        {"clock": ManualClock(LATER + DAY_MS)},
        {"log": "another-log"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_retrain_begins_anew(changes: dict[str, Any], installation: Installation) -> None:
    with pytest.raises(Killed):
        retrain(installation.job(killing("towers")), silent)
    assert begins_anew(installation, dataclasses.replace(installation.job(), **changes))


def test_it_begins_anew_when_something_else_serves(begun: Begun, installation: Installation) -> None:
    with pytest.raises(Killed):
        retrain(installation.job(killing("towers")), silent)
    job = installation.job()
    other = msgspec.structs.replace(Namespace.load(job.home.namespaces, begun.first.namespace), id="other-1")
    other.save(job.home.namespaces)
    job.online.deployment.activate(Active(begun.first.release, "other-1"))
    assert begins_anew(installation, job)


def test_what_would_only_fail_again_is_over(installation: Installation) -> None:
    class Empty(TinyJob):
        def make_sets(self, lake: Path, out: Path, progress: Progress) -> TrainingSetSummary:
            raise InvalidInput("There is too little.")

    with pytest.raises(InvalidInput):
        retrain(Empty(**vars(installation.job())), silent)
    ended = installation.runs()[-1].ended
    assert isinstance(ended, End)
    assert (ended.outcome, ended.words) == ("refused", "There is too little.")
    assert begins_anew(installation, installation.job())


def test_a_lock_that_was_lost_ends_it_before_the_next_step(begun: Begun, installation: Installation) -> None:
    asked = iter(STEPS)

    def lost() -> None:
        if next(asked) == "promote":
            raise Unavailable("lost")

    with pytest.raises(Unavailable):
        retrain(installation.job(lost), silent)
    assert installation.job().online.deployment.active() == begun.first


def test_the_lake_of_then_is_read(installation: Installation, begun: Begun) -> None:
    """What comes in, or is rewritten, after the run began is not read by it."""
    lake = installation.home / "lake" / "interactions"
    lake.mkdir(parents=True)
    (lake / "a.parquet").write_bytes(b"then")

    class Reading(TinyJob):
        def make_sets(self, lake: Path, out: Path, progress: Progress) -> TrainingSetSummary:
            found = {path.name: path.read_bytes() for path in (lake / "interactions").iterdir()}
            assert found == {"a.parquet": b"then"}
            write_sets(out)
            return TrainingSetSummary.load(out)

    with pytest.raises(Killed):
        retrain(installation.job(killing("training_sets")), silent)
    (lake / "b.parquet").write_bytes(b"later")
    (lake / "new").write_bytes(b"another")
    (lake / "new").replace(lake / "a.parquet")
    for file in lake.iterdir():
        assert file.read_bytes() != b"then"
    with pytest.raises(Killed):
        retrain(Reading(**vars(installation.job(killing_after_one()))), silent)
    assert not (installation.runs()[-1].folder / "lake").exists(), "it is needed no more"
    del begun


def test_erased_users_do_not_stay_in_an_interrupted_run(installation: Installation) -> None:
    """Nobody trains while files are rewritten, and what is left of a run goes with them: see test_forget."""
    from offline_training.runs.runs import discard_interrupted

    with pytest.raises(Killed):
        retrain(installation.job(killing("towers")), silent)
    with rewriting(Home(installation.home)):
        discard_interrupted(installation.home / "runs")
    assert [run.ended is not None for run in installation.runs()] == [True]


def test_only_the_newest_two_are_kept(installation: Installation) -> None:
    job = installation.job()
    ids = [run.manifest.id for run in installation.runs()]
    for n in range(2):
        with pytest.raises(Killed):
            retrain(dataclasses.replace(installation.job(killing("towers")), clock=ManualClock(LATER + n)), silent)
        retrain(dataclasses.replace(job, clock=ManualClock(LATER + 10 + n), fresh=True), silent)
        ids.append(installation.runs()[-1].manifest.id)
        assert [run.manifest.id for run in installation.runs()] == ids[-2:]


def test_a_release_that_the_gate_refuses_is_not_tried_again(begun: Begun, installation: Installation) -> None:
    job = installation.job(killing("promote"))
    with pytest.raises(Killed):
        retrain(job, silent)
    shutil.rmtree(job.home.releases / begun.undisturbed.release)
    with pytest.raises(ReleaseRefused):
        retrain(installation.job(), silent)
    ended = installation.runs()[-1].ended
    assert ended is not None
    assert ended.outcome == "refused"
    assert begins_anew(installation, installation.job())


def from_champion(job: TinyJob) -> TinyJob:
    return dataclasses.replace(job, training=job.training.model_copy(update={"start": Start.CHAMPION}))


def test_a_retrain_goes_on_from_the_champions_weights(
    serving: Serving, installation: Installation, redis_url: str, tmp_path: Path
) -> None:
    """Killed while it fits the ranker it ends with the release of one that was not; what it began as is recorded."""
    job = from_champion(installation.job())
    with pytest.raises(Killed):
        retrain(from_champion(installation.job(killing("ranker", FROM_CHAMPION))), silent)
    made = retrain(job, silent)
    run = installation.runs()[-1]
    assert [step.name for step in run.steps()] == FROM_CHAMPION
    assert isinstance(job.registry, Notes)
    assert job.registry.recorded[0]["inputs"]["start"] == "champion"

    other = Installation(tmp_path / "other", redis_url, f"{installation.prefix[-30:]}other")
    serving(other.home, other.prefix)
    assert retrain(from_champion(other.job()), silent).release == made.release


def test_weights_that_are_gone_or_know_too_much_are_refused(installation: Installation) -> None:
    champion = installation.runs()[0]
    with pytest.raises(Killed):  # one from nothing is not gone on with
        retrain(installation.job(killing("towers")), silent)
    assert begins_anew(installation, from_champion(installation.job()))
    summary = TrainingSetSummary.load(champion.folder / "training_sets")
    dataclasses.replace(summary, validation_time=summary.validation_time + 1).save(champion.folder / "training_sets")
    with pytest.raises(ReleaseRefused, match=r"it knows the answers\. `matchloop retrain --from scratch`"):
        retrain(from_champion(installation.job()), silent)
    (champion.folder / "towers.pt").unlink()
    with pytest.raises(
        ReleaseRefused, match=r"The weights of release .* are not in .* `matchloop retrain --from scratch`"
    ):
        retrain(from_champion(installation.job()), silent)
