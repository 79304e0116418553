"""An empty or older Redis, rebuilt from home, lake and log, with what was learnt.

The bandit's sums, open decisions and what users did come back by folding: an updater folds each namespace anew from its
base, the lake and the log, or from where an older Redis stands. What the namespaces begin with (users as they were
published, the catalogue as it was imported, what was shown) is published again. Only then does what served serve again.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pyarrow.compute as pc
import pyarrow.dataset as ds

from feature_store.bandit_state import BanditStore, Position
from feature_store.contracts.clock import Clock
from feature_store.contracts.columns import EVENTS
from feature_store.contracts.errors import ReleaseRefused
from feature_store.contracts.identity import MASKED
from feature_store.definitions import DAY_MS
from feature_store.deployment_note import DeploymentNote
from feature_store.home import Home
from feature_store.lake_path import LakePath
from feature_store.namespace import Namespace
from feature_store.online.store import OnlineStore
from feature_store.rewriting import reading
from feature_store.user_features import ItemTime
from offline_training.data.erasures import erased_users, pending_erasures
from offline_training.data.merges import Accounts, merges
from offline_training.promotion.publishing import publish_catalogue, publish_users
from offline_training.runs.runs import SETS, run_of_release
from streaming.catching_up import PATIENCE_SECONDS, await_folded
from streaming.kafka import Log
from streaming.lake_files import files, partition_folders, read
from streaming.sink import drain


class Recovered(NamedTuple):
    """What was given back. users: None if the training sets of the release are gone, and only the log tells of users.
    missing: noted namespaces whose folders are gone."""

    release: str
    namespace: str
    users: int | None
    missing: list[str]


def recover(
    home: Home,
    noted: DeploymentNote,
    online: OnlineStore,
    state: BanditStore,
    log: Log,
    clock: Clock,
    shown_days: int,
    say: Callable[[float, str], None],
    patience_seconds: float = PATIENCE_SECONDS,
) -> Recovered:
    """Gives Redis back what was noted. An updater and a sink must be at work. say: share done, and what is being done.

    Raises ReleaseRefused if the namespace that served is gone from the home, and Unavailable if sink or updater do not
    get to the present.
    """
    release, name = noted.active["release"], noted.active["namespace"]
    namespace = Namespace.load(home.namespaces, name)
    missing = [one for one in noted.namespaces if not _is_there(home, one)]
    online.deployment.restore_folding(_without(noted, missing))
    say(0.05, "waiting for the sink")
    ends, log_id = drain(log, home, clock, patience_seconds), log.log_id()
    say(0.1, "publishing the catalogue")
    with reading(home):
        run = run_of_release(home.runs, release)
        excluded = frozenset(run.manifest.inputs.excluded) if run else frozenset[str]()
        online.users.erase(erased_users(pending_erasures(home.lake)).items())
        publish_catalogue(home.lake, excluded, online)
        say(0.3, "publishing users")
        users = None
        if run is not None:
            online.users.forget_published()
            users = publish_users(run.folder / SETS, release, home.runs, online)
        say(0.5, "publishing what was shown")
        online.users.add_shown(_shown(home.lake, clock.now_ms() - shown_days * DAY_MS, Accounts(merges(home.lake))))
    say(0.7, "waiting for the updater")

    def reached(partition: int, place: Position) -> bool:
        return place.log == log_id and place.offset >= ends[partition]

    if len(namespace.offsets) == len(ends):
        await_folded(namespace, state, reached, patience_seconds)
    online.deployment.restore(_without(noted, missing))
    say(1.0, "it serves again")
    return Recovered(release, name, users, missing)


def _is_there(home: Home, namespace: str) -> bool:
    try:
        Namespace.load(home.namespaces, namespace)
    except ReleaseRefused:
        return False
    return True


def _without(noted: DeploymentNote, missing: list[str]) -> DeploymentNote:
    active, shadow = dict(noted.active), dict(noted.shadow)
    if active.get("previous_namespace") in missing:
        active = {name: value for name, value in active.items() if not name.startswith("previous_")}
    if shadow.get("namespace") in missing:
        shadow = {}
    kept = [name for name in noted.namespaces if name not in missing]
    return DeploymentNote(noted.version, active, kept, shadow, noted.experiments, noted.experiments_version)


def _shown(lake: LakePath, since: int, accounts: Accounts) -> Iterator[tuple[str, list[ItemTime]]]:
    """By user, what decisions from a time (ms) on have shown to them or, by then, to who turned out to be them: a file
    at a time, the newest first."""
    columns = ["user", "time", "items", "shown", "pinned", "kind"]
    for *_, folder in partition_folders(lake, "events"):
        for stretch in reversed(files(folder)):
            rows = read(stretch.path, EVENTS, columns)
            made = rows.filter((ds.field("kind") == "decision") & (ds.field("time") >= since))
            if not len(made):
                if len(rows) and pc.max(rows["time"]).as_py() < since - DAY_MS:
                    break
                continue
            by_user: dict[str, list[ItemTime]] = {}
            for user, time, items, shown, pinned in zip(*(made[name].to_pylist() for name in columns[:5]), strict=True):
                if not user.startswith(MASKED):
                    account = accounts.of(user, time)
                    by_user.setdefault(account, []).extend((item, time) for item in (*items[:shown], *(pinned or ())))
            yield from by_user.items()
