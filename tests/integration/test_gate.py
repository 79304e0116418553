"""Bad data and bad releases on the way of a real job: stopped with a reason, let through with one that is kept."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.errors import InvalidInput, ReleaseRefused
from offline_training.data.summary import TrainingSetSummary
from offline_training.evaluation.differences import EVERYBODY
from offline_training.evaluation.shown import SLATES
from offline_training.jobs.retrain import retrain
from offline_training.jobs.train import train
from offline_training.progress import Progress, silent
from offline_training.promotion.garbage import collect
from offline_training.promotion.gate import Verdict
from offline_training.promotion.promote import newest_namespace, promote
from offline_training.promotion.releases import roles
from offline_training.runs.runs import SETS, all_runs, published_sets, run_of_release
from tests.events import decision, feedback
from tests.integration.conftest import Serving
from tests.lakes import put_log
from tests.tiny_job import Notes, TinyJob, tiny_job


class Halved(TinyJob):
    """Half of its users are gone."""

    def make_sets(self, lake: Path, out: Path, progress: Progress) -> TrainingSetSummary:
        made = super().make_sets(lake, out, progress)
        halved = dataclasses.replace(made, users=made.users // 2)
        halved.save(out)
        return halved


def hostile(release: str, *others: str | None) -> Verdict:
    """A gate that lets nothing through that nobody speaks for."""
    override = others[3]
    now = SystemClock().now_ms()
    return Verdict(release=release, time=now, champion=None, not_compared=None, reasons=["no"], override=override)


def sets_of(job: TinyJob, release: str) -> Path:
    run = run_of_release(job.home.runs, release)
    assert run is not None
    return run.folder / SETS


def test_what_the_gate_held_back_can_be_promoted_with_its_users_after_another_retrain(
    serving: Serving, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(now: int) -> TinyJob:
        return tiny_job(tmp_path, redis_url, "held", now=now)

    site = at(0).site
    serving(tmp_path, "held")
    with monkeypatch.context() as context:
        context.setattr("offline_training.promotion.promote.judge", hostile)
        with pytest.raises(ReleaseRefused, match="was not promoted: no"):
            retrain(at(2_000_000), silent)
    challenger = roles(site).challenger
    assert challenger is not None
    good = [retrain(dataclasses.replace(at(now), fresh=True), silent).release for now in (3_000_000, 4_000_000)]
    assert published_sets(site.home.runs) == (sets_of(at(0), good[-1]), good[-1])
    promote(site, challenger, newest_namespace(site, challenger), override="it is better")
    assert published_sets(site.home.runs) == (sets_of(at(0), challenger), challenger)

    newer = good[-1]
    shutil.rmtree(sets_of(at(0), newer))
    with pytest.raises(ReleaseRefused, match=r"are gone .* for release .* which is older.* `matchloop retrain`"):
        promote(site, newer, newest_namespace(site, newer))
    active = site.online.deployment.active()
    assert active is not None
    assert active.release == challenger
    collect(site, 5, 0.0, 5_000_000)
    assert published_sets(site.home.runs)[1] == challenger, "an old run, and its users are what is published"


def test_data_that_shrank_is_trained_on_only_with_a_reason(serving: Serving, redis_url: str, tmp_path: Path) -> None:
    first = serving(tmp_path, "halved")
    for now in (2_000_000, 3_000_000, 4_000_000):
        job = Halved(**vars(tiny_job(tmp_path, redis_url, "halved", now=now)))
        with pytest.raises(InvalidInput, match=r"20 users where there were 40.*`matchloop retrain --override"):
            retrain(job, silent)
    assert sorted(path.name for path in job.home.releases.iterdir()) == [first.release], "nothing was trained"
    kept = [run.manifest.created for run in all_runs(job.home.runs)]
    assert kept == [1_000_000, 3_000_000, 4_000_000], "each removes what it finds, but for the newest"
    [waste] = collect(job.site, 5, 0.0, 4_000_000)
    assert (waste.kind, waste.bytes > 0) == ("run", True)
    assert [run.manifest.created for run in all_runs(job.home.runs)] == [1_000_000, 4_000_000]
    made = retrain(dataclasses.replace(job, override="half of them were bots"), silent)
    verdict = Verdict.load(job.home.verdicts, made.release)
    assert verdict is not None
    assert (verdict.override, verdict.champion) == ("half of them were bots", first.release)
    assert isinstance(job.registry, Notes)
    page = job.registry.verdicts[made.release]["verdict.html"]
    assert f"Release {made.release}: passed" in page
    assert "half of them were bots" in page
    assert (
        job.registry.verdicts[made.release]["verdict.json"] == (job.home.verdicts / f"{made.release}.json").read_text()
    )


def test_what_people_were_shown_meanwhile_is_in_the_verdict(redis_url: str, tmp_path: Path) -> None:
    """Forty people like the first and the third of three items while the release is trained."""
    first = train(dataclasses.replace(tiny_job(tmp_path, redis_url, "shown"), log="x-y"), silent)

    class Visited(TinyJob):
        def make_sets(self, lake: Path, out: Path, progress: Progress) -> TrainingSetSummary:
            for number in range(40):
                made = decision(f"u{number}", 2_000_000, ["drama00", "horror00", "drama01"], release=first.release)
                likes = (feedback(made, item, "like", event=item) for item in ("drama00", "drama01"))
                put_log(self.home.aside, made, *likes, start=3 * number)
            return super().make_sets(lake, out, progress)

    job = Visited(**vars(dataclasses.replace(tiny_job(tmp_path, redis_url, "shown", now=2_000_000), log="x-y")))
    made = retrain(job, silent)
    verdict = Verdict.load(job.home.verdicts, made.release)
    assert verdict is not None
    assert verdict.comparison is not None
    evidence = verdict.comparison.evidence
    assert evidence is not None
    assert (evidence.slates, evidence.impressions, evidence.likes) == (40, 120, 80)
    found = {one.metric: one for one in verdict.comparison.differences if one.among == EVERYBODY}
    assert found[SLATES].users == 40
    assert found[SLATES].other == 1 / 2, "it predicted the same of all of them"
    assert isinstance(job.registry, Notes)
    assert "40 slates with 120 items were shown" in job.registry.verdicts[made.release]["verdict.html"]
