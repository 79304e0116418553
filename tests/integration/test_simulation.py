"""Visitors, API, log, updater and sink on real servers: the lake must tell what the visitors saw."""

import threading
from pathlib import Path

import pytest

from feature_store.contracts.catalogue import Item
from feature_store.contracts.clock import SystemClock
from feature_store.contracts.experiments import Plan, Variant
from feature_store.contracts.identity import Keyring
from feature_store.home import Home
from infra.benchmarks.small_release import items
from offline_training.experiment.impressions import rewarded_decisions
from offline_training.experiment.lifecycle import Base, create, start
from offline_training.experiment.loop_metrics import loop_metrics
from offline_training.progress import silent
from offline_training.promotion.releases import Site
from offline_training.simulation.result import SimulationResult, SimulationSettings
from offline_training.simulation.simulator import Simulator
from offline_training.simulation.world import World
from streaming import sink
from streaming.settings import BanditSettings, LakeSettings, RewardSettings
from tests.api_server import SECRET, Installation, running
from tests.tiny_job import Notes
from tests.updaters import start_updater

CATALOGUE = items(60)
NEW = [Item(id=f"new {n}/ü", title=f"New title {n}", categories=["drama"]) for n in range(4)]
EXPERIMENT = Plan(
    name="simulated",
    variants=(
        Variant(name="frozen", weight=0.4, bandit={"mode": "off"}),
        Variant(name="explore", weight=0.4),
        Variant(name="greedy", weight=0.2, bandit={"mode": "greedy"}),
    ),
)
WORLD = World(
    {
        f"user {n}": frozenset([item.id for k, item in enumerate(CATALOGUE) if (k * 7 + n) % 5 == 0] + [NEW[n % 4].id])
        for n in range(40)
    }
)


@pytest.fixture(scope="module")
def simulated(
    broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SimulationResult, Path, Installation]:
    made = Installation(broker, redis_url, tmp_path_factory.mktemp("home"), "simulation")
    made.online.catalogue.add(CATALOGUE)
    made.online.deployment.activate(made.release(CATALOGUE))
    config = made.config()
    at = Site(Home(made.home), made.online, made.bandit, Notes())
    create(at, EXPERIMENT, Base(config.serving, config.bandit), Keyring(SECRET), 0)
    start(at, EXPERIMENT.name, 1.0, Base(config.serving, config.bandit), 0)
    lake, stop = made.home / "lake", threading.Event()
    lake_settings = LakeSettings(flush_seconds=0.2)
    arguments = (made.kafka, broker, Home(made.home), made.online, lake_settings, SystemClock(), stop)
    sinking = threading.Thread(target=sink.run, args=arguments)
    sinking.start()
    threads = [sinking, start_updater(made.kafka, broker, made.client, made.redis_settings, made.home, stop)]
    try:
        with running(config) as api:
            settings = SimulationSettings(url=str(api.base_url), visits=160, slate_size=5, concurrency=4, seed=3)
            result = Simulator(WORLD, NEW, settings, SystemClock()).run(silent)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return result, lake, made


def test_the_lake_tells_what_the_visitors_saw(simulated: tuple[SimulationResult, Path, Installation]) -> None:
    result, lake, made = simulated
    assert result.errors == {}
    assert len(result.visits) == 160
    assert all(visit.logged and visit.feedback_accepted for visit in result.visits)
    keyring = Keyring(SECRET)
    saw = sorted((keyring.user_key(v.user), v.variant, tuple(v.items), tuple(v.rewards)) for v in result.visits)
    logged = rewarded_decisions(lake, [made.log.log_id()], RewardSettings())
    assert sorted((d.user, d.variant, tuple(d.shown), tuple(d.rewards.tolist())) for d in logged) == saw
    assert sum(d.rewards.sum() for d in logged) > 0


def test_new_items_entered_while_visitors_came(simulated: tuple[SimulationResult, Path, Installation]) -> None:
    result, _, _ = simulated
    assert (result.items_entered, result.items_failed, result.items_shown_too_early) == (4, [], [])
    assert len(result.item_to_impression.samples_ms) + len(result.items_never_shown) == 4


def test_the_loop_is_reported(simulated: tuple[SimulationResult, Path, Installation]) -> None:
    result, lake, made = simulated
    found = loop_metrics(
        lake,
        [made.log.log_id()],
        EXPERIMENT,
        "frozen",
        RewardSettings(),
        BanditSettings(),
        [item.id for item in NEW],
        planned_users=len(WORLD.likes),
        seed=0,
    )
    assert found.reward == sum(sum(visit.rewards) for visit in result.visits)
    assert sum(found.comparison.sample_ratio.observed.values()) == result.users
    explored = {share.variant: share.explored for share in found.exploration}
    assert explored["frozen"] == explored["greedy"] == 0
    assert 0.05 < explored["explore"] < 0.3
    assert found.off_policy is not None
    # The mean of the weights is 1 in expectation exactly if the logged probabilities are the true ones.
    for estimate in found.off_policy.estimates:
        assert 0.3 < estimate.overlap.mean_weight < 3
