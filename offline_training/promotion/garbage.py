"""What nobody serves with or goes back to any more, and removing it: `matchloop gc`, and with each training."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from feature_store.contracts.errors import ReleaseRefused
from feature_store.contracts.manifest import read_manifest
from feature_store.definitions import DAY_MS
from feature_store.namespace import Description
from feature_store.rewriting import rewriting
from offline_training.promotion.releases import Site, kept, namespaces_of, roles, size
from offline_training.promotion.removal import drop_state, needed_for, remove, remove_folder, state_size
from offline_training.runs.runs import RELEASE, all_runs, superseded

A_RELEASE, NAMESPACE, KEYS, RUN, DRAFT = "release", "namespace", "keys", "run", "draft"


class Waste(msgspec.Struct, frozen=True):
    """Something to remove. kind: a release with its namespaces; a namespace without a release; keys of a namespace
    that is not folded any more, in Redis; a run of a training that later ones replace; a draft that nobody finishes."""

    kind: str
    name: str
    bytes: int


def collect(site: Site, keep: int, grace_seconds: float, now_ms: int, dry_run: bool = False) -> list[Waste]:
    """Removes what is left over, and returns it; dry_run: only returns it.

    What serves, its parent, what served before, what the gate held back last and what an interrupted training made
    stay, and so do the `keep` newest releases. A namespace that is not folded any more stays as it is for
    grace_seconds: feedback may still be on its way to it, and readers may be behind. A draft counts as nobody's after a
    day. Raises Unavailable, with nothing removed, while somebody trains or promotes.
    """
    if dry_run:
        return list(_waste(site, keep, grace_seconds, now_ms))
    with rewriting(site.home):
        found = list(_waste(site, keep, grace_seconds, now_ms))
        for waste in found:
            _remove(site, waste)
        _begin_grace(site)
    return found


def _waste(site: Site, keep: int, grace_seconds: float, now_ms: int) -> Iterator[Waste]:
    deployment = site.online.deployment
    retired = deployment.retired()
    at_work = {*deployment.namespaces(), *(name for name, age in retired.items() if age < grace_seconds)}
    stays = _staying(site, keep)
    for release in kept(site.home):
        names = namespaces_of(site.home, release)
        if release not in stays and not at_work.intersection(names):
            disk = sum(size(site.home.namespaces / name) for name in names) + size(site.home.releases / release)
            yield Waste(A_RELEASE, release, disk + sum(state_size(site, name) for name in names))
            continue
        for name in names:
            if name not in at_work and name in retired and (held := state_size(site, name)):
                yield Waste(KEYS, name, held)
    for folder in site.home.namespaces.glob("[!.]*/"):
        if folder.name not in at_work and _is_orphan(site, folder):
            yield Waste(NAMESPACE, folder.name, size(folder) + state_size(site, folder.name))
    challenger = roles(site).challenger  # somebody may still have it serve, with the users of its run
    for run in superseded(site.home.runs, [challenger] if challenger else []):
        yield Waste(RUN, run.manifest.id, size(run.folder))
    for draft in _drafts(site.home.root):
        with contextlib.suppress(FileNotFoundError):
            if now_ms - _touched(draft) > DAY_MS:
                held = size(draft) if draft.is_dir() else draft.stat().st_size
                yield Waste(DRAFT, draft.relative_to(site.home.root).as_posix(), held)


def _staying(site: Site, keep: int) -> set[str]:
    made: dict[str, int] = {}
    stays = set(needed_for(site)) | set(filter(None, roles(site)))
    for release in kept(site.home):
        try:
            made[release] = read_manifest(site.home.releases / release).created
        except ReleaseRefused:  # damaged, or of another version of this program: for a person to look at
            stays.add(release)
    stays.update(sorted(made, key=lambda release: made[release])[-keep:])
    unfinished = [run.outputs() for run in all_runs(site.home.runs) if run.ended is None]
    return stays | {outputs[RELEASE]["id"] for outputs in unfinished if RELEASE in outputs}


def _is_orphan(site: Site, folder: Path) -> bool:
    try:
        release = Description.load(site.home.namespaces, folder.name).release
    except ReleaseRefused:
        return False
    return not (site.home.releases / release).exists()


def _drafts(home: Path) -> Iterator[Path]:
    yield from (home / "releases").glob(".*")
    yield from (home / "namespaces").glob(".*")
    yield from (home / "lake").rglob(".*.[0-9]*")


def _touched(draft: Path) -> float:
    """When something in it was last written, in ms since the epoch."""
    return max(path.stat().st_mtime for path in (draft, *draft.rglob("*"))) * 1000


def _remove(site: Site, waste: Waste) -> None:
    if waste.kind == A_RELEASE:
        remove(site, waste.name)
    elif waste.kind == KEYS:
        drop_state(site, waste.name)
    elif waste.kind == NAMESPACE:
        drop_state(site, waste.name)
        site.online.deployment.forget(waste.name)
        remove_folder(site.home.namespaces / waste.name)
    elif waste.kind == RUN:
        shutil.rmtree(site.home.runs / waste.name)
    elif (draft := site.home.root / waste.name).is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)


def _begin_grace(site: Site) -> None:
    """For namespaces with keys that nobody has said of when their folding ended."""
    deployment = site.online.deployment
    known = {*deployment.namespaces(), *deployment.retired()}
    for folder in site.home.namespaces.glob("[!.]*/"):
        if folder.name not in known and state_size(site, folder.name):
            deployment.retire(folder.name)
