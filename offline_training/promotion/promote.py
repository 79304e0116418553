"""The gate in front of serving, and the way through it."""

import logging
import math
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pyarrow.parquet as pq

from feature_store.bandit_state import BanditStore, Position
from feature_store.contracts.catalogue import Item
from feature_store.contracts.errors import ReleaseRefused, Unavailable
from feature_store.contracts.manifest import Manifest, open_release
from feature_store.definitions import HistoryEvent, features_hash
from feature_store.home import Home
from feature_store.namespace import Namespace
from feature_store.online.deployment import Active
from feature_store.online.store import OnlineStore
from feature_store.user_features import UserRecord
from offline_training.data.lake import interacted_items, read_catalogue
from offline_training.promotion.registry import Registry
from offline_training.runs.runs import PUBLISHED
from streaming.catching_up import PATIENCE_SECONDS, Reached, await_folded

logger = logging.getLogger(__name__)

RECALL_MARGIN = 0.8  # of popularity's recall on the validation window: retrieval feeds a ranker that knows popularity
CHAMPION_MARGIN = 0.5  # of the champion's hit rate, which was measured on another window
RECALL = "validation_{}_recall_at_50"
COVERAGE = 0.99  # of the items; training connects every one
HIT_RATE = "validation_retrieval_hit_rate_at_10"


def gate(candidate: Manifest, champion: Manifest | None) -> list[str]:
    """Reasons against serving the candidate; none if it may serve. Metrics that either side lacks are not compared, and
    a shortfall that two standard errors explain is none."""
    metrics = candidate.metrics
    reasons = [
        f"metric {name} is {value}"
        for name, value in sorted(metrics.items())
        if not math.isfinite(value) and not name.endswith("_error")  # one user alone has no standard error
    ]
    recall, popularity = metrics.get(RECALL.format("retrieval")), metrics.get(RECALL.format("popularity"))
    error = metrics.get(RECALL.format("retrieval") + "_error", 0.0)
    if recall is not None and popularity is not None and recall + 2 * error < RECALL_MARGIN * popularity:
        reasons.append(
            f"recall@50 of retrieval is {recall:.3f}, below {RECALL_MARGIN} of popularity's {popularity:.3f}"
        )
    coverage = metrics.get("graph_coverage")
    if coverage is not None and coverage < COVERAGE:
        reasons.append(
            f"{coverage:.1%} of the items are connected to clusters of users, below {COVERAGE:.0%}: who likes the "
            "others cannot be learnt"
        )
    hit_rate = metrics.get(HIT_RATE)
    before = None if champion is None else champion.metrics.get(HIT_RATE)
    if hit_rate is not None and before is not None:
        users = metrics.get("validation_users", math.inf)
        error = math.sqrt(before * (1 - before) / users)  # of a share of that many users
        if hit_rate + 2 * error < CHAMPION_MARGIN * before:
            reasons.append(f"hit rate@10 is {hit_rate:.3f}, below {CHAMPION_MARGIN} of the champion's {before:.3f}")
    return reasons


def promote(
    home: Home,
    release: str,
    namespace: str,
    registry: Registry,
    online: OnlineStore,
    state: BanditStore,
    sets: Path | None,
    stale: bool = False,
) -> str | None:
    """Makes a release with its namespace the one that serves: users' features are published, every serving process
    swaps, and the registry's alias moves. Returns why it was not compared with the champion, None if it was or there
    is none: a champion that cannot be read, damaged or of other features, must not keep its successor out.

    sets: the training sets that the release was made from, whose users are published; None: users stay as they are.
    stale: as in swap.

    Raises ReleaseRefused, with every reason, if the release is damaged, does not belong to the namespace, or does not
    pass the gate against what serves now; Unavailable as swap does.
    """
    candidate = open_release(home.releases / release, features_hash())
    made = Namespace.load(home.namespaces, namespace)
    if made.release != release:
        raise ReleaseRefused(f"Namespace {namespace} belongs to another release than {release}. Name a pair.")
    active = online.deployment.active()
    champion, unreadable = None, None
    if active is not None and active.release != release:
        try:
            champion = open_release(home.releases / active.release, features_hash())
        except ReleaseRefused as error:
            unreadable = str(error)
            logger.warning("release %s is not compared with the champion, which cannot be read: %s", release, error)
    if reasons := gate(candidate, champion):
        raise ReleaseRefused(
            f"Release {release} was not promoted: {'; '.join(reasons)}. It stays in {home.releases / release}; "
            "what serves now goes on serving. Check the data, or the training settings."
        )
    if sets is not None:
        online.users.put(user_records(sets))
        (sets / PUBLISHED).write_text(release)
    swap(made, online, state, stale)
    registry.set_champion(release, unreadable)  # last: the alias follows what serves
    return unreadable


def swap(
    following: Namespace,
    online: OnlineStore,
    state: BanditStore,
    stale: bool = False,
    patience_seconds: float = PATIENCE_SECONDS,
) -> None:
    """Has a namespace folded up to where the one that serves stands, and then serve. The one that served goes on being
    folded, so that going back is instant; older ones are retired.

    Raises Unavailable, and what serves goes on serving, if no updater gets it there: `stale` activates it all the same,
    as old as it is.
    """
    active = online.deployment.active()
    online.deployment.add_namespace(following.id)
    if active is not None and not stale:
        try:
            await_folded(following, state, _as_far_as(state, active.namespace), patience_seconds)
        except Unavailable as error:
            raise Unavailable(
                f"{error} What serves goes on serving: try again when one is, or have it serve as old as it is with "
                "`--stale`."
            ) from error
    online.deployment.activate(Active(following.release, following.id))
    for older in set(online.deployment.namespaces()) - {following.id, active.namespace if active else following.id}:
        online.deployment.retire(older)


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


def publish_catalogue(lake: Path, exclude: frozenset[str], online: OnlineStore) -> None:
    """Puts imported items into the live catalogue that are not there yet, those that only interactions name included.
    What was put or deleted over HTTP is left as it is: it is newer than any import."""
    described = read_catalogue(lake, exclude)
    bare = sorted(interacted_items(lake) - described.keys() - exclude)
    found = [*(item for item in described.values() if item is not None), *(Item(id=name) for name in bare)]
    online.catalogue.add(found)


def user_records(sets: Path) -> Iterator[UserRecord]:
    """Users' features as the training sets have them: profile, history, everything interacted with."""
    for file in sorted((sets / "users").glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=1_000):
            for row in batch.to_pylist():
                history = list(map(HistoryEvent, row["items"], row["kinds"], row["times"]))
                yield UserRecord(
                    row["user"], row["profile"], row["profile_time"], history, [(e.item, e.time) for e in history]
                )
