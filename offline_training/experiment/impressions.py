"""Logged decisions with their rewards, from the events of the lake."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_store.arrays import Bool
from feature_store.bandit_state import Position
from feature_store.contracts.columns import EVENTS
from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import MAX_VALUE
from feature_store.definitions import HistoryEvent
from feature_store.lake_path import LakePath
from streaming.bandit.rewards import reward
from streaming.lake_files import files, folders_of, read
from streaming.settings import VIEW, RewardSettings

_DECISION = [
    *("id", "user", "time", "surface", "variant", "release", "items", "shown"),
    *("predicted", "mean", "bonus", "probabilities", "greedy", "greedy_mean", "pinned"),
]
_PAST = ["history", "history_kinds", "history_times", "profile"]
_FEEDBACK = ["id", "user", "decision", "item", "type", "value", "received"]


@dataclass(frozen=True, slots=True)
class RewardedDecision:
    """A logged decision and what came of it. s items shown, m in the exploration set."""

    id: str
    user: str
    time: int  # ms since the epoch
    surface: str
    variant: str  # as logged: contracts.experiments.label
    release: str
    shown: list[str]  # the slate, in position order
    predicted: NDArray[np.float64]  # (m,) of the exploration set, the slate first
    mean: NDArray[np.float64]  # (m,)
    bonus: NDArray[np.float64]  # (m,)
    probabilities: NDArray[np.float64]  # (s,)
    rewards: NDArray[np.float64]  # (s,)
    seen: Bool  # (s,) False: its client reports views, and reported nothing of the item
    history: list[HistoryEvent] = field(default_factory=list)  # that it was made with, newest first, where asked for
    profile: list[str] = field(default_factory=list)  # the same
    greedy: NDArray[np.float64] | None = None  # (s,) of the greedy policy, where there were rules within the slate: ...
    greedy_mean: NDArray[np.float64] | None = None  # (s,) ... as events.SlateColumns has them


def rewarded_decisions(lake: LakePath, logs: Sequence[str], rewards: RewardSettings) -> list[RewardedDecision]:
    """The decisions of the logs (by id) with their feedback joined, ordered by time.

    Feedback counts if it came from the decision's user within the window, once per decision and event id; a shown item
    without any has the reward of silence. Raises InvalidInput if the lake has no decision of these logs.
    """
    found: list[RewardedDecision] = []
    for log in logs:
        # A user's decisions and feedback share a partition: each can be joined by itself.
        for partition in folders_of(lake, log):
            decisions, feedback = _read(partition, 0, _DECISION)
            found += _join(decisions, feedback, rewards)
    if not found:
        raise InvalidInput(f"The lake {lake} has no decisions of the logs {list(logs)}. Is the sink running?")
    return sorted(found, key=lambda decision: decision.time)


def rewarded_since(lake: LakePath, ends: Sequence[Position], rewards: RewardSettings) -> list[RewardedDecision]:
    """The same of the decisions from the ends on, which are per partition, with what they were made with; none if there
    are none."""
    found: list[RewardedDecision] = []
    for partition, end in enumerate(ends):
        folder = lake / "events" / f"log={end.log}" / f"partition={partition}"
        found += _join(*_read(folder, end.offset, [*_DECISION, *_PAST]), rewards)
    return sorted(found, key=lambda decision: decision.time)


def _join(
    decisions: list[dict[str, Any]], feedback: list[dict[str, Any]], rewards: RewardSettings
) -> Iterator[RewardedDecision]:
    window_ms = rewards.window_seconds * 1000
    opened: dict[str, dict[str, Any]] = {}
    for row in decisions:
        opened.setdefault(row["id"], row)  # one that was logged twice counts once
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
    for row in opened.values():
        shown = row["items"][: row["shown"]]
        came = [events.get((row["id"], item)) for item in shown]
        earned = [reward(rewards, what) if what else rewards.silence for what in came]
        beside = [events.get((row["id"], item)) for item in row["pinned"] or ()]
        views = any(kind == VIEW for what in (*came, *beside) for kind, _ in what or ())
        yield RewardedDecision(
            id=row["id"],
            user=row["user"],
            time=row["time"],
            surface=row["surface"],
            variant=row["variant"],
            release=row["release"],
            shown=shown,
            predicted=np.array(row["predicted"], dtype=np.float64),
            mean=np.array(row["mean"], dtype=np.float64),
            bonus=np.array(row["bonus"], dtype=np.float64),
            probabilities=np.array(row["probabilities"], dtype=np.float64),
            rewards=np.array(earned, dtype=np.float64),
            seen=np.array([bool(what) or not views for what in came], dtype=np.bool_),
            history=list(map(HistoryEvent, *(row[name] for name in _PAST[:3]))) if "history" in row else [],
            profile=row.get("profile", []),
            greedy=None if row["greedy"] is None else np.array(row["greedy"], dtype=np.float64),
            greedy_mean=None if row["greedy_mean"] is None else np.array(row["greedy_mean"], dtype=np.float64),
        )


def _read(
    partition: LakePath, start: int, of_decisions: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Decisions that were not withdrawn, and feedback, of one partition from an offset on, each in log order."""
    columns = list(dict.fromkeys(["kind", "offset", "position", *of_decisions, *_FEEDBACK]))
    schema = pa.schema([EVENTS.field(name) for name in columns])
    paths = [stretch.path for stretch in files(partition, start)]
    held = [read(path, EVENTS, columns) for path in paths]
    table = pa.concat_tables([schema.empty_table(), *held]).filter(pc.field("offset") >= start)
    table = table.sort_by([("offset", "ascending"), ("position", "ascending")])
    kinds = table["kind"]
    withdrawn = table.filter(pc.equal(kinds, "withdrawal"))["decision"]
    shown = pc.and_(pc.equal(kinds, "decision"), pc.invert(pc.is_in(table["id"], withdrawn)))
    decisions = table.filter(shown).select(of_decisions).to_pylist()
    feedback = table.filter(pc.equal(kinds, "feedback")).select(_FEEDBACK).to_pylist()
    return decisions, feedback
