"""What was promised, what the log holds, and what was learnt: counted one by one, apart from the fold's own code."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import redis

from feature_store.bandit_state import BanditStore
from feature_store.contracts.events import Decision, Feedback, Withdrawal
from feature_store.online.store import OnlineStore
from feature_store.sums import ITEM, SERVED, N
from infra.benchmarks.visitors import Promises
from infra.connections import event_log
from infra.drain import Drained
from infra.settings import Settings
from infra.verification import verify
from streaming.admission import events_of

_POLL_MS = 200

Trials = Counter[tuple[str, int]]  # (item, SERVED or N) -> how many


class Audit(NamedTuple):
    """Counts; trials are those of item rows, in the live state of the active namespace."""

    logged_decisions: int
    logged_events: int  # distinct ones
    repeated_events: int  # in the log more than once
    missing: int  # promised and not in the log
    trials: int  # learnt, served and resolved ones
    lost: int  # trials that the log holds and the state lacks, and `missing`
    doubled: int  # trials that the state holds beyond those of the log
    equal: bool  # state == base + replay, row by row
    largest_difference: float


def audit(settings: Settings, client: redis.Redis, promises: Promises, drained: Drained) -> Audit:
    """Holds promises, log and state against each other. Everything must be folded, and no window have closed."""
    decisions, feedback = _log(settings, drained)
    missing = len(promises.decisions.keys() - decisions.keys()) + len(promises.events - feedback.keys())
    active = OnlineStore(client, settings.redis).deployment.active()
    assert active is not None
    store = BanditStore(client, settings.redis)
    found: Trials = Counter()
    for partition in range(len(drained.ends)):
        rows = store.load(active.namespace, partition).rows
        for item, cluster, values in zip(rows.item, rows.cluster, rows.values, strict=True):
            if cluster == ITEM:
                found[rows.items[item], SERVED] += round(values[SERVED])
                found[rows.items[item], N] += round(values[N])
    wanted = trials(decisions, feedback)
    comparisons = verify(settings, client)[active.namespace]
    return Audit(
        logged_decisions=len(decisions),
        logged_events=len(feedback),
        repeated_events=sum(len(items) - 1 for items in feedback.values()),
        missing=missing,
        trials=found.total(),
        lost=missing + (wanted - found).total(),
        doubled=(found - wanted).total(),
        equal=len(comparisons) == len(drained.ends) and all(c.equal for c in comparisons),
        largest_difference=max((c.largest_difference for c in comparisons), default=0.0),
    )


def trials(decisions: Mapping[str, Decision], feedback: Mapping[tuple[str, str], Sequence[str]]) -> Trials:
    """What should have been learnt: an item of a slate is served once, and resolved once however many events say so.

    decisions: by id; feedback: of each (decision id, event id) the items it names, once for each time it is in the log.
    """
    slates = {name: decision.items[: decision.shown] for name, decision in decisions.items()}
    clicked = {(decision, item) for (decision, _), items in feedback.items() for item in items}
    counted = Counter((item, SERVED) for slate in slates.values() for item in slate)
    counted.update((item, N) for decision, item in clicked if item in slates.get(decision, []))
    return counted


def _log(settings: Settings, drained: Drained) -> tuple[dict[str, Decision], dict[tuple[str, str], list[str]]]:
    """The whole topic: decisions by id, withdrawn ones left out, and of each (decision id, event id) the items."""
    decisions: dict[str, Decision] = {}
    withdrawn: set[str] = set()
    feedback: dict[tuple[str, str], list[str]] = {}
    at = dict.fromkeys(range(len(drained.ends)), 0)
    reader = event_log(settings).reader(settings.kafka.topics.events, at)
    while any(at[partition] < end for partition, end in enumerate(drained.ends)):
        for record in reader.poll(_POLL_MS):
            at[record.partition] = record.offset + 1
            for event in events_of(record):
                match event:
                    case Decision():
                        decisions[event.id] = event
                    case Withdrawal():
                        withdrawn.add(event.decision)
                    case Feedback():
                        feedback.setdefault((event.decision, event.id), []).append(event.item)
    reader.close()
    return {name: decision for name, decision in decisions.items() if name not in withdrawn}, feedback
