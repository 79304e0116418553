"""MLflow's aliases follow what serves, and its copies go with the releases. Nothing waits for MLflow: what it missed is
made up for."""

import logging
import math

from feature_store.contracts.errors import Unavailable
from feature_store.contracts.manifest import read_manifest
from feature_store.home import Home
from offline_training.promotion.gate import Verdict
from offline_training.promotion.releases import Roles, Site, roles

logger = logging.getLogger(__name__)

_BEHIND = "aliases.behind"  # in the home directory, while MLflow has not been told


def follow(site: Site) -> str | None:
    """Gives `champion`, `previous` and `challenger` to the versions of the releases that are that now, with what the
    gate said of them as tags; a release that has no version yet gets one, and those of removed releases go. Returns
    what to tell if MLflow does not answer: whoever calls this next makes up for it."""
    standing = roles(site)
    behind = site.home.root / _BEHIND
    try:
        for release in site.registry.follow(standing._asdict(), _tags(site.home, standing)):
            folder = site.home.releases / release
            if folder.is_dir():
                manifest = read_manifest(folder)
                metrics = {name: value for name, value in manifest.metrics.items() if math.isfinite(value)}
                site.registry.record(folder, manifest, metrics, {}, [], {"parent": manifest.parent})
                site.registry.follow(standing._asdict(), _tags(site.home, standing))
        for named in filter(None, (standing.champion, standing.challenger)):
            files = site.home.verdicts.glob(f"{named}.*[a-z]")
            site.registry.attach(named, {f"verdict{path.suffix}": path.read_text() for path in files})
        for removed in site.home.removed.glob("*"):
            if not (site.home.releases / removed.name).exists():
                site.registry.discard(removed.name)
            removed.unlink(missing_ok=True)
    except Unavailable as error:
        behind.touch()
        logger.warning("MLflow's aliases do not follow what serves yet: %s", error)
        return f"MLflow's aliases do not follow yet: {error} The next `matchloop release` command sets them."
    behind.unlink(missing_ok=True)
    return None


def catch_up(site: Site) -> str | None:
    """The same if MLflow was not told yet."""
    return follow(site) if (site.home.root / _BEHIND).exists() else None


def _tags(home: Home, standing: Roles) -> dict[str, dict[str, str]]:
    tags = {}
    for release in filter(None, standing):
        verdict = Verdict.load(home.verdicts, release)
        if verdict is not None:
            said = {
                "gate": "passed" if not verdict.reasons else "; ".join(verdict.reasons),
                "override": verdict.override,
                "not_compared_with_champion": verdict.not_compared,
            }
            tags[release] = {name: value for name, value in said.items() if value is not None}
    return tags
