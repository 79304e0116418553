"""The remedy after bots or a tracking bug: a namespace of the serving release that leaves a part of the log out.

Its base is the serving namespace's base plus the fold of the lake without what is left out, and it folds the log from
where the lake ends: the law holds for it as for any other. The log, the lake and users' histories stay as they are.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from feature_store.bandit_state import BanditStore
from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import InvalidInput, ReleaseRefused, Unavailable
from feature_store.contracts.events import Decision, Event, event_time
from feature_store.home import Home
from feature_store.namespace import Namespace, namespace_id
from feature_store.online.store import OnlineStore
from feature_store.sums import Sums
from offline_training.promotion.promote import swap
from streaming.fold import Fold
from streaming.kafka import Log
from streaming.log_reader import LogReader
from streaming.open_decisions import mark_as_not_teaching
from streaming.replay import gaps_between, lake_ends
from streaming.settings import RewardSettings
from streaming.sink import drain

_NAMED_USERS = 3
_SAME = 1e-9  # relative: smaller differences are rounding


@dataclass(frozen=True)
class Installation:
    """Where the state lives."""

    home: Home
    rewards: RewardSettings
    online: OnlineStore
    state: BanditStore
    log: Log
    clock: Clock


class Exclusion(NamedTuple):
    """What is left out: everything behind the place where a partition's stream time passes `after` (ms since the epoch;
    None: nothing), and the users (by key) everywhere."""

    after: int | None
    users: dict[str, str]  # key -> the id it was made from


class Rollback(NamedTuple):
    """A namespace, not saved yet, and what it leaves out."""

    namespace: Namespace
    parent: str
    decisions: int  # that taught, and do not any more
    feedback: int
    rows: int  # that change by it
    rows_before: int


class _Kept(NamedTuple):
    """One partition with and without what is left out."""

    whole: Fold
    parts: list[Fold]
    decisions: int
    met: set[str]


def plan_rollback(at: Installation, exclusion: Exclusion) -> Rollback:
    """Computes the namespace, from a lake that has been drained to the present.

    Raises InvalidInput for a time in the future or one that the base already holds, for unknown users, and if nothing
    would be left out; ReleaseRefused if nothing serves yet; Unavailable if no sink fills the lake.
    """
    active = at.online.deployment.active()
    if active is None:
        raise ReleaseRefused("There is no state to roll back: nothing serves yet. Run `matchloop train` first.")
    parent = Namespace.load(at.home.namespaces, active.namespace)
    _check_time(at, parent, exclusion.after)
    reader, log_id = LogReader(at.home.lake), at.log.log_id()
    drain(at.log, at.home, at.clock)

    kept, offsets = [], []
    for n in range(len(parent.offsets)):
        ends = lake_ends(parent, n, at.state, at.home.lake, log_id)
        offsets.append(ends[-1].offset)
        kept.append(_replay(parent, n, at.rewards, reader.events(n, parent.offsets[n], ends), exclusion))
    _check_users(parent, exclusion.users, set[str]().union(*(one.met for one in kept)))
    before = Sums.of(parent.base, *(one.whole.sums.rows() for one in kept))
    after = Sums.of(parent.base, *(part.sums.rows() for one in kept for part in one.parts))
    _, gaps = gaps_between(after, before, before)
    told = [_told(one.whole) - sum(map(_told, one.parts)) for one in kept]
    decisions, feedback = sum(one.decisions for one in kept), sum(told)
    if not decisions and not feedback:
        raise InvalidInput("There is nothing to leave out: no such decision and no such feedback taught anything.")
    created = at.clock.now_ms()
    namespace = Namespace(
        id=_next_id(at.home.namespaces, parent.release),
        release=parent.release,
        log=log_id,
        offsets=offsets,
        created=created,
        graph=parent.graph,
        base=after.rows().times(1 / parent.decay.trial(created)),  # in trials of the new landmark
        starts=[one.parts[-1].start() for one in kept],
        translations=parent.translations,
        replaced=parent.replaced,
        memory_days=parent.memory_days,
        steepness=parent.steepness,
    )
    return Rollback(namespace, parent.id, decisions, feedback, int((gaps > _SAME).sum()), len(before))


def perform(at: Installation, rollback: Rollback, stale: bool = False) -> None:
    """Saves the namespace and has it serve, as soon as an updater has folded it up to the present. stale, and raises,
    as swap does."""
    rollback.namespace.save(at.home.namespaces)
    try:
        swap(rollback.namespace, at.online, at.state, stale)
    except Unavailable as error:
        raise Unavailable(f"{error} It is kept: `matchloop state activate {rollback.namespace.id}`.") from error


def activate(at: Installation, namespace: str, stale: bool = False) -> None:
    """Has another namespace of the serving release serve: the way back from a rollback. Raises ReleaseRefused if it is
    none. stale, and raises, as swap does."""
    active = at.online.deployment.active()
    made = Namespace.load(at.home.namespaces, namespace)
    if active is None or made.release != active.release:
        serves = "nothing serves" if active is None else f"release {active.release} serves"
        raise ReleaseRefused(f"Namespace {namespace} belongs to release {made.release}, and {serves}. Name one of its.")
    swap(made, at.online, at.state, stale)


def _replay(
    parent: Namespace, partition: int, rewards: RewardSettings, events: Iterable[Event], exclusion: Exclusion
) -> _Kept:
    """Folds with and without. What is left out stays known, and teaches nothing: its later feedback is only seen."""
    start = parent.starts[partition]
    whole = Fold(parent, rewards, start)
    part = Fold(parent, rewards, mark_as_not_teaching(start, exclusion.users))
    parts, decisions, met = [part], 0, set[str]()
    for event in events:
        whole.apply([event])
        if len(parts) == 1 and exclusion.after is not None and event_time(event) > exclusion.after:
            parts.append(Fold(parent, rewards, mark_as_not_teaching(part.start())))
            part = parts[-1]
        if (user := getattr(event, "user", None)) in exclusion.users:
            met.add(str(user))
        if isinstance(event, Decision) and (len(parts) > 1 or event.user in exclusion.users):
            decisions += event.learns
            part.apply([msgspec.structs.replace(event, learns=False)])
        else:
            part.apply([event])
    return _Kept(whole, parts, decisions, met)


def _told(fold: Fold) -> int:
    """How much feedback taught something."""
    counts: Counter[str] = fold.outcomes
    return counts["learnt"] + counts["corrected"]


def _check_time(at: Installation, parent: Namespace, after: int | None) -> None:
    if after is None:
        return
    now = at.clock.now_ms()
    if after > now:
        raise InvalidInput(f"The time to roll back to, {after} ms, is {(after - now) / 1000:.0f} s in the future.")
    held = max(start.stream_time for start in parent.starts)
    if after < held:
        others = sorted(path.name for path in at.home.namespaces.glob(f"{parent.release}-*"))
        raise InvalidInput(
            f"The base of namespace {parent.id} holds everything up to {held} ms already: it cannot go back to {after} "
            f"ms. First go back to an earlier namespace of its release, with `matchloop state activate NAME` (there "
            f"are {', '.join(others)}), or name a later time."
        )


def _check_users(parent: Namespace, users: dict[str, str], met: set[str]) -> None:
    unknown = sorted(name for key, name in users.items() if key not in met)
    if unknown:
        more = "" if len(unknown) <= _NAMED_USERS else f" and {len(unknown) - _NAMED_USERS} more"
        raise InvalidInput(
            f"{len(unknown)} of {len(users)} users have no events since the base of namespace {parent.id} was made: "
            f"{', '.join(map(repr, unknown[:_NAMED_USERS]))}{more}. Take them out of the file."
        )


def _next_id(namespaces: Path, release: str) -> str:
    number = 1
    while (namespaces / namespace_id(release, number)).exists():
        number += 1
    return namespace_id(release, number)
