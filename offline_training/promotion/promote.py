"""The way through the gate to serving, and the way back."""

import logging
from collections.abc import Callable
from functools import cache, partial

from feature_store.bandit_state import BanditStore, Position
from feature_store.contracts.errors import InvalidInput, ReleaseRefused, Unavailable
from feature_store.contracts.manifest import open_release
from feature_store.definitions import features_hash
from feature_store.durable import write_file
from feature_store.home import Home
from feature_store.namespace import Namespace
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from offline_training.evaluation.comparison import Comparison
from offline_training.promotion.aliases import follow
from offline_training.promotion.gate import Verdict, judge
from offline_training.promotion.publishing import publish_catalogue, publish_users
from offline_training.promotion.releases import Site, namespaces_of
from offline_training.promotion.verdict_page import verdict_page
from offline_training.runs.run import Run
from offline_training.runs.runs import SETS, note_published, published, run_of_release
from streaming.catching_up import PATIENCE_SECONDS, Reached, await_folded

logger = logging.getLogger(__name__)


def promote(
    site: Site,
    release: str,
    namespace: str,
    override: str | None = None,
    stale: bool = False,
    comparison: Comparison | None = None,
) -> Verdict:
    """Makes a release with its namespace the one that serves: once the namespace is folded, items and users of the
    training sets that it was made from are published, if they are still there, every serving process swaps, and
    MLflow's aliases follow. Returns what the gate said. A champion that cannot be read, damaged or of other features,
    does not keep its successor out.

    override: why the release is to serve whatever the gate says; it is kept with the verdict. stale: as in swap.
    comparison: with what serves; None: that of an earlier verdict, if it was with that, too.

    Raises ReleaseRefused, with every reason, if the release is damaged, does not belong to the namespace, does not
    pass the gate against what serves now, or knows what its users did after what is published, while the training sets
    that say it are gone; Unavailable as swap does.
    """
    home = site.home
    candidate = open_release(home.releases / release, features_hash())
    made = Namespace.load(home.namespaces, namespace)
    if made.release != release:
        raise ReleaseRefused(f"Namespace {namespace} belongs to another release than {release}. Name a pair.")
    run = _run_to_publish(home, release, candidate.created)
    active = site.online.deployment.active()
    champion, unreadable = None, None
    if active is not None and active.release != release:
        try:
            champion = active.release, open_release(home.releases / active.release, features_hash())
        except ReleaseRefused as error:
            unreadable = str(error)
            logger.warning("release %s is not compared with the champion, which cannot be read: %s", release, error)
    if comparison is None and champion is not None and (earlier := Verdict.load(home.verdicts, release)) is not None:
        comparison = earlier.comparison if earlier.champion == champion[0] else None
    verdict = judge(release, candidate, champion, unreadable, override, comparison)
    verdict.save(home.verdicts)
    write_file(home.verdicts / f"{release}.html", verdict_page(verdict).encode())
    if not verdict.passed:
        follow(site)
        raise ReleaseRefused(
            f"Release {release} was not promoted: {'; '.join(verdict.reasons)}. It stays in {home.releases / release}; "
            "what serves now goes on serving. Check the data, or the training settings. `matchloop release promote "
            f'{release} --override "REASON"` has it serve all the same.'
        )
    publish = (lambda: None) if run is None else partial(_publish, site, release, run)
    swap(made, site.online, site.state, stale, ready=publish)
    follow(site)
    return verdict


def go_back(site: Site, release: str | None = None, stale: bool = False) -> Active:
    """Has the release before serve again, or any other that is kept, by its newest namespace. Instant for the one
    before, whose namespace is still folded. What is known of users stays. stale: as in swap. Returns what serves.

    Raises InvalidInput if it serves already or nothing served before, ReleaseRefused if it is damaged or without a
    namespace, and Unavailable as swap does.
    """
    previous, active = site.online.deployment.previous(), site.online.deployment.active()
    if release is None:
        if previous is None:
            raise InvalidInput(
                "No release served before this one. `matchloop release list` shows what is kept: name the one to serve."
            )
        release = previous.release
    if active is not None and active.release == release:
        raise InvalidInput(f"Release {release} serves already.")
    open_release(site.home.releases / release, features_hash())
    namespace = previous.namespace if previous is not None and previous.release == release else None
    following = Namespace.load(site.home.namespaces, namespace or newest_namespace(site, release))
    swap(following, site.online, site.state, stale)
    follow(site)
    return Active(release, following.id)


