"""The gate in front of serving, and the way through it."""

import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from feature_store.bandit_state import BanditStore, Position
from feature_store.contracts.catalogue import Item
from feature_store.contracts.errors import ReleaseRefused
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

logger = logging.getLogger(__name__)

FOLD_SECONDS = 30  # for the updater to catch up with a new namespace
_POLL_SECONDS = 0.1
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
) -> str | None:
    """Makes a release with its namespace the one that serves: users' features are published, the registry's alias
    moves, and every serving process swaps. Returns why it was not compared with the champion, None if it was or there
    is none: a champion that cannot be read, damaged or of other features, must not keep its successor out.

    sets: the training sets that the release was made from, whose users are published; None: users stay as they are.
    Raises ReleaseRefused, with every reason, if the release is damaged, does not belong to the namespace, or does not
    pass the gate against what serves now.
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
    registry.set_champion(release, unreadable)
    swap(made, online, state)
    return unreadable


def swap(following: Namespace, online: OnlineStore, state: BanditStore) -> None:
    """Has a namespace folded up to where the one that serves stands, and then serve. The one that served goes on being
    folded, so that going back is instant; older ones are retired."""
    active = online.deployment.active()
    online.deployment.add_namespace(following.id)
    if active is not None:
        _await_folded(state, active.namespace, following)
    online.deployment.activate(Active(following.release, following.id))
    for older in set(online.deployment.namespaces()) - {following.id, active.namespace if active else following.id}:
        online.deployment.retire(older)


def _await_folded(state: BanditStore, served: str, following: Namespace) -> None:
    """Waits until the following namespace has been folded as far as the one that serves. If no updater is at work that
    never happens, and serving begins from the base: correct, and as old as the base."""
    deadline = time.monotonic() + FOLD_SECONDS
    targets = [state.position(served, partition) for partition in range(len(following.offsets))]
    for partition, target in enumerate(targets):
        begins = Position(following.log, following.offsets[partition])
        while target is not None:
            position = state.position(following.id, partition) or begins
            if position.log != target.log or position.offset >= target.offset:
                break
            if time.monotonic() > deadline:
                logger.warning(
                    "%s is not folded up to %s of partition %d after %d s: is an updater running?",
                    *(following.id, target, partition, FOLD_SECONDS),
                )
                return
            time.sleep(_POLL_SECONDS)


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
