"""ARCHITECTURE.md's table of what becomes of an event, row by row against the code."""

import math
from pathlib import Path

import msgspec
import pytest

from feature_store.bandit_state import BanditStore, PartitionState
from feature_store.contracts.events import Erasure, Event, Merge, Profile, Switch, Tick, Withdrawal, encode
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.namespace import Namespace, Start
from feature_store.settings import RedisSettings
from feature_store.sums import NO_ROWS
from streaming.kafka import Record
from streaming.partition import PartitionUpdater
from streaming.settings import RewardSettings
from tests.events import KEYRING, decision, feedback, interaction, unlogged

ROOT = Path(__file__).parents[3]
NOW, WINDOW = 1_700_000_000_000, 60_000
NAMESPACE = Namespace(
    id="r-1", release="r", log="log", offsets=[0], created=0, graph=Graph(4), base=NO_ROWS, starts=[Start()]
)
D = decision("ada", NOW, ["a", "b"])
SILENT = decision("ada", NOW, ["a"], learns=False)
CLICK = feedback(D, "a", received=NOW + 1)
RECENT, OLD = (KEYRING.decision_id(D.user, time, b"forged!!")[:-8] + "AAAAAAAA" for time in (NOW, 1))
UNLOGGED = feedback(unlogged("ada", NOW), "anything", received=NOW + 1)
PINNING = msgspec.structs.replace(D, pinned=["p"], pinned_places=[1])
BOUGHT = interaction("ada", "anything", received=NOW)
WITHDRAWAL = Withdrawal(decision=D.id, user=D.user, time=NOW)
AHEAD = decision("eve", NOW + 86_400_000, ["a"])
CLOSE = Tick(time=NOW + WINDOW)


def _changed(**change: str | float) -> Event:
    changed: Event = msgspec.structs.replace(CLICK, **change)
    return changed


