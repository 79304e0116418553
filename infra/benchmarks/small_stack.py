"""A whole installation in a home of its own, serving a small release that needed no training."""

import contextlib
import tempfile
from collections.abc import Iterator
from typing import Any

from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from infra.benchmarks.small_release import build_namespace, build_release, items
from infra.connections import event_log, redis_client
from infra.programs import API, BROKER, REDIS, SINK, UPDATER
from infra.settings import Settings, load
from infra.stack import Stack
from offline_training.progress import Progress, section


@contextlib.contextmanager
def small_stack(
    name: str, changes: dict[str, dict[str, Any]], catalogue: int, shape: dict[str, int], progress: Progress
) -> Iterator[Stack]:
    """A running stack on embedded servers. changes: of the settings, by section; catalogue: how many items; shape: of
    the release, as build_release takes it."""
    values = load().revealed()
    values["kafka"]["bootstrap"] = values["redis"]["url"] = None
    for part, changed in changes.items():
        values[part] |= changed
    with tempfile.TemporaryDirectory(prefix=f"matchloop-{name}-", ignore_cleanup_errors=True) as home:
        values["home"], values["lake"]["url"] = home, None
        settings = Settings(**values)
        with Stack(settings) as stack:
            stack.start(BROKER, REDIS, progress=section(progress, 0.0, 0.2))
            publish(stack.settings, catalogue, shape)
            stack.start(UPDATER, SINK, API, progress=section(progress, 0.2, 1.0))
            yield stack


def publish(settings: Settings, catalogue: int, shape: dict[str, int]) -> None:
    """Makes a catalogue and a small release of it, and activates that in the servers of the settings."""
    log = event_log(settings)
    log.create_topics()
    releases, namespaces = settings.home / "releases", settings.home / "namespaces"
    known = items(catalogue)
    release = build_release(releases, catalogue=known, **shape)
    namespace = build_namespace(namespaces, releases, release, log.log_id(), settings.kafka.partitions)
    with redis_client(settings) as client:
        online = OnlineStore(client, settings.redis)
        online.catalogue.add(known)
        online.deployment.activate(Active(release, namespace))
