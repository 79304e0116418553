"""A training job of this installation, put together from its settings and the servers that run."""

import contextlib
from collections.abc import Iterator

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import SystemClock
from feature_store.deployment_note import check_current
from feature_store.lease import Lease, Owner
from feature_store.online.store import OnlineStore
from infra.connections import event_log, mlflow_uri, redis_client
from infra.host import host_name, run_name
from infra.settings import Settings
from offline_training.jobs.job import TrainJob
from offline_training.jobs.present import await_present
from offline_training.promotion.registry import Registry


@contextlib.contextmanager
def training_job(
    settings: Settings,
    command: str,
    until_ms: int | None = None,
    exclude_items: frozenset[str] = frozenset(),
    break_lock: bool = False,
    fresh: bool = False,
    stale: bool = False,
    override: str | None = None,
) -> Iterator[TrainJob]:
    """A job for train or retrain; see TrainJob. settings: with the servers' addresses (Stack.settings). command: which
    of the two, for whoever is told to wait.

    Raises Unavailable if a server is missing, Redis has lost what serves, or another training is under way and its lock
    is not to be broken.
    """
    log = event_log(settings)
    log.create_topics()
    log_id = log.log_id()
    clock = SystemClock()
    host = host_name(settings.host)
    owner = Owner.this_process(command, host, run_name(host), clock.now_ms())
    with redis_client(settings) as client, Lease(client, settings.redis, owner, break_lock) as lease:
        home, online, state = (
            settings.layout,
            OnlineStore(client, settings.redis),
            BanditStore(client, settings.redis),
        )

        check_current(settings.home, settings.redis.prefix, online.deployment.to_note())

        def present() -> None:
            await_present(log, home, online, state, clock)

        yield TrainJob(
            home=home,
            training=settings.training,
            spark=settings.spark,
            rewards=settings.rewards,
            registry=Registry(settings.mlflow, mlflow_uri(settings)),
            online=online,
            state=state,
            clock=clock,
            log=log_id,
            partitions=settings.kafka.partitions,
            until_ms=until_ms,
            exclude_items=exclude_items,
            memory_days=settings.bandit.memory_days,
            override=override,
            releases_kept=settings.releases.kept,
            forget_within_days=settings.lake.forget_within_days,
            check_lock=lease.check,
            await_present=(lambda: None) if stale else present,
            stale=stale,
            fresh=fresh,
        )
