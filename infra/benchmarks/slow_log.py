"""The slow-log bench: how many decisions the bandit can learn from where the log takes its time.

One process's way into the log (online_serving/decisions.py, event_log.py), at the settings that are shipped, in front
of an embedded broker whose acknowledgements are late, as those of a cluster across zones are: 15 ms each; and with a
median of 6 ms and one in a hundred after 40 ms. Decisions of 20 items come at a fixed rate, and three events of
feedback follow each.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from feature_store.contracts.clock import SystemClock
from feature_store.contracts.events import Decision, Event, Feedback
from feature_store.contracts.identity import Keyring
from infra.benchmarks.ack_proxy import Acknowledgements, slow_broker
from infra.benchmarks.bench import Goal
from offline_training.progress import Progress
from online_serving.decisions import DecisionAppender
from online_serving.event_log import EventLog
from online_serving.settings import ServingSettings
from streaming.kafka import Appended
from streaming.settings import KafkaSettings

CASES = {
    "15 ms": (Acknowledgements(15.0, 15.0), 1.0),
    "6 ms, p99 40 ms": (Acknowledgements(6.0, 40.0), 0.99),
}  # with the share of decisions that should be logged
_KEYRING = Keyring(b"a secret for the bench")
_USERS = 5_000
_ITEMS = [f"item-{number:06}" for number in range(20)]
_EVENTS = 3
_WARM_UP_SECONDS = 2.0


def run(
    seed: int, progress: Progress, *, seconds: float = 20.0, rate: float = 200.0
) -> tuple[dict[str, Any], list[Goal]]:
    """Each case for `seconds` at `rate` decisions a second."""
    results: dict[str, Any] = {}
    goals = []
    for number, (name, (acknowledgements, target)) in enumerate(CASES.items()):
        progress(number / len(CASES), name)
        results[name] = measure(acknowledgements, seed, seconds, rate)
        share = results[name]["logged_share"]
        goals.append(Goal(name=f"logged_share {name}", value=share, target=target, unit="", better="higher"))
    return results, goals


def rows(results: dict[str, Any]) -> list[list[str]]:
    """A row per case."""
    head = ["acknowledgements", "decisions", "logged", "not sent", "too late", "waited, median", "waited, p99"]
    return [head] + [
        [
            name,
            str(found["decisions"]),
            f"{found['logged_share']:.2%}",
            str(found["not_sent"]),
            str(found["too_late"]),
            *(f"{found['waited_ms'][q]:.0f} ms" for q in ("p50", "p99")),
        ]
        for name, found in results.items()
    ]


def measure(acknowledgements: Acknowledgements, seed: int, seconds: float, rate: float) -> dict[str, Any]:
    """One case, at the shipped settings."""
    with slow_broker(acknowledgements, seed) as bootstrap:
        return asyncio.run(_measure(bootstrap, seed, seconds, rate))


class _Counting:
    """A DecisionLog that counts the decisions that are sent."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.decisions = 0

    def stalled_seconds(self, user: str) -> float:
        return self._log.stalled_seconds(user)

    def append(self, user: str, events: Sequence[Event]) -> "asyncio.Future[Appended]":
        self.decisions += isinstance(events[0], Decision)
        return self._log.append(user, events)


async def _measure(bootstrap: str, seed: int, seconds: float, rate: float) -> dict[str, Any]:
    log = EventLog(KafkaSettings(), SystemClock())
    async with log.running(bootstrap):
        counting = _Counting(log)
        appender = DecisionAppender(counting, ServingSettings().decision_deadline_ms)
        await _visits(appender, log, seed, _WARM_UP_SECONDS, rate)
        counting.decisions = 0
        waited, logged = await _visits(appender, log, seed + 1, seconds, rate)
        await appender.close()
    p50, p99 = np.quantile(waited, [0.5, 0.99]).tolist()
    return {
        "decisions": len(waited),
        "logged_share": logged / len(waited),
        "not_sent": len(waited) - counting.decisions,
        "too_late": counting.decisions - logged,
        "waited_ms": {"p50": p50 * 1000, "p99": p99 * 1000},
    }


async def _visits(
    appender: DecisionAppender, log: EventLog, seed: int, seconds: float, rate: float
) -> tuple[list[float], int]:
    """How long each decision waited for its acknowledgement, in seconds, and how many got it in time."""
    rng, began = np.random.default_rng(seed), time.monotonic()
    waited: list[float] = []
    logged = 0

    async def visit(user: str) -> None:
        nonlocal logged
        since = time.monotonic()
        made = _decision(user)
        in_time = await appender.logged(made)
        waited.append(time.monotonic() - since)
        logged += in_time
        if in_time:
            told = [log.append(user, [_feedback(made, str(number))]) for number in range(_EVENTS)]
            await asyncio.gather(*told, return_exceptions=True)

    async with asyncio.TaskGroup() as visits:
        for number in range(round(seconds * rate)):
            await asyncio.sleep(began + number / rate - time.monotonic())
            visits.create_task(visit(_KEYRING.user_key(f"visitor {rng.integers(_USERS)}")))
    return waited, logged


def _decision(user: str) -> Decision:
    now, n = int(time.time() * 1000), len(_ITEMS)
    return Decision(
        id=_KEYRING.decision_id(user, now), user=user, time=now, surface="home", release="0123456789abcdef",
        namespace="0123456789abcdef-1", variant="online-matching", learns=True, offsets=[0, 0],
        clusters=list(range(10)), weights=[0.1] * 10,
        history=_ITEMS, history_kinds=["click+"] * n, history_times=[now] * n, profile=[],
        items=_ITEMS, shown=n, sources=["index"] * n, predicted=[0.123456789] * n, mean=[0.123456789] * n,
        bonus=[0.0123456789] * n, edges=[1023] * n, probabilities=[0.987654321] * n,
    )  # fmt: skip


def _feedback(of: Decision, event: str) -> Feedback:
    return Feedback(
        id=event, decision=of.id, user=of.user, item=_ITEMS[0], type="click", value=1.0, time=of.time, received=of.time
    )