def newest_namespace(site: Site, release: str) -> str:
    """The namespace that a release would serve with. Raises ReleaseRefused if it has none."""
    names = namespaces_of(site.home, release)
    if not names:
        raise ReleaseRefused(
            f"Release {release} has no namespace in {site.home.namespaces}: its training ended before it made one. Run "
            "`matchloop retrain`, or `matchloop train` if nothing serves yet."
        )
    return names[-1]


def _run_to_publish(home: Home, release: str, created: int) -> Run | None:
    """The run whose users are to be published with a release: its own, for those of others may be of another time. None
    if it is gone and what is published is newer."""
    run, last = run_of_release(home.runs, release), published(home.runs)
    if run is None and last is not None and created > last.created:
        raise ReleaseRefused(
            f"Release {release} was not promoted: the training sets that it was made from are gone from {home.runs}, "
            f"and what is known of users would stay as it was for release {last.release}, which is older. What serves "
            "now goes on serving. `matchloop retrain` makes a release of the data as they are now."
        )
    return run


def _publish(site: Site, release: str, run: Run) -> None:
    publish_catalogue(site.home.lake, frozenset(run.manifest.inputs.excluded), site.online)
    count = publish_users(run.folder / SETS, release, site.home.runs, site.online)
    logger.info("%d users of release %s were published, who are not what they were", count, release)
    note_published(site.home.runs, run, release)


def swap(
    following: Namespace,
    online: OnlineStore,
    state: BanditStore,
    stale: bool = False,
    patience_seconds: float = PATIENCE_SECONDS,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Has a namespace folded up to where the one that serves stands, calls `ready`, and has it serve. The one that
    served goes on being folded, and the last one of the release before, so that going back is instant, and so do those
    that experiments answer with; older ones are retired.

    Raises Unavailable, and what serves goes on serving, if no updater gets it there: `stale` activates it all the same,
    as old as it is. The namespace is then folded no longer if it was not before; the next try goes on where it stands.
    """
    active, folded = online.deployment.active(), online.deployment.namespaces()
    online.deployment.add_namespace(following.id)
    try:
        if active is not None and not stale:
            _catch_up(following, state, active.namespace, patience_seconds)
        ready()
    except BaseException:
        if following.id not in folded:
            online.deployment.retire(following.id)
        raise
    online.deployment.activate(Active(following.release, following.id))
    online.deployment.end_shadow()  # it was held against what served
    kept = {one.namespace for one in (active, online.deployment.previous()) if one is not None}
    kept |= {namespace for one in online.experiments.read().running for namespace in one.namespaces.values()}
    for older in set(online.deployment.namespaces()) - {following.id} - kept:
        online.deployment.retire(older)


def _catch_up(following: Namespace, state: BanditStore, served: str, patience_seconds: float) -> None:
    try:
        await_folded(following, state, _as_far_as(state, served), patience_seconds)
    except Unavailable as error:
        raise Unavailable(
            f"{error} What serves goes on serving: try again when one is, or have it serve as old as it is with "
            "`--stale`."
        ) from error


def _as_far_as(state: BanditStore, served: str) -> Reached:
    """Whether a place is where a namespace stands now, or behind it in the log, or in a log that it has not come to."""
    stands = cache(partial(state.progress, served))

    def reached(partition: int, place: Position) -> bool:
        target, logs = stands(partition)
        if target is None:
            return True
        if place.log == target.log:
            return place.offset >= target.offset
        return place.log not in [Position.parse(end).log for end in logs]

    return reached
