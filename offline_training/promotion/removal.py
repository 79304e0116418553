"""Removing what nobody serves with or goes back to any more: folders, and what Redis holds of namespaces."""

import shutil
from pathlib import Path

from feature_store.contracts.errors import InvalidInput, ReleaseRefused
from feature_store.contracts.manifest import read_manifest
from feature_store.namespace import Description
from offline_training.promotion.releases import Site, namespaces_of, roles, size


def remove(site: Site, release: str) -> int:
    """Removes a release with its namespaces. Returns how many bytes of disk that freed. MLflow's copies of it go when
    the aliases follow next. Nothing may be training, or be promoted, meanwhile.

    Raises InvalidInput, with nothing removed, if it serves, did before, or is the parent of what serves.
    """
    if (needed := needed_for(site).get(release)) is not None:
        raise InvalidInput(f"Release {release} stays: {needed}. `matchloop release list` shows what is what.")
    freed = 0
    for namespace in namespaces_of(site.home, release):
        site.online.deployment.retire(namespace)
        drop_state(site, namespace)
        site.online.deployment.forget(namespace)
        freed += remove_folder(site.home.namespaces / namespace)
    site.home.removed.mkdir(exist_ok=True)
    (site.home.removed / release).touch()
    shutil.rmtree(site.home.shadow / release, ignore_errors=True)
    for ending in ("json", "html"):
        (site.home.verdicts / f"{release}.{ending}").unlink(missing_ok=True)
    return freed + remove_folder(site.home.releases / release)


def needed_for(site: Site) -> dict[str, str]:
    """The releases that must stay, and why."""
    needed: dict[str, str] = {}
    standing = roles(site)
    if standing.champion is not None:
        needed[standing.champion] = "it serves"
        try:
            parent = read_manifest(site.home.releases / standing.champion).parent
        except ReleaseRefused:
            parent = None
        if parent is not None:
            needed[parent] = "what serves was made from it"
    if standing.previous is not None:
        needed[standing.previous] = "it served before, and `matchloop release rollback` goes back to it"
    if (shadowing := site.online.deployment.shadowing()) is not None:
        needed[shadowing.release] = "it answers unseen, until `matchloop release shadow --off`"
    for experiment in site.online.experiments.read().running:
        for release in experiment.namespaces:
            needed[release] = f"experiment {experiment.name} answers with it"
    return needed


def state_size(site: Site, namespace: str) -> int:
    """Bytes that Redis holds of a namespace, by the description in its folder; 0 if that cannot be read."""
    try:
        partitions = len(Description.load(site.home.namespaces, namespace).offsets)
    except ReleaseRefused:
        return 0
    return sum(site.state.size(namespace, partition) for partition in range(partitions))


def drop_state(site: Site, namespace: str) -> None:
    """Removes what Redis holds of a namespace, by the description in its folder. It must not be folded any more."""
    description = Description.load(site.home.namespaces, namespace)
    for partition in range(len(description.offsets)):
        site.state.drop(namespace, partition)


def remove_folder(folder: Path) -> int:
    """Removes a folder, for readers at one moment. Returns the bytes that it had."""
    freed = size(folder)
    aside = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    shutil.rmtree(aside)
    return freed