# What came before, and what comes.
EXAMPLES: dict[str, tuple[list[Event], Event | bytes]] = {
    "a decision": ([], D),
    "the same decision again": ([D], D),
    "a decision whose window has closed already, also one that counted before": ([D, CLOSE], D),
    "a decision with weights outside (0, 1], predictions outside [0, 1], columns of unequal length, or clusters its "
    "release has not": ([], decision("ada", NOW, ["a"], weights=[math.nan])),
    "the withdrawal of a decision that was answered too late to be shown": (
        [D], WITHDRAWAL,
    ),
    "what is known about a user": ([], Profile(user=D.user, time=NOW, attributes={"age": 31})),
    "what is known about a user, with a number that is infinite or none": (
        [], Profile(user=D.user, time=NOW, attributes={"age": math.nan}),
    ),
    "a user's erasure: their trials without feedback are taken back": ([D, CLICK], Erasure(user=D.user, time=NOW)),
    "the same, before the decision itself has come": ([], WITHDRAWAL),
    "a decision that was withdrawn before it came": ([WITHDRAWAL], D),
    "a visitor's merging with a user: their trials go on": ([D], Merge(user=D.user, account="eve", time=NOW)),
    "a user's merging with themselves": ([D], Merge(user=D.user, account=D.user, time=NOW)),
    "feedback on a shown item": ([D], CLICK),
    "the same, from a client whose clock is years off": ([D], _changed(time=NOW * 2)),
    "further feedback on it": ([D, CLICK], _changed(id="2", type="like")),
    "a view after other feedback: it changes nothing": ([D, CLICK], _changed(id="2", type="view")),
    "an event id that the decision has had already": ([D, CLICK], _changed(item="b")),
    "no feedback on a shown item until its window closes": ([D, CLICK], CLOSE),
    "the same, from a client that reports views and reported none of it: no trial": ([D, _changed(type="view")], CLOSE),
    "feedback on a decision whose window has closed": ([D, CLOSE], CLICK),
    "feedback on a decision that does not train the bandit": ([SILENT], CLICK),
    "feedback while learning is switched off": ([D, Switch(learning=False, time=NOW)], CLICK),
    "feedback that stands before its decision in the log (`deadletter retry` after it counts)": ([], CLICK),
    "feedback on a decision whose user was erased after it": ([D, Erasure(user=D.user, time=NOW)], CLICK),
    "feedback on a decision that was withdrawn": ([D, WITHDRAWAL], CLICK),
    "feedback on an answer with `logged: false`, whose id says so: on any item, as an interaction": ([], UNLOGGED),
    "an event id that such an answer has had already": ([UNLOGGED], UNLOGGED),
    "feedback on such an answer, received after its window has closed": ([UNLOGGED, CLOSE], UNLOGGED),
    "such feedback on an item with an impossible id": ([], msgspec.structs.replace(UNLOGGED, item="x" * 257)),
    "feedback on what the request pinned into the slate: no trial": ([PINNING], feedback(PINNING, "p", received=NOW)),
    "an event that belongs to no decision": ([D], BOUGHT),
    "the same event again, within a window": ([BOUGHT], msgspec.structs.replace(BOUGHT, received=NOW + 1)),
    "the same event again, later: training counts it once": ([BOUGHT, CLOSE], BOUGHT),
    "such an event of another user, of an undeclared type, or on an item with an impossible id": (
        [], msgspec.structs.replace(BOUGHT, type="poem"),
    ),
    "feedback on a decision that the log does not have, or made up to look recent": (
        [D], _changed(decision=RECENT),
    ),
    "the same, made up to look old": ([D], _changed(decision=OLD)),
    "a decision id that is none": ([D], _changed(decision="1")),
    "feedback from another user than the decision's": ([D], _changed(user="somebody")),
    "feedback on an item that was not shown": ([D], _changed(item="a\n")),
    "an event type that is not declared": ([D], _changed(type="poem")),
    "a value beyond 10^12 either way, or not a number": ([D], _changed(value=-math.inf)),
    "the 1,001st event of one decision": (
        [D, *(feedback(D, "a", event=str(i), received=NOW) for i in range(1000))], _changed(id="one more"),
    ),
    "a record that is empty, junk, of another schema version, or with a field out of bounds": ([D], b""),
    "a decision of a time more than 5 minutes after the log's own: it counts as made 5 minutes after": ([], AHEAD),
    "feedback on it, received at such a time: as received 5 minutes after": ([AHEAD], feedback(AHEAD, "a")),
    "a tick of such a time: it closes no window that stays open longer than these 5 minutes": (
        [decision("bob", NOW + 290_000, ["a"])], Tick(time=NOW * 2),
    ),
}  # fmt: skip


def _table() -> dict[str, str]:
    lines = (ROOT / "ARCHITECTURE.md").read_text().partition("| what comes | outcome |\n|---|---|\n")[2].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines[: lines.index("")]]
    return {row[0].removesuffix(" |"): row[1].strip("`") if len(row) > 1 else "" for row in rows}


class _Empty(BanditStore):
    """A store that holds nothing yet."""

    def load(self, namespace: str, partition: int) -> PartitionState:
        return PartitionState(None, [], 0, True, NO_ROWS, {})


@pytest.mark.parametrize("situation", EXAMPLES)
def test_every_case_has_the_outcome_that_is_documented(situation: str, tmp_path: Path) -> None:
    before, event = EXAMPLES[situation]
    store = _Empty(None, RedisSettings())
    updater = PartitionUpdater(NAMESPACE, 0, "log", store, RewardSettings(window_seconds=60), Home(tmp_path))
    values = [*(encode([one]) for one in before), event if isinstance(event, bytes) else encode([event])]
    records = [Record(0, offset, None, value, NOW) for offset, value in enumerate(values)]
    assert updater.fold(records[:-1]) == []
    counts = updater._fold.outcomes.copy()
    letters = updater.fold(records[-1:])
    found = updater._fold.outcomes - counts
    outcome = _table()[situation]
    assert dict(found) == ({outcome: 1} if outcome else {})
    assert len(letters) == (outcome in ("dead", "unreadable"))


def test_the_table_has_an_example_for_each_of_its_rows() -> None:
    assert _table().keys() == EXAMPLES.keys()
