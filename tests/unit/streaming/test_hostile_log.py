"""Whatever stands in the log, folding it neither fails nor makes a sum that is no number, and a replay agrees."""

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.bandit_state import BanditStore, PartitionState
from feature_store.contracts.events import Decision, Event, Tick, Withdrawal, encode
from feature_store.graph import Graph
from feature_store.home import Home
from feature_store.namespace import Namespace, Start
from feature_store.settings import RedisSettings
from feature_store.sums import NO_ROWS
from feature_store.translation import Translation
from streaming.fold import Fold
from streaming.kafka import Record
from streaming.partition import PartitionUpdater
from streaming.settings import Aggregation, RewardSettings
from tests.events import decision, feedback

NOW = 1_700_000_000_000
NAMESPACE = Namespace(
    id="r-1", release="r", log="log", offsets=[0], created=0, graph=Graph(4), base=NO_ROWS, starts=[Start()],
    translations={"older": Translation.of(np.full((2, 4), 0.25))},
)  # fmt: skip
GOOD = [decision("ada", NOW, ["a", "b"], clusters=[0, 2], weights=[0.25, 0.75]), decision("bob", NOW, ["a"])]

CLOSE = Tick(time=NOW + 400_000)  # every window, also of decisions that claim a later time


class Empty(BanditStore):
    """A store that holds nothing yet."""

    def load(self, namespace: str, partition: int) -> PartitionState:
        return PartitionState(None, [], 0, True, NO_ROWS, {})


def partition(aggregation: Aggregation = Aggregation.SUM) -> PartitionUpdater:
    rewards = RewardSettings(aggregation=aggregation, window_seconds=60)
    return PartitionUpdater(NAMESPACE, 0, "log", Empty(None, RedisSettings()), rewards, Home(Path("/nonexistent")))


def fold(updater: PartitionUpdater, values: list[bytes]) -> int:
    """Returns the number of dead letters; checks that the sums are sound, also after all windows have closed."""
    records = [Record(0, offset, None, value, NOW) for offset, value in enumerate(values)]
    closing = Record(0, len(values), None, encode([CLOSE]), CLOSE.time)
    letters = updater.fold([*records, closing])
    rows = updater._fold.sums.rows()
    assert np.isfinite(rows.values).all()
    assert (rows.values[:, :2] >= 0).all()  # trials
    assert updater.offset == len(values) + 1
    assert updater._fold.open_decisions == 0
    return len(letters)


FLOATS = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1e300, 1e300, 1e12, 5e-324]))
COLUMN = st.lists(FLOATS, max_size=3)
COUNTS = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2**31 - 1)), max_size=70)
BROKEN: dict[str, st.SearchStrategy[Any]] = {
    "clusters": COUNTS,
    "weights": COLUMN,
    "items": st.lists(st.text(max_size=3), max_size=4),
    "shown": st.integers(0, 2**31 - 1),
    "predicted": COLUMN,
    "edges": st.lists(st.integers(0, 2**63 - 1), max_size=4),
    "time": st.integers(0, NOW + 200_000),
    "release": st.sampled_from(["r", "older", "unknown"]),
}


@st.composite
def events(draw: st.DrawFn) -> Event:
    of: Decision = draw(st.sampled_from(GOOD))
    match draw(st.sampled_from(["decision", "feedback", "withdrawal", "good"])):
        case "good":
            return of
        case "decision":
            fields = draw(st.sets(st.sampled_from(sorted(BROKEN)), max_size=4))
            return msgspec.structs.replace(of, **{field: draw(BROKEN[field]) for field in sorted(fields)})
        case "withdrawal":
            return Withdrawal(decision=of.id, user=of.user, time=NOW)
        case _:
            kind = draw(st.sampled_from(["view", "click", "dislike", "poem"]))
            event, item = str(draw(st.integers(0, 9))), draw(st.sampled_from(["a", "b", "z"]))
            return feedback(
                of, item, kind, event=event, value=draw(FLOATS), received=NOW + draw(st.integers(0, 70_000))
            )


@settings(max_examples=max(300, settings().max_examples))
@given(st.lists(events(), max_size=12), st.sampled_from(Aggregation))
def test_broken_events_are_dead_letters_and_nothing_else(log: list[Event], aggregation: Aggregation) -> None:
    updater = partition(aggregation)
    fold(updater, [encode([event]) for event in log])
    again = Fold(NAMESPACE, updater._rewards, Start())  # in one go, as a replay does
    again.apply([*log, CLOSE])
    assert again.sums.rows().items == updater._fold.sums.rows().items
    assert np.array_equal(again.sums.rows().values, updater._fold.sums.rows().values)


@settings(max_examples=max(300, settings().max_examples))
@given(st.data())
def test_corrupt_records_are_dead_letters_and_nothing_else(data: st.DataObject) -> None:
    whole = encode([*GOOD, feedback(GOOD[0], "a")])
    cuts = data.draw(st.lists(st.tuples(st.integers(0, len(whole)), st.binary(max_size=4)), max_size=3))
    for at, noise in cuts:
        whole = whole[:at] + noise + whole[at + len(noise) :]
    junk = data.draw(st.binary(max_size=40))
    assert fold(partition(), [whole, junk, b"", encode(GOOD)]) >= 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weights": [0.5, 0.0]}, r"its weights .* do not lie in \(0, 1\]"),
        ({"weights": [0.5, math.nan]}, r"its weights .* do not lie in \(0, 1\]"),
        ({"weights": [0.5, 1.5]}, r"its weights .* do not lie in \(0, 1\]"),
        ({"weights": [0.5]}, "it has 2 clusters, some twice or too many, or without a weight of their own"),
        ({"clusters": [1, 1]}, "it has 2 clusters, some twice"),
        ({"clusters": [1, 4]}, "its cluster 4 is not one of the 4 of its release"),
        ({"clusters": [1, 2], "release": "older"}, "its cluster 2 is not one of the 2 of its release"),
        ({"predicted": [0.5, math.inf]}, r"its predictions .* do not lie in \[0, 1\]"),
        ({"predicted": [0.5]}, "it shows 2 of 2 items, with columns of other lengths"),
        ({"edges": [1]}, "it shows 2 of 2 items, with columns of other lengths"),
        ({"edges": [1, 4]}, "an item has an edge to a cluster beyond the 2 that are active"),
        ({"shown": 3}, "it shows 3 of 2 items"),
    ],
)
def test_a_decision_out_of_bounds_says_which(change: dict[str, Any], reason: str) -> None:
    sums = Fold(NAMESPACE, RewardSettings(), Start())
    sums.apply([msgspec.structs.replace(GOOD[0], **change)])
    (letter,) = sums.take_dead()
    assert msgspec.json.encode(letter.event)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(letter.reason)
    assert len(sums.sums) == 0


def test_what_one_decision_remembers_is_bounded() -> None:
    many = [encode([feedback(GOOD[1], "a", event=str(i)) for i in range(at, at + 500)]) for at in range(0, 3000, 500)]
    updater = partition()
    assert fold(updater, [encode(GOOD), *many]) == 2000
    assert updater._fold.outcomes["corrected"] == 999
