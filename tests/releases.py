"""Small releases with what a test needs in their manifests, and a site that they serve from."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from feature_store.bandit_state import BanditStore
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.manifest import open_release, seal
from feature_store.definitions import features_hash
from feature_store.home import Home
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from infra.benchmarks.small_release import build_namespace, build_release, items
from offline_training.promotion.releases import Site
from tests.tiny_job import Notes

LOG = "log"


class Away(Notes):
    """A registry that does not answer while `away`."""

    away = True

    def follow(
        self, aliases: Mapping[str, str | None], tags: Mapping[str, Mapping[str, str]] | None = None
    ) -> list[str]:
        if self.away:
            raise Unavailable("MLflow at nowhere does not answer.")
        return super().follow(aliases, tags)


def small_site(home: Path, online: OnlineStore, state: BanditStore) -> Site:
    """With a registry that notes what it is told."""
    return Site(Home(home), online, state, Notes())


def sealed(
    site: Site, count: int, *, created: int = 0, parent: str | None = None, log: str = LOG, **metrics: float
) -> Active:
    """A release of so many items with these in its manifest, and its namespace."""
    releases = site.home.releases
    built = releases / build_release(releases, catalogue=items(count))
    manifest = open_release(built, features_hash())
    draft = shutil.copytree(built, releases / ".sealing")
    shutil.rmtree(built)
    release = seal(draft, msgspec.structs.replace(manifest, created=created, parent=parent, metrics=metrics))
    draft.rename(releases / release)
    return Active(release, build_namespace(site.home.namespaces, releases, release, log, 2))
