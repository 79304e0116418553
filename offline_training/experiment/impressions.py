"""Logged decisions with their rewards, from the events of the lake."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.contracts.columns import EVENTS
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import MAX_VALUE
from streaming.bandit.rewards import reward
from streaming.settings import RewardSettings

_DECISION = ["id", "user", "time", "surface", "variant", "items", "shown", "mean", "bonus", "probabilities"]
_FEEDBACK = ["id", "user", "decision", "item", "type", "value", "received"]


@dataclass(frozen=True, slots=True)
class RewardedDecision:
    """A logged decision and what came of it. s items shown, m in the exploration set."""

    user: str
    time: int  # ms since the epoch
    surface: str
    variant: str
    shown: list[str]  # the slate, in position order
    mean: NDArray[np.float64]  # (m,) of the exploration set, the slate first
    bonus: NDArray[np.float64]  # (m,)
    probabilities: NDArray[np.float64]  # (s,)
    rewards: NDArray[np.float64]  # (s,)


def rewarded_decisions(lake: Path, logs: Sequence[str], rewards: RewardSettings) -> list[RewardedDecision]:
    """The decisions of the logs (by id) with their feedback joined, ordered by time.

    Feedback counts if it came from the decision's user within the window, once per decision and event id; a shown item
    without any has the reward of silence. Raises InvalidInput if the lake has no decision of these logs.
    """
    found: list[RewardedDecision] = []
    for log in logs:
        # A user's decisions and feedback share a partition: each can be joined by itself.
        for partition in sorted((lake / "events" / f"log={log}").glob("partition=*")):
            decisions, feedback = _read(partition)
            found += _join(decisions, feedback, rewards)
    if not found:
        raise InvalidInput(f"The lake {lake} has no decisions of the logs {list(logs)}. Is the sink running?")
    return sorted(found, key=lambda decision: decision.time)


def _join(
    decisions: list[dict[str, Any]], feedback: list[dict[str, Any]], rewards: RewardSettings
) -> Iterator[RewardedDecision]:
    window_ms = rewards.window_seconds * 1000
    opened = {row["id"]: row for row in decisions}
    events: dict[tuple[str, str], list[tuple[str, float]]] = {}
    counted: set[tuple[str, str]] = set()
    for row in feedback:
        identity = row["decision"], row["id"]
        decision = opened.get(row["decision"])
        if decision is None or identity in counted or row["user"] != decision["user"]:
            continue
        if row["type"] not in rewards.weights or not abs(row["value"]) <= MAX_VALUE:
            continue
        counted.add(identity)
        if row["received"] - decision["time"] < window_ms:
            events.setdefault((row["decision"], row["item"]), []).append((row["type"], row["value"]))
    for row in decisions:
        shown = row["items"][: row["shown"]]
        came = (events.get((row["id"], item)) for item in shown)
        earned = [reward(rewards, what) if what else rewards.silence for what in came]
        yield RewardedDecision(
            user=row["user"],
            time=row["time"],
            surface=row["surface"],
            variant=row["variant"],
            shown=shown,
            mean=np.array(row["mean"], dtype=np.float64),
            bonus=np.array(row["bonus"], dtype=np.float64),
            probabilities=np.array(row["probabilities"], dtype=np.float64),
            rewards=np.array(earned, dtype=np.float64),
        )


def _read(partition: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Decisions that were not withdrawn, and feedback, of one partition, each in log order."""
    columns = list(dict.fromkeys(["kind", "offset", "position", *_DECISION, *_FEEDBACK]))
    schema = pa.schema([EVENTS.field(name) for name in columns])
    files = [pq.read_table(path, columns=columns, partitioning=None) for path in partition.glob("[0-9]*-*.parquet")]
    table = pa.concat_tables([schema.empty_table(), *files])
    table = table.sort_by([("offset", "ascending"), ("position", "ascending")])
    kinds = table["kind"]
    withdrawn = table.filter(pc.equal(kinds, "withdrawal"))["decision"]
    shown = pc.and_(pc.equal(kinds, "decision"), pc.invert(pc.is_in(table["id"], withdrawn)))
    decisions = table.filter(shown).select(_DECISION).to_pylist()
    feedback = table.filter(pc.equal(kinds, "feedback")).select(_FEEDBACK).to_pylist()
    return decisions, feedback
