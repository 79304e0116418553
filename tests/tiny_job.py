"""A training job whose Spark job is a table: everything else is real."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import ManualClock
from feature_store.contracts.manifest import Manifest
from feature_store.home import Home
from feature_store.online.store import OnlineStore
from feature_store.settings import RedisSettings
from offline_training.data.summary import TrainingSetSummary
from offline_training.jobs.job import TrainJob
from offline_training.progress import Progress
from offline_training.promotion.registry import Registry
from offline_training.promotion.step_runs import StepRun
from offline_training.settings import MlflowSettings, SparkSettings
from streaming.settings import RewardSettings
from tests.tiny_sets import SETTINGS, write_sets

LOG = "the-log"


class Notes(Registry):
    """A registry that notes what it is told."""

    def __init__(self) -> None:
        super().__init__(MlflowSettings(), "http://127.0.0.1:9")
        self.recorded: list[Mapping[str, Any]] = []
        self.champions: list[str] = []
        self.verdicts: dict[str, Mapping[str, str]] = {}
        self.discarded: list[str] = []

    def record(
        self,
        directory: Path,
        manifest: Manifest,
        metrics: Mapping[str, float],
        figures: Mapping[str, object],
        losses: list[float],
        lineage: Mapping[str, Any],
        inputs: Mapping[str, Any] | None = None,
        steps: Sequence[StepRun] = (),
    ) -> str:
        del directory, manifest, metrics, figures, losses
        self.recorded.append(dict(lineage) | {"inputs": inputs, "nested": [step.name for step in steps]})
        return str(len(self.recorded))

    def attach(self, release: str, texts: Mapping[str, str]) -> None:
        self.verdicts[release] = texts

    def discard(self, release: str) -> None:
        self.discarded.append(release)

    def follow(
        self, aliases: Mapping[str, str | None], tags: Mapping[str, Mapping[str, str]] | None = None
    ) -> list[str]:
        del tags
        if (champion := aliases["champion"]) is not None:
            self.champions.append(champion)
        return []


class TinyJob(TrainJob):
    """Its training sets are those of tests/tiny_sets.py."""

    def make_sets(self, lake: Path, out: Path, progress: Progress) -> TrainingSetSummary:
        del lake, progress
        write_sets(out)
        return TrainingSetSummary.load(out)


def tiny_job(
    home: Path, redis_url: str, prefix: str, check_lock: Callable[[], None] = lambda: None, now: int = 1_000_000
) -> TinyJob:
    """check_lock is called before each step. now: ms since the epoch."""
    client, settings = redis.Redis.from_url(redis_url), RedisSettings(prefix=prefix)
    return TinyJob(
        home=Home(home),
        training=SETTINGS.model_copy(update={"epochs": 2, "ranker_epochs": 1}),
        spark=SparkSettings(),
        rewards=RewardSettings(),
        registry=Notes(),
        online=OnlineStore(client, settings),
        state=BanditStore(client, settings),
        clock=ManualClock(now),
        log=LOG,
        partitions=2,
        check_lock=check_lock,
    )
