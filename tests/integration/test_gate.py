"""Bad data and bad releases on the way of a real job: stopped with a reason, let through with one that is kept."""

import dataclasses
from pathlib import Path

import pytest

from feature_store.contracts.errors import InvalidInput
from offline_training.data.summary import TrainingSetSummary
from offline_training.jobs.retrain import retrain
from offline_training.jobs.train import train
from offline_training.progress import Progress, silent
from offline_training.promotion.gate import Verdict
from tests.tiny_job import Notes, TinyJob, tiny_job


class Halved(TinyJob):
    """Half of its users are gone."""

    def make_sets(self, lake: Path, out: Path, progress: Progress) -> TrainingSetSummary:
        made = super().make_sets(lake, out, progress)
        halved = dataclasses.replace(made, users=made.users // 2)
        halved.save(out)
        return halved


def test_data_that_shrank_is_trained_on_only_with_a_reason(redis_url: str, tmp_path: Path) -> None:
    first = train(tiny_job(tmp_path, redis_url, "halved"), silent)
    job = Halved(**vars(tiny_job(tmp_path, redis_url, "halved", now=2_000_000)))
    with pytest.raises(InvalidInput, match=r"20 users where there were 40.*`matchloop retrain --override"):
        retrain(job, silent)
    assert sorted(path.name for path in job.home.releases.iterdir()) == [first.release], "nothing was trained"
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
