"""The releases that are kept: which of them serves, served, or was held back, and what each of them is."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from feature_store.bandit_state import BanditStore
from feature_store.contracts.errors import InvalidInput, ReleaseRefused
from feature_store.contracts.manifest import MANIFEST, read_manifest
from feature_store.home import Home
from feature_store.namespace import Description
from feature_store.online.store import OnlineStore
from offline_training.promotion.gate import Verdict
from offline_training.promotion.registry import Registry

_NAMED = 5  # releases, in a message


@dataclass(frozen=True)
class Site:
    """Where releases are kept, serve, and are registered."""

    home: Home
    online: OnlineStore
    state: BanditStore
    registry: Registry


class Roles(NamedTuple):
    """Which release serves, which one did before, and which is the newest that the gate held back."""

    champion: str | None
    previous: str | None
    challenger: str | None

    def of(self, release: str) -> list[str]:
        """What a release is."""
        return [name for name, named in self._asdict().items() if named == release]


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A release as it is kept. damaged: why its manifest cannot be read, and the fields after it are empty."""

    id: str
    roles: list[str]
    namespaces: list[str]  # oldest first
    bytes: int  # of its folder
    verdict: Verdict | None
    damaged: str | None = None
    created: int | None = None  # ms since the epoch
    parent: str | None = None
    items: int | None = None
    metrics: dict[str, float] = {}


def roles(site: Site) -> Roles:
    """As things stand."""
    active, previous = site.online.deployment.active(), site.online.deployment.previous()
    taken = {one.release for one in (active, previous) if one is not None}
    held_back = [
        verdict
        for name in kept(site.home)
        if name not in taken and (verdict := Verdict.load(site.home.verdicts, name)) is not None and not verdict.passed
    ]
    newest = max(held_back, key=lambda verdict: verdict.time, default=None)
    return Roles(*(one.release if one is not None else None for one in (active, previous, newest)))


def kept(home: Home) -> list[str]:
    """The ids of all releases that have a manifest."""
    return sorted(path.parent.name for path in home.releases.glob(f"[!.]*/{MANIFEST}"))


def find(home: Home, name: str) -> str:
    """The release of this id, or of the only one that begins so. Raises InvalidInput if there is none."""
    names = kept(home)
    found = [release for release in names if name and release.startswith(name)]
    if len(found) == 1 or name in found:
        return name if name in found else found[0]
    if found:
        raise InvalidInput(f"{len(found)} releases begin with {name!r}: {_listed(found)}. Write more of the id.")
    there = f"There are {_listed(names)}" if names else "There is none yet: run `matchloop train`"
    raise InvalidInput(f"There is no release {name!r}. {there}.")


def namespaces_of(home: Home, release: str) -> list[str]:
    """The namespaces of a release, oldest first; those that cannot be read are left out."""
    found = []
    for folder in home.namespaces.glob("[!.]*/"):
        try:
            description = Description.load(home.namespaces, folder.name)
        except ReleaseRefused:
            continue
        if description.release == release:
            found.append((description.created, description.id))
    return [name for _, name in sorted(found)]


def describe(site: Site, release: str, standing: Roles) -> Release:
    """What is kept of a release."""
    folder = site.home.releases / release
    known = Release(
        id=release,
        roles=standing.of(release),
        namespaces=namespaces_of(site.home, release),
        bytes=size(folder),
        verdict=Verdict.load(site.home.verdicts, release),
    )
    try:
        manifest = read_manifest(folder)
    except ReleaseRefused as error:
        return msgspec.structs.replace(known, damaged=str(error))
    return msgspec.structs.replace(
        known, created=manifest.created, parent=manifest.parent, items=manifest.items, metrics=manifest.metrics
    )


def inventory(site: Site) -> list[Release]:
    """All that are kept, newest first; damaged ones last."""
    standing = roles(site)
    found = [describe(site, name, standing) for name in kept(site.home)]
    return sorted(found, key=lambda release: (-(release.created or 0), release.id))


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
