"""Laws of a log that repeats itself: a record delivered again, soon or late, changes nothing."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.events import Event, Tick
from feature_store.graph import Graph
from feature_store.namespace import Namespace, Start
from feature_store.sums import NO_ROWS
from streaming.fold import Fold
from streaming.settings import Aggregation, RewardSettings
from tests.events import decision, feedback

NAMESPACE = Namespace(
    id="r-1", release="r", log="log", offsets=[0], created=0, graph=Graph(4), base=NO_ROWS, starts=[Start()]
)
DECISIONS = [decision(f"user {u}", u, ["a", "b\n"], clusters=[0, 2], weights=[0.25, 0.75]) for u in range(3)]
TOLD = st.builds(
    lambda u, item, kind, event, value: feedback(DECISIONS[u], item, kind, event=event, value=value),
    st.integers(0, 2),
    st.sampled_from(["a", "b\n", "never shown"]),
    st.sampled_from(["click", "view", "dislike", "undeclared"]),
    st.sampled_from("123"),
    st.sampled_from([-1.0, 0.25, 1.0, float("nan")]),
)


def _sums(events: Sequence[Event], aggregation: Aggregation) -> dict[tuple[str, int], list[float]]:
    fold = Fold(NAMESPACE, RewardSettings(window_seconds=60, aggregation=aggregation), Start())
    fold.apply(events)
    rows = fold.sums.rows()
    assert np.isfinite(rows.values).all()
    named = zip(rows.item, rows.cluster, rows.values.tolist(), strict=True)
    return {(rows.items[item], int(cluster)): values for item, cluster, values in named}


@given(st.lists(TOLD, max_size=12), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=12), st.data())
def test_a_repeated_record_changes_nothing(
    told: list[Event], again: list[tuple[int, int]], data: st.DataObject
) -> None:
    aggregation = data.draw(st.sampled_from(Aggregation))
    events: list[Event] = [*DECISIONS, *told]
    repeated = list(enumerate(events))
    for which, later in again:
        place = which % len(events)
        first = next(at for at, (number, _) in enumerate(repeated) if number == place)
        repeated.insert(min(first + 1 + later, len(repeated)), (place, events[place]))
    close = Tick(time=100_000)
    once = _sums([*events, close], aggregation)
    assert _sums([*(event for _, event in repeated), close], aggregation) == once
    assert _sums([*events, close, *events, close], aggregation) == once, "also when it comes after the window"
